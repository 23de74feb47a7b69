"""An MQTT broker as a child process, on the loopback interface only: for the demo, the tests and a first look.

mosquitto where it is installed, else iotcore (rumqttd, from PyPI). They differ:

* mosquitto speaks 3.1.1 and 5 on one port, and keeps sessions over a restart with ``persistence`` (it saves about once
  a second, so a *kill* may lose what came in the last second and was not yet taken; an orderly stop loses nothing).
* iotcore has a port per version (`EmbeddedBroker.url` speaks 5, `EmbeddedBroker.url_v3` speaks 3.1.1) and keeps nothing
  on disk.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from hs_stream.core.errors import BrokerUnavailable, ConfigurationError
from hs_stream.private_files import make_private, open_private
from hs_stream.service.embedded.child import ChildServer, free_port

__all__ = ["EmbeddedBroker", "new_password"]

_USER = "hs-stream"
_ROOT = 0
_SETTLE_SECONDS = 0.02

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


class EmbeddedBroker(ChildServer):
    """One broker.

    ``directory`` keeps its configuration and log (and with ``persistence`` its sessions). The port is chosen here and
    kept over restarts. With ``password`` only the user ``hs-stream`` may connect; `url` holds both. ``kind``: ``None``
    for mosquitto where it is installed, else iotcore. ``ConfigurationError`` when neither is there. ``more``: lines for
    mosquitto's configuration. `start` raises `BrokerUnavailable`. When it is stopped it saves what it keeps.
    """

    start_seconds = 10.0
    stop_seconds = 5.0
    in_use = "in use"

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
        super().__init__(directory, port or None)
        self.kind = kind or ("mosquitto" if _mosquitto() else "iotcore")
        if self.kind == "mosquitto" and not _mosquitto():
            raise ConfigurationError("mosquitto is not installed", hint="apt-get install mosquitto")
        if self.kind == "iotcore" and importlib.util.find_spec("iotcore") is None:
            raise ConfigurationError(
                "there is no MQTT broker to embed", hint="apt-get install mosquitto, or pip install iotcore"
            )
        if self.kind == "iotcore" and persistence:
            raise ConfigurationError("iotcore keeps nothing on disk", hint="install mosquitto for persistence")
        self._port_v3 = 0
        self._choose_port()
        self._persistence = persistence
        self._password = password
        self._more = more

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
    def port(self) -> int:
        """Where it listens."""
        assert self._port is not None
        return self._port

    def _choose_port(self) -> None:
        if not self._fixed_port:
            super()._choose_port()
        self._port_v3 = self.port if self.kind == "mosquitto" else free_port()

    # --- the two kinds ---

    @property
    def _log(self) -> Path:
        return self.directory / "broker.log"

    def _output(self) -> Path:
        return self._log

    def _command(self, port: int) -> Sequence[str]:
        # Whoever has the port would also answer our knocking, so ask before there is a child to be mistaken for.
        if self._fixed_port and _is_taken(port):
            raise BrokerUnavailable(f"port {port} is in use", hint="choose another port")
        make_private(self.directory)
        if self.kind == "mosquitto":
            return [_mosquitto(), "-c", str(self._write_mosquitto())]
        config = str(self._write_iotcore())
        return [sys.executable, "-m", "iotcore", "--log-level", "WARNING", "--config", config]

    def _failed(self, why: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"the embedded {self.kind} on port {self.port} does not start: {why}",
            hint="choose another port" if self.in_use in why else f"see {self._log}",
        )

    def _write_mosquitto(self) -> Path:
        auth = "allow_anonymous true\n"
        if self._password:
            path = self.directory / "passwords"
            _write_private(path, f"{_USER}:{self._password}\n")
            _hash_passwords(path)
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

    @contextmanager
    def _asking(self) -> Iterator[Callable[[], bool]]:
        yield self._accepts

    def _accepts(self) -> bool:
        for port in {self.port, self._port_v3}:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                return False
        # One that did not get its port ends about now.
        time.sleep(_SETTLE_SECONDS)
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


def _hash_passwords(path: Path) -> None:
    if subprocess.run(["mosquitto_passwd", "-U", str(path)], check=False).returncode != 0:
        raise ConfigurationError("mosquitto_passwd cannot hash the password", hint="install all of mosquitto")


def new_password() -> str:
    """A password that fits into a URL."""
    return secrets.token_urlsafe(16)
