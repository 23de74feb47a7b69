"""What a workflow may say and its author hardly means: each a warning with its place and what to write instead.

1. A doubt is derived from what tools declare (support, drive, `Tool.keys_named`, `Tool.keys_made`, `Tool.unmeant`,
   `Tool.meets`) and from what is known of sources (`SourceFacts`). No tool is known by its name here.
2. What is not known gives no doubt. Nothing is refused because of one: readings may come another way, by an import.
3. A field: a node names a field that no object of its input can have.
4. Instants: a tool puts together what has exactly the same time, of streams that each have times of their own. Streams
   share instants where they lie on grids, or where their times come from one stream of events.
5. A kind: a tool reads what is of a kind that it is not meant for (`Tool.unmeant`).
6. A unit: a tool puts together what is in different units (`Tool.meets`), as if it were in one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from hs_stream.core.errors import ConfigurationError, did_you_mean
from hs_stream.core.plate import in_order
from hs_stream.core.time import Grid, format_duration
from hs_stream.core.tool import AggregateTool, FromInput, OnGrid, Pointwise
from hs_stream.core.units import SAME, conversion
from hs_stream.core.workflow import NodeDefinition, WorkflowDefinition, shown_units

__all__ = ["SourceFacts", "doubts"]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What is known of a source before any reading.

    ``fields``: those that its objects can have; ``None``: any. ``dropped``: fields that they have not, each with why.
    ``apart``: the plates on which streams with different values have times of their own; ``None``: not known.
    """

    fields: frozenset[str] | None = None
    dropped: Mapping[str, str] = field(default_factory=dict)
    apart: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Events:
    """Times that come from the events of ``origin``, each plate value of ``apart`` with its own."""

    origin: str
    apart: frozenset[str]


_AN: Final = ("amount", "event")

_Times = Grid | _Events | None
"""``None``: not known."""


def doubts(workflow: WorkflowDefinition, facts: Mapping[str, SourceFacts]) -> list[ConfigurationError]:
    """The doubts about ``workflow``, in the order of its nodes; ``facts`` by source. None is raised."""
    return list(_Doubter(workflow, facts).all())


class _Doubter:
    def __init__(self, workflow: WorkflowDefinition, facts: Mapping[str, SourceFacts]) -> None:
        self._workflow = workflow
        self._facts = facts
        self._keys: dict[str, frozenset[str] | None] = {}
        self._times: dict[str, _Times] = {}
        for name in workflow.sources:
            known = facts.get(name, SourceFacts())
            self._keys[name] = known.fields
            self._times[name] = None if known.apart is None else _Events(name, frozenset(known.apart))

    def all(self) -> Iterator[ConfigurationError]:
        for name in self._workflow.order:
            node = self._workflow.nodes[name]
            yield from self._fields(node)
            yield from self._instants(node)
            yield from self._kinds(node)
            yield from self._units(node)
            self._keys[name] = node.tool.keys_made(self._keys[node.inputs[0]] if node.inputs else None)
            self._times[name] = self._times_of(node)

    def _error(self, node: NodeDefinition, message: str, hint: str) -> ConfigurationError:
        return self._workflow.error(f"nodes.{node.name}", f"node {node.name}: {message}", hint)

    # --- rule 3 ---

    def _fields(self, node: NodeDefinition) -> Iterator[ConfigurationError]:
        # What a tool with any number of inputs names are fields only where there is one.
        if not node.inputs or (type(node.tool).arity is None and len(node.inputs) > 1):
            return
        before = node.inputs[0]
        keys = self._keys[before]
        dropped = self._facts[before].dropped if before in self._facts else {}
        for key in node.tool.keys_named():
            if key in dropped:
                yield self._error(node, f"{before} has no field {key!r}: {dropped[key]}", f"name {key} in its fields")
            elif keys is not None and key not in keys:
                inside = [one for one in sorted(keys) if one.endswith(f".{key}")]
                hint = f"did you mean {inside[0]}?" if inside else did_you_mean(key, sorted(keys), "it has")
                if before in self._workflow.sources and not hint.endswith("?"):
                    hint += f"; or add {key} to its fields"
                yield self._error(node, f"{before} never has a field {key!r}", hint)

    # --- rule 4 ---

    def _times_of(self, node: NodeDefinition) -> _Times:
        drive = node.tool.drive()
        if isinstance(drive, OnGrid):
            # What may speak at any instant speaks when its input makes it.
            before = self._times[node.inputs[0]] if node.inputs else None
            any_time = drive.grid.every == 1
            apart = before.apart if isinstance(before, _Events) else frozenset()
            return _Events(node.name, apart) if any_time and before else None if any_time else drive.grid
        if isinstance(drive, FromInput):
            return self._times[node.inputs[drive.slot]] if drive.slot < len(node.inputs) else None
        found = {self._times[name] for name in node.inputs}
        if len(found) == 1:
            [times] = found
            gone = self._workflow.keys_over(node)
            if not isinstance(times, _Events) or not times.apart & gone:
                return times
        if None in found:
            return None
        apart = frozenset[str]().union(*(times.apart for times in found if isinstance(times, _Events)))
        return _Events(node.name, apart - self._workflow.keys_over(node))

    def _instants(self, node: NodeDefinition) -> Iterator[ConfigurationError]:
        tool = node.tool
        if isinstance(tool, AggregateTool):
            times = self._times[node.inputs[0]]
            apart = times.apart & self._workflow.keys_over(node) if isinstance(times, _Events) else frozenset()
            if tool.together and apart and isinstance(tool.support(0), Pointwise):
                plates = ", ".join(in_order(self._workflow.plates, apart))
                yield self._error(
                    node,
                    f"{tool.name} puts together what has exactly the same time, and {node.inputs[0]} has times of its "
                    f"own for each {plates}: a result will hold one of them, not all",
                    f"write aggregate@^2 with hold: 10m, which takes the last value of each; or put {node.inputs[0]} "
                    f"on a grid first, with sliding_mean, resample or last_value and every: 1m, and aggregate that",
                )
            return
        drive = tool.drive()
        slot = drive.slot if isinstance(drive, FromInput) else None
        if slot is None and not isinstance(drive, OnGrid):
            return
        leads = self._times[node.inputs[slot]] if slot is not None else self._times_of(node)
        for other, name in enumerate(node.inputs):
            if other != slot and isinstance(tool.support(other), Pointwise) and not _share(leads, self._times[name]):
                first = f"{node.inputs[slot]} ({_shown(leads)})" if slot is not None else f"its grid ({_shown(leads)})"
                yield self._error(
                    node,
                    f"{tool.name} puts together what has exactly the same time, and {first} and {name} "
                    f"({_shown(self._times[name])}) share instants by chance only",
                    "join with combine_latest, as_of_join or last_value, which take the last value, or put all on one "
                    "grid first, with resample and every: 1m",
                )
                return

    # --- rule 5 ---

    def _kinds(self, node: NodeDefinition) -> Iterator[ConfigurationError]:
        for slot, name in enumerate(node.inputs):
            kind = self._workflow.meanings[name].kind
            found = None if kind is None else node.tool.unmeant(slot, kind)
            if found is not None:
                why, instead = found
                yield self._error(node, f"{name} is {'an' if kind in _AN else 'a'} {kind}, and {why}", instead)

    # --- rule 6 ---

    def _units(self, node: NodeDefinition) -> Iterator[ConfigurationError]:
        for met in node.tool.meets([self._workflow.meanings[name] for name in node.inputs]):
            if conversion(met.unit, met.other_unit) == SAME:
                continue
            one, other = shown_units(node, met)
            source = f"from: {node.inputs[met.other]}, " if isinstance(met.other, int) else ""
            convert = f"{{tool: convert, {source}with: {{of: {met.other_unit}, to: {met.unit}}}}}"
            yield self._error(
                node,
                f"{node.tool.name} puts together {one} and {other} as if they were in one unit",
                met.instead or f"put a node between that converts one of them: {convert}",
            )


def _share(one: _Times, other: _Times) -> bool:
    """Whether instants of both may well be the same."""
    if one is None or other is None:
        return True
    if isinstance(one, _Events) and isinstance(other, _Events):
        return one.origin == other.origin
    return isinstance(one, Grid) and isinstance(other, Grid)


def _shown(times: _Times) -> str:
    if isinstance(times, Grid):
        return f"every {format_duration(times.every)}"
    return f"whenever {times.origin} sends" if times is not None else "at any time"
