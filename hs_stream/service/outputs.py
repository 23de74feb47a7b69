"""Where the results of a generation go: what the kinds of `hs_stream.service.sinks` make, and whether it is connected.

What a sink raises ends the service, and names the distribution that brings it. What a mirror raises ends nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final

from hs_stream.core.errors import HsStreamError, StoreUnavailable
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME
from hs_stream.core.value import Value
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Mirror, Publication, PublishedStream, Sink, Unpublished
from hs_stream.service.settings import Settings
from hs_stream.service.side_tasks import SideTasks
from hs_stream.service.sinks import Sinks, Takes, blame
from hs_stream_connectors.mqtt.homeassistant import HomeAssistant
from hs_stream_connectors.mqtt.sink import MqttSink

__all__ = ["MirrorOutput", "Output", "Outputs", "SinkOutput"]

_RETRY_SECONDS: Final = 1.0


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
            raise blame(self.name, error) from error

    async def publish(self, publications: Sequence[Publication]) -> Sequence[Unpublished]:
        """`Sink.publish`."""
        try:
            return await self._sink.publish(publications)
        except HsStreamError:
            raise
        except Exception as error:
            raise blame(self.name, error) from error


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


class Outputs:
    """What ``workflows`` publish to. The engine gets ``sinks`` and ``mirrors``; `running` has to run with it.

    Implements `hs_stream.engine.ports.Results`, which is asked while it runs. ``told``: the lasting sinks that an
    earlier generation told of streams, which they may have to remove.
    """

    def __init__(
        self,
        settings: Settings,
        workflows: Sequence[WorkflowDefinition],
        side: SideTasks,
        *,
        told: Collection[str] = (),
    ) -> None:
        self._workflows = workflows
        self._engine: Engine
        self.sinks: list[SinkOutput] = []
        self.mirrors: list[MirrorOutput] = []
        for name, made, takes in Sinks(settings).connect(workflows, self, told):
            if isinstance(made, Mirror):
                self.mirrors.append(MirrorOutput(made, takes, side))
            else:
                self.sinks.append(SinkOutput(name, made, takes))
        self.mqtt = next((output.made for output in self.sinks if isinstance(output.made, MqttSink)), None)
        """The sink ``mqtt``: its connection is one of the broker's."""

    def running(self, engine: Engine) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """What runs while ``engine`` publishes, each with the name of its task."""
        self._engine = engine
        for sink in self.sinks:
            yield f"{sink.name} sink", sink.run()
        for mirror in self.mirrors:
            yield mirror.name, mirror.run()

    def degraded(self, engine: Engine) -> list[dict[str, Any]]:
        """What is not connected, and holds up nothing else. That of the sink ``mqtt`` is the broker's part."""
        found = []
        outputs: list[Output] = [*self.sinks, *self.mirrors]
        for output in outputs:
            if isinstance(output.made, HomeAssistant):
                state = output.made.connection_statistics()
                if not state.connected:
                    error = state.last_error or "not connected yet"
                    found.append({"what": output.name, "error": error, "count": state.failures})
            elif not output.up and output.made is not self.mqtt:
                error = "not connected"
                if waiting := engine.statistics().pending_by_sink.get(output.name):
                    error += f"; {waiting} results wait for it"
                found.append({"what": f"sink {output.name}", "error": error, "count": output.losses})
        return found

    # --- `hs_stream.engine.ports.Results` ---

    def published(self) -> Iterator[PublishedStream]:
        """Every stream of today that is published."""
        for workflow in self._workflows:
            for name, node in workflow.nodes.items():
                if node.publish is None:
                    continue
                plates = workflow.node_plates[name]
                for status in self._engine.status(name):
                    meta = dict(status.stream.meta)
                    values = tuple(meta[plate] for plate in plates)
                    meaning = workflow.meanings[name]
                    yield PublishedStream(status.stream, workflow.name, values, status.tool, node.publish, meaning)

    async def newest(self, stream: StreamId) -> Value:
        """A store that is away is waited for, as everybody else does."""
        while True:
            try:
                batch = await self._engine.read(stream, MIN_TIME, MAX_TIME, limit=1, newest=True)
                break
            except StoreUnavailable:
                await asyncio.sleep(_RETRY_SECONDS)
        return next(iter(batch))[1] if batch else None
