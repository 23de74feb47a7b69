"""What requests name: streams, instants, and how much of a list."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hs_stream.core.errors import ConfigurationError, NotFound
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_time, parse_time
from hs_stream.service.silence import lacking

if TYPE_CHECKING:
    from hs_stream.engine.engine import StreamStatus
    from hs_stream.service.http.context import ApiContext

__all__ = ["MAX_ROWS", "ROWS", "bounded_span", "find_stream", "parse_instant", "parse_span", "parse_stream"]

ROWS: Final = 100
MAX_ROWS: Final = 1000
"""Rows of one answer: so many where nothing is said, and at most."""


def find_stream(context: ApiContext, text: str) -> StreamStatus:
    """The stream with this id, or this text (``name[house=1,room=kitchen]``). `NotFound` says what it waits for."""
    engine = context.engine
    if re.fullmatch(r"[0-9]{1,18}", text):
        return engine.find_id(int(text))
    stream = parse_stream(text)
    try:
        return engine.find(stream)
    except NotFound as error:
        why = lacking(engine, context.workflows, stream.name, context.witness())
        if not why:
            raise
        known = error.hint if engine.status(stream.name) else ""
        raise NotFound(error.message, hint="; ".join(filter(None, (known, why)))) from None


def parse_stream(text: str) -> StreamId:
    """A stream by its text. `ConfigurationError`."""
    try:
        return StreamId.parse(text)
    except ValueError as error:
        raise ConfigurationError(str(error)[:300], hint="write name[house=1,room=kitchen]") from None


def parse_instant(name: str, text: str, now: int) -> int:
    """Rule 3 of the API. `ConfigurationError` names the parameter."""
    text = text.strip()
    if re.fullmatch(r"-?[0-9]{1,19}", text):
        return max(min(int(text), MAX_TIME), MIN_TIME)
    # In a query string "+" is a space: 2026-01-01T00:00:00+01:00 arrives as "... 01:00".
    text = re.sub(r"^(\S+T\S+) (\d\d:?\d\d)$", r"\1+\2", text)
    try:
        return parse_time(text, now=now)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def parse_span(start: str, end: str, now: int) -> tuple[int, int]:
    """The interval ``(start, end]``. `ConfigurationError` where it is empty."""
    first, last = parse_instant("start", start, now), parse_instant("end", end, now)
    if first >= last:
        raise ConfigurationError(
            f"start {format_time(first)} is not before end {format_time(last)}",
            hint="start is excluded, end included",
        )
    return first, last


def bounded_span(start: str, end: str, now: int) -> tuple[int, int]:
    """The same, without infinity: something is to be computed."""
    first, last = parse_span(start, end, now)
    if first <= MIN_TIME or last >= MAX_TIME:
        raise ConfigurationError("computing needs start and end", hint="pass for example start=-1h&end=now")
    return first, last
