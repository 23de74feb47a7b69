"""The token that the writes of one store object name: rule 5 of `hs_stream.engine.ports`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from hs_stream.core.errors import Fenced

__all__ = ["Fence", "boot", "host_now"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def host_now() -> int:
    """Milliseconds since the boot of this host: the same for all its processes, whatever becomes of the time of day.

    Goes on while the host is suspended, where there is such a clock (Linux).
    """
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


def boot() -> str:
    """Which boot of which host `host_now` counts from; empty where nobody says."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Fence:
    """``where`` names the store in the error. ``token``: what writes name; ``None`` before the first opening."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._claimed: int | None = None
        self.token: int | None = None
        self.broken = False
        """Some write was refused: nothing more is even tried."""

    def opened(self, current: int) -> None:
        """The store was opened while ``current`` was the token."""
        self.token = current if self._claimed is None else self._claimed
        self.broken = False

    def is_news(self, token: int) -> bool:
        """Whether ``token`` is another one than that of the last claim."""
        return token != self._claimed

    def claimed(self, token: int) -> None:
        """The right is this object's, under ``token``."""
        self._claimed = token
        if self.token is not None and token == self.token + 1:
            self.token = token  # nobody was in between

    def require(self, current: int) -> None:
        """`Fenced` unless ``current``, which the store says now, is the token of this object."""
        if self.broken or current != self.token:
            raise self.refused()

    def refused(self) -> Fenced:
        """The error, once and for all until the next opening."""
        self.broken = True
        return Fenced(self._where)
