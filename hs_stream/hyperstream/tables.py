"""Tables that fit on a screen, as text and as HTML."""

from __future__ import annotations

import io
import reprlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Final, TypeVar

from hs_stream.core.time import TimeInterval, TimeIntervals, format_time, to_ms
from hs_stream.core.value import Value

__all__ = ["Listing", "Table", "shown", "span_text"]

T = TypeVar("T")

_WIDEST: Final = 120
_GAP: Final = 3
_SHORT: Final = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 4, 80, 80, 40
_SHORT.maxdict = _SHORT.maxlist = 8


def shown(value: Value) -> str:
    """``value`` in one short line."""
    if isinstance(value, datetime):
        return format_time(to_ms(value))
    if isinstance(value, TimeInterval):
        return str(value)
    return _SHORT.repr(value)


def span_text(spans: TimeIntervals) -> str:
    """``spans`` in one short line: the hull, and of how many intervals where it is not one."""
    if not spans:
        return "-"
    text = str(spans.span())
    return text if len(spans) == 1 else f"{text} in {len(spans)} parts"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under ``head``. ``note`` stands below."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def text(self) -> str:
        """At most as wide as the terminal, and 120 characters; the longest cells are cut."""
        from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - takes its time, and only who looks at a table needs it
        from rich.cells import cell_len  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415
        from rich.table import Table as RichTable  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        width = min(shutil.get_terminal_size((100, 24)).columns, _WIDEST)
        widths = [max(map(cell_len, column)) for column in zip(self.head, *self.rows, strict=True)]
        while sum(widths) > max(width - _GAP * (len(widths) - 1), len(widths)):
            widths[widths.index(max(widths))] -= 1
        table = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for name, room in zip(self.head, widths, strict=True):
            table.add_column(name, no_wrap=True, overflow="ellipsis", width=room)
        for row in self.rows:
            table.add_row(*map(Text, row))
        # Neither colours nor the notebook's own display: the text is for whoever asked for it.
        console = Console(
            file=io.StringIO(),
            width=width,
            color_system=None,
            force_terminal=False,
            force_jupyter=False,
            highlight=False,
        )
        with console.capture() as capture:
            console.print(table)
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "\n".join(line for line in (self.title, *lines, self.note) if line)

    def html(self) -> str:
        """The same as HTML; everything in it is escaped."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self.head)
        rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
        title = f"<p><b>{escape(self.title)}</b></p>" if self.title else ""
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<div>{title}<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}</div>"


class Listing(list[T]):
    """A list that shows itself as a table: ``row(item)`` gives the cells under ``head``; ``most`` rows are shown."""

    def __init__(
        self,
        items: Iterable[T],
        title: str,
        head: Sequence[str],
        row: Callable[[T], Sequence[str]],
        *,
        most: int = 20,
    ) -> None:
        super().__init__(items)
        self._title, self._head, self._row, self._most = title, head, row, most

    def _table(self) -> Table:
        more = len(self) - self._most
        rows = [self._row(item) for item in self[: self._most]]
        return Table(f"{self._title}: {len(self)}", self._head, rows, f"... and {more} more" if more > 0 else "")

    def __repr__(self) -> str:
        return self._table().text()

    def _repr_html_(self) -> str:
        return self._table().html()
