"""What every group of pages has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nicegui import ui

from hs_stream.service.silence import lacking

if TYPE_CHECKING:
    from hs_stream.engine.engine import Engine
    from hs_stream.service.http.context import ApiContext

__all__ = ["Pages"]


class Pages:
    """Pages, or parts of one, over ``context``."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._clock = context.clock

    def _why_nothing(self, name: str) -> str:
        """What the source or node ``name``, which has no instance, waits for."""
        return lacking(self._engine, self._context.workflows, name, self._context.witness())

    def _unread(self) -> None:
        """Say which workflow files differ from what runs, if any."""
        changes = self._context.changes
        if changes is not None and (unread := changes.unread()) is not None:
            ui.label(f"{unread.text} ({unread.hint})").classes("text-sm text-warning break-all")

    @property
    def _engine(self) -> Engine:
        """That of the moment: a change of workflows makes another one."""
        return self._context.engine
