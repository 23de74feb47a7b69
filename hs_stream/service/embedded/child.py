"""A server as a child of this process: how it is started, waited for, and ended, with us at the latest.

1. The child must not outlive us, however we end. ``PR_SET_PDEATHSIG`` is not used for that: it fires when the *thread*
   that forked the child ends (ours forks from a worker thread), it needs code between fork and exec, and it is Linux
   only. Instead the server runs under a short shell guard that holds the read end of a pipe. The kernel closes our end
   when we are gone, by ``kill -9`` too; the guard sees the end of the file and stops the server in order. It asks again
   every second: mosquitto loses a signal that comes while it listens already and is not in its loop yet.
2. The guard has a session of its own, so a Ctrl-C in the terminal reaches us and not the server, and we can still flush
   before we stop it.
3. A port that nobody asked for is given up for another one when somebody takes it before the server does.
4. No start leaves a child behind: neither one that fails, nor one that is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Final, Self

from hs_stream.core.errors import HsStreamError
from hs_stream.private_files import touch_private

__all__ = ["ChildServer", "free_port"]

_GUARD: Final = """
exec 3<&0
"$@" </dev/null 3<&- >&2 &
child=$!
echo $child
(cat <&3 >/dev/null; while kill -TERM $child; do sleep 1; done) >/dev/null 2>&1 &
exec 3<&-
wait $child
"""
_ATTEMPTS: Final = 3
_POLL_SECONDS: Final = 0.02


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ChildServer(ABC):
    """One server in ``directory``, which `start` makes where it is missing. ``async with`` starts and stops it.

    Not bound to an event loop. ``port`` ``None``: a free one, which is kept over a `stop` or `kill` and another `start`
    while nobody else takes it.
    """

    start_seconds: ClassVar[float]
    """So long a start may take."""
    stop_seconds: ClassVar[float]
    """So long an orderly stop may take, then it is killed."""
    in_use: ClassVar[str]
    """What it says of a port that somebody has."""

    def __init__(self, directory: str | Path, port: int | None) -> None:
        self.directory = Path(directory)
        self._port = port
        self._fixed_port = port is not None
        self._guard: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._given_up = threading.Event()

    # --- what each of them says for itself; all of it is called in a worker thread ---

    @abstractmethod
    def _command(self, port: int) -> Sequence[str]:
        """Make what it needs; its command, with all arguments. Raises what it cannot begin with."""

    @abstractmethod
    def _asking(self) -> AbstractContextManager[Callable[[], bool]]:
        """What says whether it answers by now, to be called again and again."""

    @abstractmethod
    def _last_words(self) -> str:
        """The end of its log."""

    @abstractmethod
    def _failed(self, why: str) -> HsStreamError:
        """What `start` raises."""

    def _output(self) -> Path | None:
        """The file that what it prints is added to; ``None``: nowhere."""
        return None

    def _choose_port(self) -> None:
        """Take a free port."""
        self._port = free_port()

    # --- life ---

    @property
    def pid(self) -> int:
        """The process id of the server, 0 while it does not run."""
        return self._pid if self._guard is not None and self._guard.poll() is None else 0

    @property
    def is_running(self) -> bool:
        """Whether the child is there."""
        return bool(self.pid)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return when it answers. Nothing if it runs. Raises, with its last words, when it does not come up."""
        self._given_up.clear()
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on, and by rule 4 stops what it has started.
            self._given_up.set()
            with contextlib.suppress(HsStreamError):
                await starting
            raise

    async def stop(self) -> None:
        """Shut it down in order; its files stay. Nothing if it does not run."""
        await asyncio.to_thread(self._stop)

    async def kill(self) -> None:
        """SIGKILL: what happens when the machine loses power, minus the machine. Its files stay."""
        if pid := self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(self._stop)

    async def restart(self) -> None:
        """`stop`, then `start` on the same port."""
        await self.stop()
        await self.start()

    def _start(self) -> None:
        if self.is_running:
            return
        for attempt in range(_ATTEMPTS):
            if self._port is None or attempt:
                self._choose_port()
            assert self._port is not None
            self._stop()  # closes the pipes of one that ended by itself
            self._spawn(self._command(self._port))
            try:
                problem = self._wait_until_ready()
            except BaseException:
                self._stop()
                raise
            if not problem and not self._given_up.is_set():
                return
            self._stop()
            if self._given_up.is_set():
                return
            if self._fixed_port or self.in_use not in problem:
                break
        raise self._failed(problem)

    def _spawn(self, command: Sequence[str]) -> None:
        self._pid = 0
        with contextlib.ExitStack() as stack:
            log: int = subprocess.DEVNULL
            if (path := self._output()) is not None:
                touch_private(path)
                log = stack.enter_context(path.open("ab")).fileno()
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD, "hs-stream-guard", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
        assert self._guard.stdout is not None
        self._pid = int(self._guard.stdout.readline())

    def _wait_until_ready(self) -> str:
        """The empty text when it answers, else why it does not."""
        deadline = time.monotonic() + self.start_seconds
        with self._asking() as answers:
            while time.monotonic() < deadline and not self._given_up.is_set():
                if not self.is_running:
                    return self._last_words()
                if answers():
                    return ""
                time.sleep(_POLL_SECONDS)
        return f"no answer within {self.start_seconds:.0f} s: {self._last_words()}"

    def _stop(self) -> None:
        guard, self._guard = self._guard, None
        if guard is None:
            return
        assert guard.stdin is not None
        assert guard.stdout is not None
        guard.stdin.close()
        try:
            guard.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            guard.wait()
        guard.stdout.close()
