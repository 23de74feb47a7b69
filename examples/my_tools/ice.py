"""A tool of one's own, as `examples/02_own_tool.py` uses it."""

from __future__ import annotations

from dataclasses import dataclass

from hs_stream.core.tool import SKIP, MapTool
from hs_stream.core.value import Value

__all__ = ["Balance"]


@dataclass(frozen=True, kw_only=True)
class Balance(MapTool):
    """How much more one field of an object is than another, in the unit of both.

    ``more``, ``less``: the names of the two fields. No output where one of them is missing. ``TypeError`` for what is
    no object of numbers. Output: float.

    >>> Balance(more="Arctic", less="Antarctica").map({"Arctic": 12.5, "Antarctica": 3.0})
    9.5
    """

    name = "balance"
    version = "1.0.0"
    takes = "{number}"
    samples = ({"more": "a", "less": "b"},)
    more: str
    less: str

    def map(self, value: Value) -> Value:
        """The difference, or SKIP."""
        if not isinstance(value, dict):
            raise TypeError(f"balance takes objects, not {value!r}")
        more, less = value.get(self.more), value.get(self.less)
        if more is None or less is None:
            return SKIP
        if not isinstance(more, (int, float)) or not isinstance(less, (int, float)):
            raise TypeError(f"balance takes numbers, not {more!r} and {less!r}")
        return float(more) - float(less)
