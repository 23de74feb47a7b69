"""The right to write to a store: one service has it at a time.

1. It is taken before the store is opened, renewed every `_BEAT_SECONDS`, and runs out after `LEASE_MS`.
2. The owner's name says which process of which host it is. So a service that was killed does not hold up its successor
   on the same host; one on another host waits until the right has run out.
3. A process that was frozen for longer than the right lasts takes it again before it writes anything, and ends when
   somebody else has it.
4. Who is refused learns the owner's name (`StoreInUse`). `name_of` it is what a service shows and is asked for by
   (`hs_stream.service.remote`): so nobody takes the service of another store for this one's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Final

import structlog

from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.engine.ports import Clock, Store

__all__ = ["LEASE_HEADER", "LEASE_MS", "Lease", "StoreInUse", "name_of", "shown"]

logger = structlog.get_logger(__name__)

LEASE_MS: Final = 30_000
LEASE_HEADER: Final = "Hs-Stream-Lease"
"""Names the lease that a request over HTTP is for."""
_BEAT_SECONDS: Final = 10.0
_MARGIN_MS: Final = 5_000
"""So long before the right runs out, a writer renews it itself."""


class StoreInUse(ConfigurationError):
    """Another process has the right to write to a store, and may be alive. ``owner`` is its name."""

    def __init__(self, owner: str, instead: str = "") -> None:
        super().__init__(
            f"a running service is using this store: {shown(owner)}",
            hint=f"{instead or 'give this one a store of its own'}, or stop the service; after a crash on another "
            f"host wait {LEASE_MS // 1000} s",
        )
        self.owner = owner


def shown(owner: str) -> str:
    """``owner`` for people."""
    return f"{owner.rpartition('/')[0]} (host/process/its start)"


def name_of(owner: str) -> str:
    """A short name for ``owner`` that tells nobody who it is."""
    return hashlib.blake2b(owner.encode(), digest_size=12).hexdigest()


class Lease:
    """The right of this process to write to ``store``."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{_begun(os.getpid())}/{secrets.token_hex(3)}"
        self._store = store
        self._clock = clock
        self._renewed = 0.0
        self._lock = asyncio.Lock()

    async def take(self, instead: str = "") -> None:
        """`StoreInUse` when another process has it and may be alive; ``instead`` says what to do then.

        `StoreUnavailable`.
        """
        now = self._clock.now()
        owner = await self._store.claim(self.owner, now, now + LEASE_MS)
        if owner != self.owner and _is_dead(owner):
            logger.info("taking over from a service that has ended", owner=owner)
            owner = await self._store.claim(self.owner, now, now + LEASE_MS, instead_of=owner)
        if owner != self.owner:
            raise StoreInUse(owner, instead)
        self._renewed = time.monotonic()

    async def holder(self) -> str:
        """Who has it and may be alive; empty when it was free to be taken, and therefore the store to be written to.

        Nobody has it behind this who had not before. `StoreUnavailable`.
        """
        now = self._clock.now()
        owner = await self._store.claim(self.owner, now, 0)
        if owner != self.owner and _is_dead(owner):
            owner = await self._store.claim(self.owner, now, 0, instead_of=owner)
        return "" if owner == self.owner else owner

    def is_due(self) -> bool:
        """Whether it may have run out before the next renewal: a writer must `renew` it first."""
        return time.monotonic() - self._renewed > (LEASE_MS - _MARGIN_MS) / 1000

    async def renew(self) -> None:
        """`ConfigurationError` when another process has it by now; `StoreUnavailable`."""
        async with self._lock:
            if not self.is_due() and time.monotonic() - self._renewed < _BEAT_SECONDS / 2:
                return
            now = self._clock.now()
            owner = await self._store.claim(self.owner, now, now + LEASE_MS)
            if owner != self.owner:
                raise ConfigurationError(
                    f"another service has taken over this store: {owner.rpartition('/')[0]}",
                    hint="this one was frozen or cut off for too long, and ends; nothing is lost",
                )
            self._renewed = time.monotonic()

    async def beat(self) -> None:
        """Renew it until cancelled. A store that is away is tried at the next beat."""
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            try:
                await self.renew()
            except StoreUnavailable as error:
                logger.debug("lease not renewed", error=error.message)

    async def give_back(self) -> None:
        """Let another process have it at once."""
        await self._store.claim(self.owner, self._clock.now(), 0)


def _begun(pid: int) -> str:
    """When a process began, in ticks since the boot of this machine; empty if it has ended, or where nobody knows."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _is_dead(owner: str) -> bool:
    """Whether ``owner`` was a process of this host that is gone, or whose number another one has."""
    host, *rest = owner.split("/")
    if host != socket.gethostname() or len(rest) != 3 or not rest[0].isdigit():
        return False
    return Path("/proc/self/stat").exists() and _begun(int(rest[0])) != rest[1]
