"""Tasks and results as bytes, for another process or machine.

1. ``unpack(pack(x))`` gives the same result, or is the same result, bit for bit (`hs_stream.core.packing`).
2. A tool travels by name, exact version and parameters, and is made anew by the registry of who unpacks it. Nothing in
   the bytes can run code; a parameter may name an import path, which that registry decides about as everywhere.
3. What has no such form (a function without an import path, a state that cannot be stored) stays where it is.
"""

from __future__ import annotations

from typing import Any

from hs_stream.compute.task import Carried, Result, Task
from hs_stream.core.fold_states import HALTED, INITIAL
from hs_stream.core.packing import pack, unpack
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.tool import Sources
from hs_stream.core.value import canonical

__all__ = ["pack_result", "pack_task", "unpack_result", "unpack_task"]

_NO_VALUES = {"initial": INITIAL, "halted": HALTED}


def pack_task(task: Task) -> bytes:
    """The bytes of ``task``. `ConfigurationError` or ``ValueError`` for what has none (rule 3)."""
    tool = task.tool
    return pack(
        {
            "tool": [tool.name, tool.version, tool.parameters(), task.meta, task.into],
            "span": [task.start, task.end],
            "sources": [list(task.sources), task.sources.keys],
            "work": task.work,
            "carried": _pack_carried(task.carried),
            "old": [[time, _pack_state(state)] for time, state in task.old.items()],
            "every": task.every,
            "wary": task.wary,
        }
    )


def unpack_task(packed: bytes, registry: ToolRegistry) -> Task:
    """The reverse of `pack_task`. `UnknownToolError` where ``registry`` has not this very version."""
    given = unpack(packed)
    name, version, parameters, meta, into = given["tool"]
    bound = tuple((plate, value) for plate, value in meta)
    tool = registry.resolve(f"{name}@=={version}").build(parameters).bound_to(dict(bound), into)
    batches, keys = given["sources"]
    start, end = given["span"]
    return Task(
        tool,
        start,
        end,
        Sources(batches, keys),
        given["work"],
        _unpack_carried(given["carried"]),
        {time: _unpack_state(state) for time, state in given["old"]},
        given["every"],
        given["wary"],
        bound,
        into,
    )


def pack_result(result: Result) -> bytes:
    """The bytes of ``result``. ``ValueError`` for a state that has none (rule 3)."""
    return pack([*result._replace(carried=None), _pack_carried(result.carried)])


def unpack_result(packed: bytes) -> Result:
    """The reverse of `pack_result`."""
    *fields, carried = unpack(packed)
    result = Result(*fields)
    return result._replace(
        carried=_unpack_carried(carried), snapshots=tuple((time, state) for time, state in result.snapshots)
    )


def _pack_carried(carried: Carried | None) -> list[Any] | None:
    return None if carried is None else [_pack_state(carried.state), carried.since, carried.passed]


def _unpack_carried(packed: list[Any] | None) -> Carried | None:
    return None if packed is None else Carried(_unpack_state(packed[0]), packed[1], packed[2])


def _pack_state(state: Any) -> list[Any]:
    """A value in a list of its own, so that it is never taken for one of the two that are no values."""
    for name, known in _NO_VALUES.items():
        if state is known:
            return [name, None]
    return ["value", canonical(state)]


def _unpack_state(packed: list[Any]) -> Any:
    name, state = packed
    return state if name == "value" else _NO_VALUES[name]
