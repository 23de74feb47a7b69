"""From the ``store.url`` of the settings to a store."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hs_stream.core.errors import ConfigurationError
from hs_stream.engine.ports import Store
from hs_stream.store.memory import MemoryStore
from hs_stream.store.sqlite import SqliteStore

__all__ = ["open_store", "redacted"]

_HINT = "write memory://, sqlite:///path/to/file.db or mongodb://host:27017/database"


def redacted(url: str) -> str:
    """``url`` without its password, fit for a message or a log.

    >>> redacted("mongodb://anna:secret@db/hs")
    'mongodb://anna:***@db/hs'
    """
    scheme, separator, rest = url.partition("://")
    # A password may hold any character but "/", so the last "@" before the path ends it.
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if ":" in user:
        user = user.partition(":")[0] + ":***"
    return f"{scheme}{separator}{user}{at}{host}{slash}{path}"


def open_store(url: str) -> Store:
    """The store that ``url`` names; not opened yet.

    ``memory://``; ``sqlite:///relative.db`` (to the working directory), ``sqlite:////absolute.db``;
    ``mongodb://[user:password@]host[:port][/database]`` and ``mongodb+srv://...``, database ``hs_stream`` by default.
    Any other scheme may come from an entry point ``hs_stream.stores`` of that name, a callable that takes the URL.
    `ConfigurationError` for anything else; no message holds the password.
    """
    scheme = url.partition("://")[0]
    if url == "memory://":
        return MemoryStore()
    if scheme == "sqlite" and url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return SqliteStore(Path(unquote(urlsplit(url).path[1:])))
    if scheme in ("mongodb", "mongodb+srv"):
        from hs_stream.store.mongo import MongoStore  # noqa: PLC0415 - pymongo takes 0.2 s to import

        return MongoStore(url)
    for plugin in importlib.metadata.entry_points(group="hs_stream.stores", name=scheme):
        made: Store = plugin.load()(url)
        return made
    raise ConfigurationError(f"{redacted(url)!r} names no store", hint=_HINT)
