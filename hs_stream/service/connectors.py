"""Connectors: what feeds the sources of workflow files, ours and those of installed distributions.

1. A source has one key that names its connector: ``{mqtt: "home/{room}/climate", ...}``. Such keys are the names of the
   entry point group ``hs_stream.connectors``, ours included.
2. A connector is made once, by its factory, from the settings. It checks the options of one source, and makes one
   `hs_stream.engine.ports.Source` that reads all of its sources together.
3. Silence proves something only while every source is connected.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from hs_stream.core.doubts import SourceFacts
from hs_stream.core.errors import ConfigurationError, HsStreamError
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Delivery, Source
from hs_stream.entry_points import CONNECTORS
from hs_stream.service.settings import Settings
from hs_stream_connectors.csv_source import CsvConnector, check_below
from hs_stream_connectors.mqtt.connector import MqttConnector
from hs_stream_connectors.mqtt.options import MqttOptions

__all__ = [
    "AllConnected",
    "Author",
    "Connector",
    "ConnectorFactory",
    "ConnectorSource",
    "Connectors",
    "ReadsFiles",
    "csv_files",
    "mqtt",
    "mqtt_options",
]

Author = Literal["operator", "token", "anybody"]
"""Who wrote a workflow: whoever may write files on this machine, who sent it with a token, who sent it without one."""


class Connector(Protocol):
    """One kind of source."""

    def plates(self, source: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Check what stands in the workflow file under ``source``, and return the plates that its readings are on.

        Raises `ConfigurationError` without path and line, whose message names the option that is wrong. ``options``
        hold everything of the source but ``retention``, ``kind`` and ``unit``; ``fields`` that are a mapping of names
        to what they mean are the list of these names. ``plates`` where a connector binds none itself is not among them.
        """

    def connect(self, sources: Mapping[str, Mapping[str, Any]]) -> Source:
        """A source that reads all of ``sources``: options by name, each checked before."""

    # A connector may have ``facts(source, options) -> SourceFacts`` besides, for doubts about workflow files.


@runtime_checkable
class ReadsFiles(Protocol):
    """A connector whose sources are files of this machine. Who may name them: see `Connectors.check`."""

    def reads(self, options: Mapping[str, Any]) -> str:
        """The path of the files that a source with ``options`` names."""


ConnectorFactory = Callable[[Settings], Connector]
"""What an entry point of ``hs_stream.connectors`` names. It opens nothing: workflow files are checked offline."""


class Connectors:
    """The connectors of one configuration, each made when it is needed first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kinds = frozenset(CONNECTORS.names())
        self._made: dict[str, Connector] = {}

    def kind(self, options: Mapping[str, Any]) -> str | None:
        """Which connector a source has: the first of its keys that is one's name, or ``None``."""
        return next((key for key in options if key in self._kinds), None)

    def check(self, name: str, options: Mapping[str, Any], author: Author = "operator") -> tuple[str, ...]:
        """A `hs_stream.service.workflows.parser.SourceCheck`.

        What comes over HTTP names no files of this machine without a token, and with one only those below
        ``files.directory`` (the working directory where that is not set).
        """
        kind = self.kind(options)
        if kind is None:
            raise ConfigurationError(f"source {name}: none of {', '.join(options)} is a connector")
        connector = self._of(kind)
        plates = tuple(_guarded(kind, connector.plates, name, options))
        if author != "operator" and isinstance(connector, ReadsFiles):
            if author == "anybody":
                raise ConfigurationError(
                    f"source {name}: it reads files of the service's machine",
                    hint="that is left to who has the token of the service: set http.token_file, or write a workflow "
                    "file",
                )
            directory = self._settings.files.directory
            check_below(Path(directory or "."), connector.reads(options), f"source {name}: {kind}")
        return plates

    def facts(self, name: str, options: Mapping[str, Any]) -> SourceFacts:
        """What is known of a source before any reading; nothing where its connector has no ``facts``."""
        kind = self.kind(options)
        found = None if kind is None else getattr(self._of(kind), "facts", None)
        return SourceFacts() if kind is None or found is None else _guarded(kind, found, name, options)

    def sources_of(self, workflows: Iterable[WorkflowDefinition]) -> list[ConnectorSource]:
        """One for each connector that ``workflows`` use."""
        used: dict[str, dict[str, Mapping[str, Any]]] = {}
        for workflow in workflows:
            for source in workflow.sources.values():
                kind = self.kind(source.options)
                if kind is None:
                    continue
                try:
                    self.check(source.name, source.options)
                except ConfigurationError as error:
                    raise workflow.error(f"sources.{source.name}", error.message, error.hint) from None
                used.setdefault(kind, {})[source.name] = source.options
        return [
            ConnectorSource(kind, _guarded(kind, self._of(kind).connect, sources)) for kind, sources in used.items()
        ]

    def _of(self, kind: str) -> Connector:
        if kind not in self._made:
            self._made[kind] = CONNECTORS.make(kind, self._settings)
        return self._made[kind]


class ConnectorSource:
    """The source of one connector. Whatever else than ours it raises names the distribution that brings it."""

    def __init__(self, kind: str, source: Source) -> None:
        self.kind = kind
        self.source = source

    async def run(self, deliver: Callable[[Delivery], Awaitable[None]], connected: Callable[[bool], None]) -> None:
        """`hs_stream.engine.ports.Source.run`."""
        try:
            await self.source.run(deliver, connected)
        except HsStreamError:
            raise
        except Exception as error:
            raise _blame(self.kind, error) from error


class AllConnected:
    """Rule 3: ``report(True)`` once all of ``names`` are connected, ``report(False)`` when one is not any more."""

    def __init__(self, names: Iterable[str], report: Callable[[bool], None]) -> None:
        self._states = dict.fromkeys(names, False)
        self._report = report

    def of(self, name: str) -> Callable[[bool], None]:
        """What the source ``name`` is given as ``connected``."""
        return partial(self._set, name)

    def _set(self, name: str, up: bool) -> None:
        self._states[name] = up
        self._report(all(self._states.values()))


def _guarded(kind: str, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except HsStreamError:
        raise
    except Exception as error:
        raise _blame(kind, error) from error


def _blame(kind: str, error: Exception) -> ConfigurationError:
    owner = CONNECTORS.owner(kind)
    return ConfigurationError(
        f"the connector {kind} of {owner} failed: {type(error).__name__}: {error}", hint=f"tell the authors of {owner}"
    )


# --- our own ---


def mqtt_options(settings: Settings) -> MqttOptions:
    """The connection's part of the settings. `ConfigurationError` for a password file that cannot be read."""
    section = settings.mqtt
    return MqttOptions(
        url=section.url,
        client_id=section.client_id,
        username=section.username,
        password_file=section.password_file,
        ca_file=section.ca_file,
        cert_file=section.cert_file,
        key_file=section.key_file,
        version=section.version,
    )


def mqtt(settings: Settings) -> MqttConnector:
    """The connector ``mqtt``."""
    defaults = {"earliest": settings.watermark.earliest, "max_payload": settings.mqtt.max_payload}
    return MqttConnector(partial(mqtt_options, settings), defaults, memory=settings.memory.codecs)


def csv_files(settings: Settings) -> CsvConnector:
    """The connector ``csv``."""
    directory = settings.files.directory
    return CsvConnector(Path(directory) if directory else None)
