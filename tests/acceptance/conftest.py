"""Real parts as processes, and a publisher that shares no code with what is tested: MQTT 3.1.1 by hand on a socket."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])

Message = tuple[str, bytes]


def find_program(name: str) -> str:
    """Its path; skips the test where it is not installed."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(check: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """What ``check`` returns, as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Children:
    """Child processes that end with the test, each by its own id."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, log: Path, directory: Path, environment: dict[str, str] | None = None) -> Any:
        """Start it; stdout and stderr go to ``log``, or to ``log`` and ``log`` + ``.err`` for readers of stdout."""
        with log.open("ab") as out, log.with_suffix(".err").open("ab") as err:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=directory, env=environment
            )
        self._running.append(child)
        return child

    def close(self) -> None:
        for child in reversed(self._running):
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(10)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


# --- the publisher ---


def _remaining(size: int) -> bytes:
    out = bytearray()
    while True:
        size, digit = divmod(size, 128)
        out.append(digit | (0x80 if size else 0))
        if not size:
            return bytes(out)


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def _publish_packet(topic: str, payload: bytes, mid: int, retain: bool) -> bytes:
    body = _text(topic) + mid.to_bytes(2, "big") + payload
    return bytes([0x32 | retain]) + _remaining(len(body)) + body


def publish(port: int, messages: Sequence[Message], *, retain: bool = False) -> float:
    """Publish in order at QoS 1 as fast as the broker takes it; seconds until the last PUBACK."""
    packets = [
        _publish_packet(topic, payload, index % 65_535 + 1, retain) for index, (topic, payload) in enumerate(messages)
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        hello = _text("MQTT") + bytes([4, 2, 0, 0]) + _text(f"publisher-{os.getpid()}-{time.monotonic_ns()}")
        connection.sendall(b"\x10" + _remaining(len(hello)) + hello)
        connack = connection.recv(4)
        assert connack == b"\x20\x02\x00\x00", connack
        began = time.perf_counter()
        confirmed, sent, rest = 0, 0, b""
        while confirmed < len(packets):
            if sent < len(packets) and sent - confirmed < 20_000:
                connection.sendall(b"".join(packets[sent : sent + 200]))
                sent = min(sent + 200, len(packets))
                connection.setblocking(False)
            else:
                connection.settimeout(30)
            with contextlib.suppress(BlockingIOError):
                data = connection.recv(1 << 16)
                assert data, "the broker closed the publisher's connection"
                rest += data
            connection.settimeout(30)
            whole = len(rest) // 4
            assert all(rest[at : at + 2] == b"\x40\x02" for at in range(0, whole * 4, 4)), "not a PUBACK"
            confirmed, rest = confirmed + whole, rest[whole * 4 :]
        took = time.perf_counter() - began
        connection.sendall(b"\xe0\x00")
    return took


# --- mosquitto, mosquitto_sub, hs-stream ---


class Mosquitto:
    """A mosquitto with its files in ``directory``."""

    def __init__(self, children: Children, directory: Path, password: str = "") -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._children, self._directory = children, directory
        lines = [f"listener {self.port} 127.0.0.1", "max_inflight_messages 0", "max_queued_messages 0"]
        if os.geteuid() == 0:
            lines.append("user root")  # its own user cannot read our directory
        if password:
            passwords = directory / "passwords"
            subprocess.run([find_program("mosquitto_passwd"), "-b", "-c", passwords, "hs", password], check=True)
            lines += ["allow_anonymous false", f"password_file {passwords}"]
        else:
            lines.append("allow_anonymous true")
        path = directory / "mosquitto.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        children.start(find_program("mosquitto"), "-c", str(path), log=directory / "mosquitto.log", directory=directory)
        wait_for(lambda: accepts(self.port), "mosquitto accepts connections")

    def publish(self, *messages: Message, retain: bool = False) -> float:
        """`publish` to it."""
        return publish(self.port, messages, retain=retain)

    def listen(self, *filters: str) -> Subscriber:
        """A mosquitto_sub that has subscribed."""
        return Subscriber(self._children, self, self._directory, filters)


class Subscriber:
    """A mosquitto_sub that writes what it gets to a file."""

    _END = "end-of-test"

    def __init__(self, children: Children, broker: Mosquitto, directory: Path, filters: Sequence[str]) -> None:
        self._broker = broker
        self._path = directory / f"subscriber-{time.monotonic_ns()}.txt"
        command = [find_program("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(broker.port), "-q", "1"]
        for name in (*filters, self._END):
            command += ["-t", name]
        command += ["-F", "%t\t%q\t%r\t%p"]
        self._child = children.start(*command, log=self._path, directory=directory)
        wait_for(lambda: self._send_end() and self._ended(), "mosquitto_sub gets what is published")
        self._skip = self._path.stat().st_size

    def _send_end(self) -> bool:
        self._broker.publish((self._END, b"-"))
        time.sleep(0.05)
        return True

    def _ended(self, skip: int = 0) -> bool:
        with self._path.open("rb") as lines:
            lines.seek(max(skip, self._path.stat().st_size - 200))
            return f"{self._END}\t".encode() in lines.read()

    def finish(self) -> list[tuple[str, int, bool, str]]:
        """``(topic, qos, retained, payload)`` of all that the broker has confirmed to its publishers by now."""
        self._broker.publish((self._END, b"-"))
        wait_for(lambda: self._ended(self._skip), "mosquitto_sub has got everything", 60)
        self._child.terminate()
        self._child.wait(10)
        got = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            topic, qos, retained, payload = line.split("\t", 3)
            if topic != self._END:
                got.append((topic, int(qos), retained == "1", payload))
        return got


class Service:
    """``hs-stream`` in ``directory``: `start` serves, `run` is any other command."""

    def __init__(self, children: Children, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._children = children
        self._child: subprocess.Popen[bytes] | None = None

    def configure(self, *, workflows: Sequence[Path], broker: str, store: str, more: str = "") -> None:
        """Write ``hs-stream.toml``."""
        names = ", ".join(json.dumps(str(path)) for path in workflows)
        text = (
            f"workflows = [{names}]\n[store]\nurl = {json.dumps(store)}\n[http]\nport = {self.port}\n"
            f"[mqtt]\nurl = {json.dumps(broker)}\n{more}"
        )
        (self.directory / "hs-stream.toml").write_text(text, encoding="utf-8")

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-m", "hs_stream.cli"]

    @property
    def _environment(self) -> dict[str, str]:
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "connectors", ROOT / "tools")))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HS_STREAM")}
        return clean | {"PYTHONPATH": paths}

    def start(self) -> Service:
        """``serve``; returns when /readyz says so."""
        log = self.directory / "service.log"
        self._child = self._children.start(
            *self._command, "serve", log=log, directory=self.directory, environment=self._environment
        )
        wait_for(self._is_ready, "the service is ready")
        return self

    def _is_ready(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, self.errors()
        with contextlib.suppress(OSError):
            return '"ready":true' in self.ask("/readyz").replace(" ", "")
        return False

    def errors(self) -> str:
        """What it has written to stderr so far."""
        return (self.directory / "service.err").read_text(encoding="utf-8")

    def ask(self, path: str) -> str:
        """The body of the answer, whatever its status."""
        return self.send("GET", path)[1]

    def send(self, method: str, path: str, body: str = "") -> tuple[int, str]:
        """The status and the body of the answer."""
        data = body.encode() if body else None
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, bytes(answer.read()).decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def hang_up(self) -> None:
        """SIGHUP."""
        assert self._child is not None
        self._child.send_signal(signal.SIGHUP)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name with labels."""
        pairs = re.findall(r"^([a-z]\S*?(?:\{.*\})?) (\S+)$", self.ask("/metrics"), re.MULTILINE)
        return {name: float(value) for name, value in pairs}

    def settle(self, readings: int, seconds: float = 180.0) -> None:
        """Return when ``readings`` have come, and nothing waits to be stored, computed or published."""
        waiting = ("hs_in_flight_readings", "hs_pending_steps", "hs_outbox_pending")

        deadline = time.monotonic() + seconds
        while True:
            found = self.metrics()
            came = sum(value for name, value in found.items() if name.startswith("hs_readings_total{"))
            left = {name: found[name] for name in waiting if found[name]}
            if came >= readings and not left:
                return
            assert time.monotonic() < deadline, f"{came:g} of {readings} readings are in, and {left} is left"
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM; it must end with 0 within 10 seconds."""
        assert self._child is not None
        self._child.send_signal(signal.SIGTERM)
        assert self._child.wait(10) == 0, self.errors()

    def run(self, *arguments: str, seconds: float = 60.0) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of another command."""
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()


class Parts:
    """Makes the parts of one test (or module) in a directory, and ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children = Children()

    def mosquitto(self, password: str = "") -> Mosquitto:
        find_program("mosquitto_sub")
        return Mosquitto(self.children, self._fresh("mosquitto"), password)

    def service(self) -> Service:
        return Service(self.children, self._fresh("service"))

    def program(self, name: str, *arguments: str) -> None:
        """Start a program in a directory of its own."""
        directory = self._fresh(name)
        self.children.start(find_program(name), *arguments, log=directory / "log.txt", directory=directory)

    def _fresh(self, name: str) -> Path:
        directory = self.directory / f"{name}-{time.monotonic_ns()}"
        directory.mkdir()
        return directory


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Parts of this test."""
    made = Parts(tmp_path)
    yield made
    made.children.close()


@pytest.fixture(scope="module")
def shared_parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Parts of this module."""
    made = Parts(tmp_path_factory.mktemp("parts"))
    yield made
    made.children.close()


@pytest.fixture(scope="session")
def waiting() -> Callable[..., Any]:
    """The function `wait_for`."""
    return wait_for


@pytest.fixture(scope="session")
def free_ports() -> Callable[[], int]:
    """The function `free_port`."""
    return free_port
