"""From the ``store.url`` of the settings to a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.urls import ENCODE, redacted, said_of
from hs_stream.engine.ports import Store
from hs_stream.entry_points import STORES

__all__ = ["StoreFactory", "StoreOptions", "no_store", "open_store", "redacted"]


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What a store is asked for besides its URL; a store may ignore what it has no use for.

    ``read_only``: used beside a running service, so nothing is created or written. ``*_days``: how long the books are
    kept.
    """

    read_only: bool = False
    history_days: float = 90.0
    dead_letter_days: float = 30.0


StoreFactory = Callable[[str, StoreOptions], Store]
"""``factory(url, options)``: a store, not opened yet. What an entry point of ``hs_stream.stores`` names."""

_DEFAULTS = StoreOptions()


def no_store(url: str) -> ConfigurationError:
    """The error for a URL that names no store."""
    more = [scheme for scheme in STORES.names() if not scheme.startswith(("memory", "mongodb", "sqlite"))]
    others = "".join(f", {scheme}://..." for scheme in more)
    return ConfigurationError(
        f"{redacted(url)!r} names no store",
        hint=f"write memory://, sqlite:///path/to/file.db, mongodb://host:27017/database{others}",
    )


def open_store(url: str, options: StoreOptions = _DEFAULTS) -> Store:
    """The store that ``url`` names; not opened yet.

    The scheme is a name of the entry point group ``hs_stream.stores``, ours included: ``memory://``;
    ``sqlite:///relative.db`` (to the working directory), ``sqlite:////absolute.db``;
    ``mongodb://[user:password@]host[:port][/database]`` and ``mongodb+srv://...``, database ``hs_stream`` by default.
    `ConfigurationError` for anything else; no message holds the password.
    """
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in STORES.table():
        raise no_store(url)
    try:
        made: Store = STORES.make(scheme, url, options)
    except ConfigurationError as error:
        # What others raise may quote the URL.
        said = (
            said_of(url, error.message).removeprefix(": ")
            or f"the store of {scheme}:// does not take {redacted(url)!r}"
        )
        raise ConfigurationError(said, hint=error.hint if said_of(url, error.hint) else ENCODE) from None
    return made
