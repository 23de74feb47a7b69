"""The stores of our own, as the entry points of ``hs_stream.stores`` make them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from hs_stream.core.errors import StoreUnavailable
from hs_stream.engine.ports import Store
from hs_stream.store.open import StoreOptions, no_store

__all__ = ["memory", "mongodb", "sqlite", "sqlite_path"]


def memory(url: str, _: StoreOptions) -> Store:
    """``memory://``."""
    from hs_stream.store.memory import MemoryStore  # noqa: PLC0415 - only the store that is used is imported

    if url != "memory://":
        raise no_store(url)
    return MemoryStore()


def sqlite(url: str, options: StoreOptions) -> Store:
    """``sqlite:///relative.db`` or ``sqlite:////absolute.db``. What is only read must exist."""
    from hs_stream.store.sqlite import SqliteStore  # noqa: PLC0415 - as above

    if not url.startswith("sqlite:///") or len(url) == len("sqlite:///"):
        raise no_store(url)
    path = sqlite_path(url)
    if options.read_only and not path.is_file():
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise StoreUnavailable(
            f"there is no SQLite database {path}{where}", hint="correct store.url, or run the service first"
        )
    return SqliteStore(path, make_directory=not options.read_only)


def sqlite_path(url: str) -> Path:
    """The file of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``."""
    return Path(unquote(urlsplit(url).path[1:]))


def mongodb(url: str, options: StoreOptions) -> Store:
    """``mongodb://[user:password@]host[:port][/database]``, ``mongodb+srv://...``."""
    from hs_stream.store.mongo import MongoStore  # noqa: PLC0415 - pymongo takes 0.2 s to import

    return MongoStore(
        url,
        history_days=options.history_days,
        dead_letter_days=options.dead_letter_days,
        read_only=options.read_only,
    )
