"""An MQTT broker as a child process, on the loopback interface only: for the demo, the tests and a first look.

mosquitto where it is installed, else iotcore (rumqttd, from PyPI). They differ:

* mosquitto speaks 3.1.1 and 5 on one port, and keeps sessions over a restart with ``persistence`` (it saves about once
  a second, so a *kill* may lose what came in the last second and was not yet taken; an orderly stop loses nothing).
* iotcore has a port per version (`EmbeddedBroker.url` speaks 5, `EmbeddedBroker.url_v3` speaks 3.1.1) and keeps nothing
  on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path
from typing import Literal, Self

from hs_stream.core.errors import BrokerUnavailable, ConfigurationError
from hs_stream.private_files import make_private, open_private, touch_private

__all__ = ["EmbeddedBroker", "free_port", "new_password"]

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_USER = "hs-stream"
_ROOT = 0

_MOSQUITTO = """\
listener {port} 127.0.0.1
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
log_type warning
{user}{auth}{persistence}{more}"""

_IOTCORE = """\
id = 0
[router]
id = 0
max_connections = 1000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""

_IOTCORE_LISTENER = """\
[{version}.1]
name = "{version}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 16777216
max_inflight_count = 1000
dynamic_filters = true
{auth}"""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedBroker:
    """One broker, to be started and stopped in one event loop. ``async with`` does both.

    ``directory`` keeps its configuration and log (and with ``persistence`` its sessions); it is created. The port is
    chosen once and kept over restarts. With ``password`` only the user ``hs-stream`` may connect; `url` holds both.
    ``kind``: ``None`` for mosquitto where it is installed, else iotcore. ``ConfigurationError`` when neither is there.
    ``more``: lines for mosquitto's configuration.
    """

    def __init__(
        self,
        directory: str | Path,
        port: int | None = None,
        *,
        persistence: bool = False,
        password: str | None = None,
        kind: Literal["mosquitto", "iotcore"] | None = None,
        more: str = "",
    ) -> None:
        self.directory = Path(directory)
        self.kind = kind or ("mosquitto" if _mosquitto() else "iotcore")
        if self.kind == "mosquitto" and not _mosquitto():
            raise ConfigurationError("mosquitto is not installed", hint="apt-get install mosquitto")
        if self.kind == "iotcore" and importlib.util.find_spec("iotcore") is None:
            raise ConfigurationError(
                "there is no MQTT broker to embed", hint="apt-get install mosquitto, or pip install iotcore"
            )
        if self.kind == "iotcore" and persistence:
            raise ConfigurationError("iotcore keeps nothing on disk", hint="install mosquitto for persistence")
        self.port = port or free_port()
        self._port_v3 = self.port if self.kind == "mosquitto" else free_port()
        self._fixed_port = port is not None
        self._persistence = persistence
        self._password = password
        self._more = more
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where MQTT 5 clients connect to."""
        return self._url(self.port)

    @property
    def url_v3(self) -> str:
        """Where MQTT 3.1.1 clients connect to."""
        return self._url(self._port_v3)

    def _url(self, port: int) -> str:
        login = f"{_USER}:{self._password}@" if self._password else ""
        return f"mqtt://{login}127.0.0.1:{port}"

    @property
    def is_running(self) -> bool:
        """Whether the child process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of the child process. ``BrokerUnavailable`` before `start`."""
        if self._process is None:
            raise BrokerUnavailable("the embedded broker has not been started", hint="await broker.start() first")
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it and return when it accepts connections. Nothing if it runs.

        Raises `BrokerUnavailable` with the broker's last words when it does not come up.
        """
        if self.is_running:
            return
        for attempt in range(3):
            # Whoever has the port would also answer our knocking, so ask before there is a child to be mistaken for.
            if self._fixed_port and _is_taken(self.port):
                raise BrokerUnavailable(f"port {self.port} is in use", hint="choose another port")
            await self._spawn()
            if await self._accepts():
                return
            await self.stop()
            words = self._last_words()
            if self._fixed_port or attempt == 2 or "in use" not in words:
                raise BrokerUnavailable(
                    f"the embedded {self.kind} on port {self.port} does not start: {words}",
                    hint="choose another port" if "in use" in words else f"see {self._log}",
                )
            # Somebody took the free port between our asking and the broker's binding.
            self.port = free_port()
            self._port_v3 = self.port if self.kind == "mosquitto" else free_port()

    async def stop(self) -> None:
        """Stop it in an orderly way (with persistence it saves). Nothing if it does not run."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def kill(self) -> None:
        """SIGKILL: what happens when the machine loses power, minus the machine."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def restart(self) -> None:
        """`stop`, then `start` on the same port."""
        await self.stop()
        await self.start()

    # --- the two kinds ---

    @property
    def _log(self) -> Path:
        return self.directory / "broker.log"

    async def _spawn(self) -> None:
        make_private(self.directory)
        if self.kind == "mosquitto":
            arguments = [_mosquitto(), "-c", str(await self._write_mosquitto())]
        else:
            arguments = [
                sys.executable,
                "-m",
                "iotcore",
                "--log-level",
                "WARNING",
                "--config",
                str(self._write_iotcore()),
            ]
        touch_private(self._log)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def _write_mosquitto(self) -> Path:
        auth = "allow_anonymous true\n"
        if self._password:
            path = self.directory / "passwords"
            _write_private(path, f"{_USER}:{self._password}\n")
            await _hash_passwords(path)
            auth = f"allow_anonymous false\npassword_file {path}\n"
        persistence = "persistence false\n"
        if self._persistence:
            persistence = f"persistence true\npersistence_location {self.directory.resolve()}/\nautosave_interval 1\n"
        # As root, mosquitto would change to a user of its own that cannot read our directory.
        user = "user root\n" if os.geteuid() == _ROOT else ""
        path = self.directory / "mosquitto.conf"
        settings = {"user": user, "auth": auth, "persistence": persistence, "more": self._more}
        _write_private(path, _MOSQUITTO.format(port=self.port, **settings))
        return path

    def _write_iotcore(self) -> Path:
        path = self.directory / "iotcore.toml"
        text = _IOTCORE
        for version, port in (("v5", self.port), ("v4", self._port_v3)):
            auth = f'[{version}.1.connections.auth]\n{_USER} = "{self._password}"\n' if self._password else ""
            text += _IOTCORE_LISTENER.format(version=version, port=port, auth=auth)
        _write_private(path, text)
        return path

    async def _accepts(self) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + _START_SECONDS
        for port in {self.port, self._port_v3}:
            while True:
                if not self.is_running or loop.time() > until:
                    return False
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
                break
        await asyncio.sleep(0.02)
        return self.is_running

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return "; ".join(lines[-3:]) or "it says nothing"


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _mosquitto() -> str:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin") or ""


def _write_private(path: Path, text: str) -> None:
    with open_private(path) as file:
        file.write(text)


async def _hash_passwords(path: Path) -> None:
    process = await asyncio.create_subprocess_exec("mosquitto_passwd", "-U", str(path))
    if await process.wait() != 0:
        raise ConfigurationError("mosquitto_passwd cannot hash the password", hint="install all of mosquitto")


def new_password() -> str:
    """A password that fits into a URL."""
    return secrets.token_urlsafe(16)
