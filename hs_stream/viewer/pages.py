"""What every group of pages has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hs_stream.engine.engine import Engine
    from hs_stream.service.api import ApiContext

__all__ = ["Pages"]


class Pages:
    """Pages, or parts of one, over ``context``."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._clock = context.clock

    @property
    def _engine(self) -> Engine:
        """That of the moment: a change of workflows makes another one."""
        return self._context.engine
