"""A simple client of a live stream: a table by time, kept as docs/specs/live.md says."""

from __future__ import annotations

import json
from typing import Any

from hs_stream.core.time import parse_time


def _instant(text: str) -> int:
    return parse_time(text, now=0)


class Client:
    """Reads bytes as they come, cut anywhere. ``oddities``: what a law-abiding server would not have sent."""

    def __init__(self) -> None:
        self.table: dict[int, tuple[Any, int]] = {}
        self.last_id = ""
        self.kinds: list[str] = []
        self.ready = False
        self.end = ""
        self.oddities: list[str] = []
        self.complete = True
        """Whether it asked for everything: then a change of what it does not have is odd."""
        self._rest = b""

    def connect(self) -> None:
        """A new connection: half an event is forgotten."""
        self._rest, self.ready, self.end = b"", False, ""

    def feed(self, data: bytes) -> None:
        """Bytes from the server."""
        *blocks, self._rest = (self._rest + data).split(b"\n\n")
        for block in blocks:
            self._block(block.decode())

    def _block(self, block: str) -> None:
        fields: dict[str, str] = {}
        for line in block.splitlines():
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        if "id" in fields:
            self.last_id = fields["id"]
        if "data" in fields:
            self._event(fields["event"], json.loads(fields["data"]))

    def _event(self, kind: str, data: dict[str, Any]) -> None:
        self.kinds.append(kind)
        if kind == "ready":
            self.ready = True
        elif kind == "end":
            self.end = data["reason"]
        elif kind == "reset":
            start, end = _instant(data["start"]), _instant(data["end"])
            self.table = {time: row for time, row in self.table.items() if not start < time <= end}
        else:
            time = _instant(data["time"])
            known = self.table.get(time)
            if kind == "insert" and known is not None:
                self.oddities.append(f"insert at {time} twice")
            if kind != "insert" and known is None and self.complete:
                self.oddities.append(f"{kind} at {time}, where there is nothing")
            if kind == "retract":
                self.table.pop(time, None)
            else:
                self.table[time] = (data["value"], data["revision"])
