"""The right to write to a store: one service has it at a time.

1. It is taken before the store is opened, renewed three times while it lasts, and runs out by the clock of the store
   (`hs_stream.engine.ports.Store.claim`).
2. The owner's name says which process of which host it is. So a service that was killed does not hold up its successor
   on the same host; one on another host waits until the right has run out.
3. Whoever had it, and has it no more, is `Fenced`: the store refuses what it writes, wherever it was frozen meanwhile,
   and it ends. That it asks first, where it knows that it was frozen for longer than the right lasts, saves it the
   attempt, and keeps it from publishing.
4. Who is refused learns the owner's name (`StoreInUse`). `name_of` it is what a service shows and is asked for by
   (`hs_stream.service.remote`): so nobody takes the service of another store for this one's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import socket
from pathlib import Path
from typing import Final

import structlog

from hs_stream.core.errors import ConfigurationError, Fenced, StoreUnavailable
from hs_stream.engine.ports import Holder, Store
from hs_stream.store.fence import host_now

__all__ = ["LEASE_HEADER", "LEASE_MS", "Lease", "StoreInUse", "name_of", "shown"]

logger = structlog.get_logger(__name__)

LEASE_MS: Final = 30_000
"""What `hs_stream.service.settings.StoreSettings.lease` is by default."""
LEASE_HEADER: Final = "Hs-Stream-Lease"
"""Names the lease that a request over HTTP is for."""
_BEATS: Final = 3
"""Renewals while it lasts."""
_MARGIN: Final = 6
"""The last sixth of it: a writer renews it itself."""


class StoreInUse(ConfigurationError):
    """Another process has the right to write to a store, and may be alive. ``owner`` is its name."""

    def __init__(self, owner: str, instead: str = "", lease_ms: int = LEASE_MS) -> None:
        super().__init__(
            f"a running service is using this store: {shown(owner)}",
            hint=f"{instead or 'give this one a store of its own'}, or stop the service; after a crash on another "
            f"host wait {lease_ms / 1000:g} s",
        )
        self.owner = owner


def shown(owner: str) -> str:
    """``owner`` for people."""
    return f"{owner.rpartition('/')[0]} (host/process/its start)"


def name_of(owner: str) -> str:
    """A short name for ``owner`` that tells nobody who it is."""
    return hashlib.blake2b(owner.encode(), digest_size=12).hexdigest()


class Lease:
    """The right of this process to write to ``store``. It lasts for ``lease_ms`` from each renewal on."""

    def __init__(self, store: Store, lease_ms: int = LEASE_MS) -> None:
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{_begun(os.getpid())}/{secrets.token_hex(3)}"
        self._store = store
        self._lease_ms = lease_ms
        self._token = 0
        self._renewed = -lease_ms
        """When, by `host_now`, which goes on while the machine is suspended."""
        self._lock = asyncio.Lock()

    async def take(self, instead: str = "") -> None:
        """`StoreInUse` when another process has it and may be alive; ``instead`` says what to do then.

        `StoreUnavailable`.
        """
        asked, held = host_now(), await self._ask(self._lease_ms)
        if held.owner != self.owner:
            raise StoreInUse(held.owner, instead, self._lease_ms)
        self._token, self._renewed = held.token, asked

    async def holder(self) -> str:
        """Who has it and may be alive; empty when it is free to be taken. Changes nothing. `StoreUnavailable`."""
        return (await self._ask(0)).owner

    async def _ask(self, for_ms: int) -> Holder:
        held = await self._store.claim(self.owner, for_ms)
        if held.owner != self.owner and _is_dead(held.owner):
            if for_ms:
                logger.info("taking over from a service that has ended", owner=held.owner)
            held = await self._store.claim(self.owner, for_ms, instead_of=held.owner)
        return held

    def is_due(self) -> bool:
        """Whether it may have run out before the next renewal: a writer must `renew` it first."""
        return host_now() - self._renewed > self._lease_ms - self._lease_ms // _MARGIN

    async def renew(self) -> None:
        """`Fenced` when another process has it by now, or had it in between; `StoreUnavailable`."""
        async with self._lock:
            asked = host_now()
            if not self.is_due() and asked - self._renewed < self._lease_ms / _BEATS / 2:
                return
            held = await self._store.claim(self.owner, self._lease_ms)
            if held.owner != self.owner:
                raise Fenced("this store", shown(held.owner))
            if held.token != self._token:
                await self.give_back()
                raise Fenced("this store")
            self._renewed = asked

    async def beat(self) -> None:
        """Renew it until cancelled. A store that is away is tried at the next beat."""
        while True:
            await asyncio.sleep(self._lease_ms / 1000 / _BEATS)
            try:
                await self.renew()
            except StoreUnavailable as error:
                logger.debug("lease not renewed", error=error.message)

    async def give_back(self) -> None:
        """Let another process have it at once."""
        await self._store.claim(self.owner, 0)


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
