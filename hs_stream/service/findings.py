"""What `hs_stream.service.doctor` finds: one thing after the other, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hs_stream.core.errors import HsStreamError, StoreUnavailable, Unavailable
from hs_stream.service.stores import without_server

__all__ = ["Finding", "look"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``unreachable``: a broker or store did not answer."""

    what: str
    ok: bool
    text: str
    hint: str = ""
    unreachable: bool = False


async def look(what: str, look: Callable[[], Coroutine[Any, Any, str | tuple[str, str]]]) -> Finding:
    """``look`` gives a text, or a text and a hint."""
    try:
        found = await look()
        return Finding(what, True, *([found] if isinstance(found, str) else found))
    except HsStreamError as error:
        hint = without_server(error) if isinstance(error, StoreUnavailable) else error.hint
        return Finding(what, False, _where(error), hint, isinstance(error, Unavailable))


def _where(error: HsStreamError) -> str:
    path, line = getattr(error, "path", ""), getattr(error, "line", None)
    return f"{path}{f':{line}' if line else ''}: {error.message}" if path else error.message
