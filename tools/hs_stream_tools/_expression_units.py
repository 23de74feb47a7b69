"""In which unit a formula's result is, and which units it brings together.

What is added, compared or chosen from is of one unit. Factors that are numbers may well convert (``value / 1000``), so
nothing is known of the unit after them; numbers that are added or compared are taken to be in the unit that they meet.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from itertools import pairwise

from hs_stream.core.kinds import NO_UNIT, Met
from hs_stream.core.units import difference, per, times

__all__ = ["units_of"]


def units_of(body: ast.AST, units: Mapping[str, tuple[int | str, str | None]]) -> tuple[str | None, list[Met]]:
    """The result's unit, where it is known, and what meets. ``units``: of each name, which input or field it is."""
    walk = _Walk(units)
    return walk.unit(body), walk.met


class _Walk:
    def __init__(self, units: Mapping[str, tuple[int | str, str | None]]) -> None:
        self._units = units
        self.met: list[Met] = []

    def unit(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return self._units.get(node.id, ("", None))[1]
        if isinstance(node, ast.UnaryOp):
            found = self.unit(node.operand)
            return NO_UNIT if isinstance(node.op, ast.Not) else found
        if isinstance(node, ast.BinOp):
            return self._operation(node)
        if isinstance(node, ast.Compare):
            self._one([node.left, *node.comparators])
            return NO_UNIT
        if isinstance(node, ast.IfExp):
            self.unit(node.test)
            return self._one([node.body, node.orelse])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("min", "max"):
                return self._one(node.args)
            inside = [self.unit(argument) for argument in node.args]
            return inside[0] if node.func.id in ("abs", "round") and inside else None
        if isinstance(node, ast.BoolOp):
            for value in node.values:
                self.unit(value)
        return None

    def _operation(self, node: ast.BinOp) -> str | None:
        if isinstance(node.op, (ast.Add, ast.Sub)):
            return self._sum(node)
        left, right = self.unit(node.left), self.unit(node.right)
        if isinstance(node.op, ast.Mult):
            return times(left, right)
        return per(left, right) if isinstance(node.op, ast.Div) else None

    def _sum(self, node: ast.BinOp) -> str | None:
        left, right = self.unit(node.left), self.unit(node.right)
        if left is None or right is None:
            # 20 °C + 273.15 is in another unit.
            found = left or right
            return found if difference(found) == found else None
        if left != right and right == difference(left):
            return left
        self._meet([(node.left, left), (node.right, right)])
        return difference(left) if isinstance(node.op, ast.Sub) else left

    def _one(self, nodes: list[ast.expr]) -> str | None:
        """What is of one unit; that unit."""
        return self._meet([(node, unit) for node in nodes if (unit := self.unit(node)) is not None])

    def _meet(self, known: list[tuple[ast.expr, str]]) -> str | None:
        for (one, first), (other, second) in pairwise(known):
            if first != second:
                self.met.append(Met(self._what(one), first, self._what(other), second))
        return known[0][1] if known else None

    def _what(self, node: ast.AST) -> int | str:
        """The input or field where it is one, else as it is written."""
        return self._units[node.id][0] if isinstance(node, ast.Name) and node.id in self._units else ast.unparse(node)
