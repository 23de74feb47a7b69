"""From settings to parts: registry, workflows, store, connectors. Only this module and `app` wire."""

from __future__ import annotations

import glob
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog

from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition, check_shared
from hs_stream.engine.engine import EngineSettings
from hs_stream.engine.ports import Store
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings
from hs_stream.service.workflow_file import SourceCheck, load_workflow
from hs_stream.store.open import open_store, redacted
from hs_stream_connectors.codecs import codec
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.source import SourceSpec
from hs_stream_connectors.mqtt.topics import TopicTemplate

if TYPE_CHECKING:
    from hs_stream.service.embedded_mongod import EmbeddedMongod

__all__ = [
    "EmbeddedStore",
    "check_names",
    "engine_settings",
    "has_store",
    "load_registry",
    "load_workflows",
    "make_store",
    "mqtt_options",
    "source_check",
    "source_specs",
    "version",
    "workflow_files",
]

logger = structlog.get_logger(__name__)

_SOURCE_KEYS = ("mqtt", "codec", "time", "fields", "earliest", "max_payload")


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
        max_in_flight=settings.executor.max_in_flight,
        recompute_on=settings.tools.recompute_on,
    )


def mqtt_options(settings: Settings) -> MqttOptions:
    """The connection's part of the settings. `ConfigurationError` for a password file that cannot be read."""
    mqtt = settings.mqtt
    return MqttOptions(
        url=mqtt.url,
        client_id=mqtt.client_id,
        username=mqtt.username,
        password_file=mqtt.password_file,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
        version=mqtt.version,
    )


# --- sources ---


def _spec(name: str, options: Mapping[str, Any], settings: Settings) -> SourceSpec:
    for key in options:
        if key not in _SOURCE_KEYS:
            raise ConfigurationError(f"source {name}: there is no key {key!r}", hint=f"the keys are {_listed()}")
    kind = options.get("codec", "json")
    if not isinstance(kind, str):
        raise ConfigurationError(f"source {name}: codec is not a name", hint="write codec: json")
    rest = {key: value for key, value in options.items() if key not in ("mqtt", "codec")}
    rest.setdefault("earliest", settings.watermark.earliest)
    rest.setdefault("max_payload", settings.mqtt.max_payload)
    if not isinstance(options["mqtt"], str):
        raise ConfigurationError(f"source {name}: mqtt is not text", hint='write mqtt: "home/{room}/climate"')
    return SourceSpec(name, TopicTemplate(options["mqtt"]), codec(kind, **rest))


def _listed() -> str:
    return ", ".join(_SOURCE_KEYS)


def source_check(settings: Settings) -> SourceCheck:
    """A check that builds the real topic template and codec."""
    return lambda name, options: tuple(_spec(name, options, settings).template.names)


def source_specs(workflows: Iterable[WorkflowDefinition], settings: Settings) -> list[SourceSpec]:
    """One per source that has a topic, however many workflows share it."""
    specs: dict[str, SourceSpec] = {}
    for workflow in workflows:
        for source in workflow.sources.values():
            if "mqtt" not in source.options or source.name in specs:
                continue
            try:
                specs[source.name] = _spec(source.name, source.options, settings)
            except ConfigurationError as error:
                raise workflow.error(f"sources.{source.name}", error.message, error.hint) from None
    return list(specs.values())


# --- workflows ---


def workflow_files(patterns: Sequence[str]) -> list[Path]:
    """The files that the patterns name, sorted, each once. `ConfigurationError` when a plain name has no file."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - the pattern may be absolute
        if not matches and not glob.has_magic(pattern):
            raise ConfigurationError(f"workflows: there is no file {pattern}", hint="correct workflows in the settings")
        for match in matches:
            found[Path(match)] = None
    return list(found)


def load_workflows(settings: Settings, registry: ToolRegistry) -> list[WorkflowDefinition]:
    """Every workflow of the settings; what two of them name alike, they define equally."""
    check = source_check(settings)
    workflows = [load_workflow(path, registry, check) for path in workflow_files(settings.workflows)]
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


# --- store ---


def has_store(settings: Settings) -> bool:
    """Whether there can be something in the store: one that was never written to is not asked."""
    scheme, _, rest = settings.store.url.partition("://")
    if scheme == "sqlite":
        return _sqlite_path(rest).is_file()
    if scheme == "embedded":
        return Path(settings.store.data_dir).is_dir()
    return scheme != "memory"


def _sqlite_path(rest: str) -> Path:
    return Path(unquote(rest[1:]))


def make_store(settings: Settings, url: str, *, read_only: bool = False) -> Store:
    """The store at ``url``, not opened yet. ``read_only`` may be used beside a running service.

    Raises `StoreUnavailable` when an SQLite file that is only to be read does not exist.
    """
    scheme, _, rest = url.partition("://")
    if scheme in ("mongodb", "mongodb+srv"):
        from hs_stream.store.mongo import MongoStore  # noqa: PLC0415 - pymongo takes 0.2 s to import

        days = {"history_days": settings.store.history_days, "dead_letter_days": settings.store.dead_letter_days}
        return MongoStore(url, **days, read_only=read_only)
    if scheme == "sqlite":
        path = _sqlite_path(rest)
        if read_only and not path.is_file():
            raise StoreUnavailable(
                f"there is no SQLite database {path}", hint="correct store.url, or run the service first"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot make the directory of the SQLite database {path}: {error.strerror}", hint="correct store.url"
            ) from None
    return open_store(url)


class EmbeddedStore:
    """The store of the settings; ``embedded://`` is a mongod child where one runs, else an SQLite file.

    `open` gives the store, not opened yet; `close` stops the child. ``StoreUnavailable`` when the child does not start.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
        from hs_stream.service.embedded_mongod import EmbeddedMongod, find_mongod  # noqa: PLC0415 - as in make_store

        binary = find_mongod()
        self._directory.mkdir(parents=True, exist_ok=True)
        if binary is None:
            self._url = f"sqlite:///{self._directory / 'hs_stream.db'}"
        else:
            # As a replica set of one, commits are transactions.
            self._mongod = EmbeddedMongod(self._directory / "mongod", replica_set="hs", binary=binary)
            await self._mongod.start()
            self._url = self._mongod.database_url("hs_stream")
        logger.info("embedded store", url=self.shown)
        return make_store(self._settings, self._url)

    async def close(self) -> None:
        """Stop the child, if there is one. Its files stay."""
        if self._mongod is not None:
            await self._mongod.stop()
