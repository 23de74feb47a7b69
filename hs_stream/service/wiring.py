"""From settings to parts: registry, workflows, store, connectors. Only this module and `app` wire."""

from __future__ import annotations

import asyncio
import glob
import importlib.metadata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.urls import redacted
from hs_stream.core.workflow import WorkflowDefinition, check_shared
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Recovery, Store
from hs_stream.plugins import default_registry
from hs_stream.private_files import make_private
from hs_stream.service.connectors import Connectors
from hs_stream.service.settings import Settings
from hs_stream.service.workflow_file import SourceCheck, WorkflowText
from hs_stream.store.factories import sqlite_path
from hs_stream.store.open import StoreOptions, open_store

if TYPE_CHECKING:
    from hs_stream.service.embedded_mongod import EmbeddedMongod

__all__ = [
    "EmbeddedStore",
    "check_names",
    "engine_settings",
    "first_workflow",
    "has_store",
    "load_registry",
    "load_workflows",
    "make_store",
    "matching_files",
    "read_workflows",
    "reading_store",
    "recovered_store",
    "saved_workflows",
    "source_check",
    "version",
    "without_server",
    "workflow_files",
]

logger = structlog.get_logger(__name__)


def version() -> str:
    """The version of the installed distribution; ``0+checkout`` when it runs from a checkout."""
    try:
        return importlib.metadata.version("hs_stream")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"


def load_registry(settings: Settings) -> ToolRegistry:
    """Every tool that workflows may name."""
    return default_registry(settings.tools.paths, settings.tools.allow_development_tools)


def engine_settings(settings: Settings) -> EngineSettings:
    """The engine's part of the settings."""
    return EngineSettings(
        lateness=settings.watermark.lateness,
        idle=settings.watermark.idle,
        max_future=settings.watermark.max_future,
        backdate=settings.watermark.backdate,
        max_in_flight=settings.executor.max_in_flight,
        recompute_on=settings.tools.recompute_on,
        tails=settings.memory.tails,
        in_flight=settings.memory.in_flight,
    )


# --- sources ---


def source_check(settings: Settings) -> SourceCheck:
    """A check that asks the connector of each source: it builds the real topic template and codec, path and columns."""
    return Connectors(settings).check


# --- workflows ---


def workflow_files(patterns: Sequence[str]) -> list[Path]:
    """The files that the patterns name, sorted, each once. `ConfigurationError` when a plain name has no file."""
    for pattern in patterns:
        if not glob.has_magic(pattern) and not Path(pattern).exists():
            where = "" if Path(pattern).is_absolute() else f" in {Path.cwd()}"
            raise ConfigurationError(
                f"workflows: there is no file {pattern}{where}", hint="correct workflows in the settings"
            )
    return matching_files(patterns)


def matching_files(patterns: Sequence[str]) -> list[Path]:
    """The same, without those that are not there."""
    found = [
        Path(match)
        for pattern in patterns
        for match in sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute
    ]
    return list(dict.fromkeys(found))


def read_workflows(settings: Settings) -> list[WorkflowText]:
    """The text of every workflow of the settings. Any thread may read it."""
    return [WorkflowText.read_file(path) for path in workflow_files(settings.workflows)]


def load_workflows(
    settings: Settings, registry: ToolRegistry, texts: Sequence[WorkflowText] | None = None
) -> list[WorkflowDefinition]:
    """Every workflow of the settings (or of ``texts``); what two of them name alike, they define equally."""
    check = source_check(settings)
    found = read_workflows(settings) if texts is None else texts
    workflows = [text.workflow(registry, check) for text in found]
    check_names(workflows)
    return workflows


def check_names(workflows: Sequence[WorkflowDefinition]) -> None:
    """`ConfigurationError` for a workflow whose name another one has, or that names a source or node differently."""
    for index, workflow in enumerate(workflows):
        for other in workflows[:index]:
            if other.name == workflow.name:
                raise workflow.error(
                    "workflow", f"{other.path} is a workflow {workflow.name!r} too", "rename one of them"
                )
            check_shared(workflow, other)


async def saved_workflows(settings: Settings) -> list[str]:
    """The names of the workflows that are saved in the store; none where there is no store yet."""
    if not has_store(settings):
        return []
    async with reading_store(settings) as store:
        return [name for name, document in (await store.documents("workflows")).items() if document.get("saved")]


def first_workflow(settings: Settings) -> str:
    """The command that writes a first workflow where the settings look for one."""
    pattern = next((pattern for pattern in settings.workflows if pattern.count("*") == 1), "config/workflows/*.yaml")
    return f"hs-stream discover --for 30 -o {pattern.replace('*', 'home')}"


# --- store ---


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
    With ``read_only`` it is only read.
    """

    def __init__(self, settings: Settings, *, beside: bool = False, read_only: bool = False) -> None:
        self._settings = settings
        self._beside, self._read_only = beside, read_only
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
            return make_store(self._settings, self._url)
        from hs_stream.service.embedded_mongod import (  # noqa: PLC0415 - as in make_store
            EmbeddedMongod,
            find_mongod,
            running_mongod,
        )

        if self._beside and (url := await asyncio.to_thread(running_mongod, self._directory / "mongod", "hs_stream")):
            self._url = url
            return make_store(self._settings, url, read_only=self._read_only)
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
        return make_store(self._settings, self._url)

    async def close(self) -> None:
        """Stop the child, if there is one. Its files stay."""
        if self._mongod is not None:
            await self._mongod.stop()


@asynccontextmanager
async def reading_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, only to be read: works beside a running service."""
    async with recovered_store(settings) as (store, _):
        yield store


@asynccontextmanager
async def recovered_store(settings: Settings) -> AsyncIterator[tuple[Store, Recovery]]:
    """`reading_store`, and where it was left."""
    if settings.store.url.startswith("memory://"):
        raise ConfigurationError(
            "memory:// keeps nothing between two commands", hint="set store.url to the store of your service"
        )
    embedded = EmbeddedStore(settings, beside=True, read_only=True)
    store = (
        await embedded.open()
        if settings.store.url.startswith("embedded://")
        else make_store(settings, settings.store.url, read_only=True)
    )
    try:
        yield store, await store.open()
    finally:
        await store.close()
        await embedded.close()
