"""Where the results of a round go: the one place that makes sinks, and what else is told of results."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final

from hs_stream.core.errors import StoreUnavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.value import Value
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.service.settings import Settings
from hs_stream.service.tasks import SideTasks
from hs_stream.service.wiring import version
from hs_stream_connectors.mqtt.homeassistant import Entity, HomeAssistant
from hs_stream_connectors.mqtt.options import MqttOptions
from hs_stream_connectors.mqtt.sink import MqttSink

__all__ = ["Outputs"]

_RETRY_SECONDS: Final = 1.0


class Outputs:
    """What ``workflows`` publish to. The engine gets ``sink``; with it, what `running` gives has to run.

    ``announced``: an earlier round told Home Assistant of streams, which may have to be removed there.
    """

    def __init__(
        self,
        settings: Settings,
        options: MqttOptions,
        workflows: Sequence[WorkflowDefinition],
        side: SideTasks,
        *,
        announced: bool,
    ) -> None:
        self._workflows, self._side = workflows, side
        self._engine: Engine
        nodes = list(_nodes(workflows))
        mqtt = settings.mqtt
        self._assistant = None
        if announced or any(node.publish and "homeassistant" in node.publish for node in nodes):
            self._assistant = HomeAssistant(options, prefix=mqtt.prefix, version=version(), newest=self._newest_value)
        told = None if self._assistant is None else side.guarded("home assistant", self._assistant.observe)
        self.sink = None
        if any(node.publish is not None for node in nodes):
            self.sink = MqttSink("mqtt", options, prefix=mqtt.prefix, max_size=mqtt.max_publish, published=told)

    def running(self, engine: Engine) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """What runs while ``engine`` publishes, each with the name of its task."""
        self._engine = engine
        if self.sink is not None:
            yield "mqtt sink", self.sink.run(_ignore)
        if self._assistant is not None:
            self._assistant.announce(self._entities())
            yield "home assistant", self._side.keep("home assistant", self._assistant.run)

    def degraded(self) -> list[dict[str, Any]]:
        """What does not work, and holds up no result."""
        if self._assistant is None or (state := self._assistant.connection_statistics()).connected:
            return []
        return [{"what": "home assistant", "error": state.last_error or "not connected yet", "count": state.failures}]

    def _entities(self) -> Iterator[Entity]:
        """Every stream of today that is published as an entity."""
        for workflow in self._workflows:
            for name, node in workflow.nodes.items():
                if not node.publish or "homeassistant" not in node.publish:
                    continue
                plates = workflow.node_plates[name]
                for status in self._engine.status(name):
                    meta = dict(status.stream.meta)
                    values = tuple(meta[plate] for plate in plates)
                    yield Entity(status.stream, workflow.name, values, status.tool, node.publish["homeassistant"])

    async def _newest_value(self, stream: StreamId) -> Value:
        """A store that is away is waited for, as everybody else does."""
        while True:
            try:
                batch = await self._engine.read(stream, MIN_TIME, MAX_TIME, limit=1, newest=True)
                break
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
        return next(iter(batch))[1] if batch else None


def _ignore(_: bool) -> None:
    """The sink keeps its own state."""


def _nodes(workflows: Iterable[WorkflowDefinition]) -> Iterator[NodeDefinition]:
    for workflow in workflows:
        yield from workflow.nodes.values()
