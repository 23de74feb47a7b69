"""The table: the original's figures as they were given, ours, and how many times faster that is."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.steady.report import described, table

__all__ = ["BAR", "ORIGINAL", "tables"]

ORIGINAL: Final[dict[str, tuple[float | None, float | None]]] = {
    "clock": (145_020, 1_155),
    "apply": (93_794, 1_143),
    "windows": (152_836, 961),
    "sliding": (152_836, 961),
    "merge": (46_598, 1_008),
    "plate": (16_322, None),
}
"""Per second, on its memory and its MongoDB channel; HyperStream cannot be installed any more (Python 2), so these are
figures of an earlier measurement, on a machine of two cores. The second of the windows counts results."""
_ONE_SECOND: Final = {
    "memory": {1_000: 0.28, 10_000: 1.57, 50_000: 7.3},
    "mongodb": {1_000: 5.8, 10_000: 12.7, 50_000: 41.6},
}
BAR: Final = {"memory": 3, "mongodb": 50}


def tables(results: dict[str, Any]) -> str:
    """Markdown."""
    parts = [described(results["machine"])]
    if "speed" in results:
        parts.append(_speed(results["speed"]))
    if "second" in results:
        parts.append(_second(results["second"]))
    return "\n\n".join(parts)


def _speed(found: dict[str, Any]) -> str:
    rows = []
    for name, one in found.items():
        row = [one["title"]]
        for kind, theirs in zip(BAR, ORIGINAL[name], strict=True):
            ours = one["rate"][kind]
            unit = one["unit" if kind == "memory" else "unit_mongodb"]
            row += ["crashes" if theirs is None else f"{theirs:,.0f}", f"{ours:,.0f} {unit}"]
            row.append("" if theirs is None else f"{ours / theirs:.1f}")
        rows.append(row)
    head = ["a second", "HyperStream, memory", "hs_stream", "times", "HyperStream, MongoDB", "hs_stream", "times"]
    return f"{table(head, rows)}\n\ngoal: {BAR['memory']} times in memory, {BAR['mongodb']} times on MongoDB"


def _second(found: dict[str, Any]) -> str:
    rows = []
    for memory, mongodb in zip(found["memory"], found["mongodb"], strict=True):
        row = [f"{memory['stored']:,}"]
        for kind, one in (("memory", memory), ("mongodb", mongodb)):
            theirs = _ONE_SECOND[kind].get(one["stored"])
            row += ["-" if theirs is None else f"{theirs:g}", f"{one['ms']:.2f}", f"{one['both_ms']:.2f}"]
        rows.append(row)
    head = ["stored before", "HyperStream, memory", "hs_stream", "and its reading"]
    head += ["HyperStream, MongoDB", "hs_stream", "and its reading"]
    return f"one new interval of 1 s, ms\n\n{table(head, rows)}"
