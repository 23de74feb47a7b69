"""The store of the settings: made, with the server that is embedded for it, and not opened yet.

Who wants to use it asks `hs_stream.service.host`, which also has the right to write.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.urls import redacted
from hs_stream.engine.ports import Store
from hs_stream.private_files import make_private
from hs_stream.service.settings import Settings
from hs_stream.store.factories import sqlite_path
from hs_stream.store.open import StoreOptions, open_store

if TYPE_CHECKING:
    from hs_stream.service.embedded.mongod import EmbeddedMongod

__all__ = ["EmbeddedStore", "MakeStore", "has_store", "make_store", "without_server"]

logger = structlog.get_logger(__name__)


class MakeStore(Protocol):
    """`make_store`, or what calls it on another thread."""

    def __call__(self, settings: Settings, url: str, *, read_only: bool = False) -> Store: ...


def without_server(error: StoreUnavailable) -> str:
    """The hint of ``error`` for who has not begun yet: where no server answers, none is needed."""
    from hs_stream.store.mongo.errors import AWAY  # noqa: PLC0415 - pymongo takes 0.2 s to import

    if error.hint != AWAY:
        return error.hint
    return f"{AWAY}, or set HS_STREAM__STORE__URL=sqlite:///var/hs_stream.db: a file, which needs no server"


def has_store(settings: Settings) -> bool:
    """Whether there can be something in the store: one that was never written to is not asked."""
    scheme = settings.store.url.partition("://")[0]
    if scheme == "sqlite":
        return sqlite_path(settings.store.url).is_file()
    if scheme == "embedded":
        return Path(settings.store.data_dir).is_dir()
    return scheme != "memory"


def make_store(settings: Settings, url: str, *, read_only: bool = False) -> Store:
    """The store at ``url``, not opened yet. ``read_only`` may be used beside a running service.

    Raises `StoreUnavailable` when an SQLite file that is only to be read does not exist.
    """
    books = {"history_days": settings.store.history_days, "dead_letter_days": settings.store.dead_letter_days}
    return open_store(url, StoreOptions(read_only=read_only, **books))


class EmbeddedStore:
    """The store of the settings; ``embedded://`` is a mongod child where one runs, else an SQLite file.

    `open` gives the store, not opened yet; `close` stops the child. ``StoreUnavailable`` when the child does not start.
    ``beside``: take the child of another process, where one runs over these files; it ends when that process does.
    With ``read_only`` it is only read. ``make`` makes the store.
    """

    def __init__(
        self, settings: Settings, *, beside: bool = False, read_only: bool = False, make: MakeStore = make_store
    ) -> None:
        self._settings = settings
        self._beside, self._read_only, self._make = beside, read_only, make
        self._url = settings.store.url
        self._directory = Path(settings.store.data_dir)
        self._mongod: EmbeddedMongod | None = None

    @property
    def shown(self) -> str:
        """The URL for people: without a password."""
        return redacted(self._url)

    async def open(self) -> Store:
        """Make the store."""
        if self._url.partition("://")[0] != "embedded":
            return self._make(self._settings, self._url, read_only=self._read_only)
        from hs_stream.service.embedded.mongod import (  # noqa: PLC0415 - as in make_store
            EmbeddedMongod,
            find_mongod,
            running_mongod,
        )

        if self._beside and (url := await asyncio.to_thread(running_mongod, self._directory / "mongod", "hs_stream")):
            self._url = url
            return self._make(self._settings, url, read_only=self._read_only)
        binary = find_mongod()
        make_private(self._directory)
        if binary is None:
            self._url = f"sqlite:///{self._directory / 'hs_stream.db'}"
        else:
            # As a replica set of one, commits are transactions.
            self._mongod = EmbeddedMongod(self._directory / "mongod", replica_set="hs", binary=binary, locked=True)
            await self._mongod.start()
            self._url = self._mongod.database_url("hs_stream")
        logger.info("embedded store", url=self.shown)
        return self._make(self._settings, self._url)

    async def close(self) -> None:
        """Stop the child, if there is one. Its files stay."""
        if self._mongod is not None:
            await self._mongod.stop()
