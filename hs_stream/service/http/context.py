"""What the API and the viewer's pages show: the engine, the store and the workflows of the moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hs_stream.core.registry import ToolRegistry
from hs_stream.core.size import PAGE
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.service.http.gate import Gate
from hs_stream.service.http.live import Hub
from hs_stream.service.http.security import Tokens
from hs_stream.service.silence import Witness
from hs_stream.service.workflows.catalog import Plan, Unread

if TYPE_CHECKING:
    from hs_stream.engine.engine import Engine
    from hs_stream.engine.ports import Clock, Store

__all__ = ["ApiContext", "Changes"]


class Changes(Protocol):
    """How workflows are changed: see `hs_stream.service.app.Service`."""

    async def save(self, name: str, text: str, *, as_json: bool) -> Plan: ...
    async def remove(self, name: str) -> Plan: ...
    def origin(self, name: str) -> str: ...
    def unread(self) -> Unread | None: ...


@dataclass(slots=True)
class ApiContext:
    """What the API shows. ``ready()`` gives ``{"ready": bool, "parts": {name: {"ok": bool, ...}}}``.

    ``engine`` and ``workflows`` are those of the moment: they may be replaced while nobody is inside of ``gate``.
    Without ``changes`` everything is read-only.
    """

    engine: Engine
    store: Store
    clock: Clock
    workflows: Sequence[WorkflowDefinition]
    registry: ToolRegistry
    metrics: Callable[[], bytes]
    ready: Callable[[], Awaitable[dict[str, Any]]]
    version: str
    tokens: Tokens = field(default_factory=Tokens)
    hub: Hub | None = None
    origins: Sequence[str] = ()
    """Origins whose pages may use the API (CORS)."""
    tls: bool = False
    gate: Gate = field(default_factory=Gate)
    changes: Changes | None = None
    witness: Callable[[], Witness | None] = lambda: None
    """What came of each source since this generation began."""
    page: int = PAGE
    """How many bytes of values one answer has, about; the next page goes on after it."""
    lease: str = ""
    """`hs_stream.service.lease.name_of` who writes to the store."""
