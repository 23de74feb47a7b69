"""Sinks: where published nodes of workflow files go, ours and those of installed distributions.

1. Kinds of sinks are the names of the entry point group ``hs_stream.sinks``, ours included. Each knows some keys of
   ``publish``: ``{smooth: {retain: true}}``. A key belongs to one kind.
2. A kind is made once, by its factory, from the settings. It checks what stands under its keys, and makes one
   `hs_stream.engine.ports.Sink` (or `Mirror`) for all nodes that have one of them.
3. What a sink raises ends the service, and names the distribution that brings it. What a mirror raises ends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, Protocol

from hs_stream.core.errors import ConfigurationError, HsStreamError, StoreUnavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Mirror, Publication, PublishedStream, Results, Sink, Unpublished
from hs_stream.entry_points import SINKS
from hs_stream.service.connectors import mqtt_options
from hs_stream.service.settings import Settings
from hs_stream.service.tasks import SideTasks
from hs_stream.service.wiring import version
from hs_stream_connectors.mqtt.sinks import HomeAssistantKind, MqttKind

__all__ = [
    "EngineResults",
    "MirrorOutput",
    "Output",
    "SinkFactory",
    "SinkKind",
    "SinkOutput",
    "Sinks",
    "homeassistant",
    "mqtt",
]

_RETRY_SECONDS: Final = 1.0
_OURS: Final = ("mqtt", "homeassistant")


class SinkKind(Protocol):
    """One kind of sink."""

    keys: Sequence[str]
    """Those of ``publish`` that it knows."""

    def check(self, key: str, value: Any) -> None:
        """Check what stands under ``key``, one of `keys`, of one published node.

        Raises `ConfigurationError` without path and line, whose message names what is wrong.
        """

    def connect(self, results: Results) -> Sink | Mirror:
        """A sink for all nodes that have one of `keys`. It opens nothing before ``run``."""

    # A kind may have besides: ``everything = True``: its sink gets every published node, with one of its keys or not;
    # ``lasting = True``: its sink is made also where no node asks for it any more, as it has something to remove;
    # ``doubts(options)``: ``(message, hint)`` of what loads, and is probably not meant, for ``workflow check``.


SinkFactory = Callable[[Settings], SinkKind]
"""What an entry point of ``hs_stream.sinks`` names. It opens nothing: workflow files are checked offline."""


class Sinks:
    """The sinks of one configuration. All kinds are made when the first is needed: their keys are asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _kinds(self) -> dict[str, SinkKind]:
        return {name: SINKS.make(name, self._settings) for name in dict.fromkeys((*_OURS, *SINKS.names()))}

    @cached_property
    def _owners(self) -> dict[str, str]:
        """The kind of each key."""
        found: dict[str, str] = {}
        for name, kind in self._kinds.items():
            for key in kind.keys:
                other = found.setdefault(key, name)
                if other != name:
                    raise ConfigurationError(
                        f"the sinks {other} of {SINKS.owner(other)} and {name} of {SINKS.owner(name)} both know the "
                        f"key {key} of publish",
                        hint=f"uninstall {SINKS.owner(name)}",
                    )
        return found

    @property
    def keys(self) -> list[str]:
        """Every key of ``publish`` that some sink knows."""
        return [*self._owners]

    def check(self, key: str, value: Any) -> None:
        """What the sink that knows ``key``, one of `keys`, says of ``value``."""
        name = self._owners[key]
        _guarded(name, self._kinds[name].check, key, value)

    def doubts(self, options: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Messages and hints about the options of a node, which load."""
        return [
            doubt
            for name in dict.fromkeys(self._owners[key] for key in options if key in self._owners)
            if (found := getattr(self._kinds[name], "doubts", None)) is not None
            for doubt in _guarded(name, found, options)
        ]

    def lasting(self) -> list[str]:
        """The kinds that may have to remove something."""
        return [name for name, kind in self._kinds.items() if getattr(kind, "lasting", False)]

    def used(self, workflow: WorkflowDefinition) -> set[str]:
        """The kinds that get nodes of ``workflow``."""
        published = [node.publish for node in workflow.nodes.values() if node.publish is not None]
        return {name for name in self._kinds if any(self._takes(name, options) for options in published)}

    def _takes(self, name: str, options: Mapping[str, Any]) -> bool:
        kind = self._kinds[name]
        return getattr(kind, "everything", False) or any(key in options for key in kind.keys)

    def outputs(
        self, workflows: Iterable[WorkflowDefinition], results: Results, side: SideTasks, told: Collection[str]
    ) -> list[Output]:
        """One for each kind that ``workflows`` use, and for those of ``told`` that are lasting."""
        used = {name for workflow in workflows for name in self.used(workflow)} | {*self.lasting()} & {*told}
        found: list[Output] = []
        for name in filter(used.__contains__, self._kinds):
            made = _guarded(name, self._kinds[name].connect, results)
            takes = None if getattr(self._kinds[name], "everything", False) else partial(self._takes, name)
            if hasattr(made, "observe"):
                found.append(MirrorOutput(made, takes, side))
            else:
                found.append(SinkOutput(name, made, takes))
        return found


Takes = Callable[[Mapping[str, Any]], bool]


class Output:
    """What was made of one kind, and whether it is connected."""

    def __init__(self, name: str, made: Sink | Mirror, takes: Takes | None) -> None:
        self.name = name
        self.made = made
        self.takes = takes
        self.up = False
        """What it said last."""
        self.losses = 0
        """How often it lost the connection."""

    def _said(self, tell: Callable[[bool], None], up: bool) -> None:
        self.losses += self.up and not up
        self.up = up
        tell(up)


def _nobody(_: bool) -> None:
    """Asks `Output.up` instead."""


class SinkOutput(Output):
    """The `Sink` of one kind, under the name of the kind. Whatever else than ours it raises names its distribution."""

    def __init__(self, name: str, made: Sink, takes: Takes | None) -> None:
        super().__init__(name, made, takes)
        self._sink = made
        self.forgets_ms = made.forgets_ms

    async def run(self, connected: Callable[[bool], None] = _nobody) -> None:
        """`Sink.run`."""
        try:
            await self._sink.run(partial(self._said, connected))
        except HsStreamError:
            raise
        except Exception as error:
            raise _blame(self.name, error) from error

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        """`Sink.publish`."""
        try:
            return await self._sink.publish(publications)
        except HsStreamError:
            raise
        except Exception as error:
            raise _blame(self.name, error) from error


class MirrorOutput(Output):
    """The `Mirror` of one kind, as a side task: whatever it raises stays in there."""

    def __init__(self, made: Mirror, takes: Takes | None, side: SideTasks) -> None:
        super().__init__(made.name, made, takes)
        self._mirror = made
        self._side = side
        self._observe = side.guarded(made.name, made.observe)

    async def run(self, connected: Callable[[bool], None] = _nobody) -> None:
        """`Mirror.run`, again and again."""
        await self._side.keep(self.name, lambda: self._mirror.run(partial(self._said, connected)))

    def observe(self, publications: Sequence[Publication]) -> None:
        """`Mirror.observe`."""
        self._observe(publications)


class EngineResults:
    """`hs_stream.engine.ports.Results` of an engine that is there when they are asked for."""

    def __init__(self, workflows: Sequence[WorkflowDefinition], engine: Callable[[], Engine]) -> None:
        self._workflows = workflows
        self._engine = engine

    def published(self) -> Iterator[PublishedStream]:
        """See the port."""
        for workflow in self._workflows:
            for name, node in workflow.nodes.items():
                if node.publish is None:
                    continue
                plates = workflow.node_plates[name]
                for status in self._engine().status(name):
                    meta = dict(status.stream.meta)
                    values = tuple(meta[plate] for plate in plates)
                    yield PublishedStream(status.stream, workflow.name, values, status.tool, node.publish)

    async def newest(self, stream: StreamId) -> Value:
        """See the port."""
        while True:
            try:
                batch = await self._engine().read(stream, MIN_TIME, MAX_TIME, limit=1, newest=True)
                break
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
        return next(iter(batch))[1] if batch else None


def _guarded(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except HsStreamError:
        raise
    except Exception as error:
        raise _blame(name, error) from error


def _blame(name: str, error: Exception) -> ConfigurationError:
    owner = SINKS.owner(name)
    return ConfigurationError(
        f"the sink {name} of {owner} failed: {type(error).__name__}: {error}", hint=f"tell the authors of {owner}"
    )


# --- our own ---


def mqtt(settings: Settings) -> MqttKind:
    """The sink ``mqtt``."""
    section = settings.mqtt
    return MqttKind(partial(mqtt_options, settings), prefix=section.prefix, max_size=section.max_publish)


def homeassistant(settings: Settings) -> HomeAssistantKind:
    """The sink ``homeassistant``."""
    return HomeAssistantKind(partial(mqtt_options, settings), prefix=settings.mqtt.prefix, version=version())
