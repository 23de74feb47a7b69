"""Sinks: where published nodes of workflow files go, ours and those of installed distributions.

1. Kinds of sinks are the names of the entry point group ``hs_stream.sinks``, ours included. Each knows some keys of
   ``publish``: ``{smooth: {retain: true}}``. A key belongs to one kind.
2. A kind is made once, by its factory, from the settings. It checks what stands under its keys, and makes one
   `hs_stream.engine.ports.Sink` (or `Mirror`) for all nodes that have one of them.
3. What becomes of that: `hs_stream.service.outputs`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, Protocol

from hs_stream.core.errors import ConfigurationError, HsStreamError
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.ports import Mirror, Results, Sink
from hs_stream.entry_points import SINKS
from hs_stream.service.connectors import mqtt_options
from hs_stream.service.settings import Settings
from hs_stream.service.wiring import version
from hs_stream_connectors.mqtt.sinks import HomeAssistantKind, MqttKind

__all__ = ["SinkFactory", "SinkKind", "Sinks", "Takes", "blame", "homeassistant", "mqtt"]

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


Takes = Callable[[Mapping[str, Any]], bool]
"""Whether a sink gets a node with these options of ``publish``."""

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

    def connect(
        self, workflows: Sequence[WorkflowDefinition], results: Results, told: Collection[str]
    ) -> Iterator[tuple[str, Sink | Mirror, Takes | None]]:
        """What each kind makes that ``workflows`` use, or that is lasting and of ``told``; and which nodes it takes.

        ``None``: all.
        """
        used = {name for workflow in workflows for name in self.used(workflow)} | {*self.lasting()} & {*told}
        for name, kind in self._kinds.items():
            if name in used:
                everything = getattr(kind, "everything", False)
                takes = None if everything else partial(self._takes, name)
                yield name, _guarded(name, kind.connect, results), takes


def _guarded(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return call(*arguments)
    except HsStreamError:
        raise
    except Exception as error:
        raise blame(name, error) from error


def blame(name: str, error: Exception) -> ConfigurationError:
    """That the sink ``name`` failed with ``error``, which is none of ours."""
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
