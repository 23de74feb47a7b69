"""``hs-stream doctor``: can this configuration work here, and what to do about what cannot."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import re
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from semantic_version import SimpleSpec, Version

from hs_stream.core.errors import ConfigurationError, HsStreamError, StoreUnavailable, Unavailable
from hs_stream.core.time import format_duration, to_ms
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.ports import Store
from hs_stream.service.catalog import STORE, Catalog
from hs_stream.service.connectors import Connectors, mqtt_options
from hs_stream.service.http import bind, check_certificate
from hs_stream.service.lease import Lease
from hs_stream.service.remote import service_at
from hs_stream.service.session import running_session
from hs_stream.service.settings import LoggingSettings, Settings, read_secret
from hs_stream.service.wiring import EmbeddedStore, has_store, load_registry, load_workflows, make_store, reading_store
from hs_stream.store.open import redacted
from hs_stream_connectors.mqtt.client import MqttClient

__all__ = ["Finding", "examine"]

_CONNECT_SECONDS: Final = 5.0
_OLDEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
_CLOCK_MS: Final = 2_000
_VIEWER: Final = "pip install 'hs_stream[viewer]'"
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*((?:[<>=!~]=?\s*[\d.]+,?\s*)*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``unreachable``: a broker or store did not answer."""

    what: str
    ok: bool
    text: str
    hint: str = ""
    unreachable: bool = False


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything, in order; one failure does not hide the next."""
    return [
        await _look("versions", _versions),
        await _look("clock", _clock),
        await _look("workflows", lambda: _workflows(settings)),
        await _look("http", lambda: _http(settings)),
        await _look("logs", lambda: asyncio.to_thread(_logs, settings.logging)),
        await _look("broker", lambda: _broker(settings)),
        *await _store(settings),
    ]


async def _look(what: str, look: Callable[[], Coroutine[Any, Any, str]]) -> Finding:
    try:
        return Finding(what, True, await look())
    except HsStreamError as error:
        return Finding(what, False, _where(error), error.hint, isinstance(error, Unavailable))


def _where(error: HsStreamError) -> str:
    path, line = getattr(error, "path", ""), getattr(error, "line", None)
    return f"{path}{f':{line}' if line else ''}: {error.message}" if path else error.message


async def _versions() -> str:
    try:
        required = importlib.metadata.requires("hs_stream") or []
    except importlib.metadata.PackageNotFoundError:
        return "runs from a checkout that is not installed; dependencies are not checked"
    checked = 0
    for line in required:
        match = None if ";" in line and "extra" in line else _REQUIREMENT.match(line)
        if match is None:
            continue
        name, spec = match.group(1), match.group(2).replace(" ", "").rstrip(",")
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            raise HsStreamError(f"{name} is not installed", hint=f"pip install '{line}'") from None
        if spec and Version.coerce(found) not in SimpleSpec(spec):
            raise HsStreamError(f"{name} is {found}, but {spec} is needed", hint=f"pip install --upgrade '{line}'")
        checked += 1
    return f"{checked} dependencies fit"


async def _clock() -> str:
    now = datetime.now(UTC)
    if now < _OLDEST:
        raise HsStreamError(
            f"this machine says it is {now.isoformat(timespec='seconds')}", hint="set its clock, for example with NTP"
        )
    return f"{now.isoformat(timespec='seconds')}"


async def _workflows(settings: Settings) -> str:
    workflows = load_workflows(settings, load_registry(settings))
    if not workflows:
        raise HsStreamError(
            f"no file matches {', '.join(settings.workflows)}", hint="write a workflow file, or correct workflows"
        )
    Connectors(settings).feeds(workflows)
    sources = [source for workflow in workflows for source in workflow.sources.values() if source.options]
    nodes = sum(len(workflow.nodes) for workflow in workflows)
    return f"{len(workflows)} load, with {len(sources)} connected sources and {nodes} nodes"


async def _http(settings: Settings) -> str:
    http = settings.http
    for key in ("token_file", "read_token_file"):
        if path := getattr(http, key):
            read_secret(path, f"http.{key}")
    if http.cert_file:
        check_certificate(http.cert_file, http.key_file)
    installed = find_spec("nicegui") is not None and find_spec("tsdownsample") is not None
    if http.viewer is True and not installed:
        raise ConfigurationError("http.viewer is true, and the viewer is not installed", hint=_VIEWER)
    viewer = "no viewer" if http.viewer is False else "with the viewer" if installed else f"no viewer ({_VIEWER})"
    where = f"{'https' if http.cert_file else 'http'}://{http.host}:{http.port}"
    asks = "asks for a token" if http.token_file or http.read_token_file else "asks for no token"
    try:
        bind(http.host, http.port).close()
    except ConfigurationError as error:
        return f"{where} is served already {await _who_listens(settings, error)}, {asks}, {viewer}"
    return f"{where} is free, {asks}, {viewer}"


async def _who_listens(settings: Settings, taken: ConfigurationError) -> str:
    """That the service of these settings has the port already. ``taken``, with more words, when it is somebody else."""
    service = await asyncio.to_thread(service_at, settings)
    if service is None:
        raise taken
    try:
        sessions = (await asyncio.to_thread(service.ask, "GET", "/api/sessions"))["sessions"]
    except HsStreamError as error:
        hint = f"if it is that of these settings, {error.hint}; else {taken.hint}"
        raise ConfigurationError(f"{taken.message}, and {error.message}", hint=hint) from None
    running = None
    if has_store(settings) or settings.store.url.startswith("memory://"):
        try:
            async with reading_store(settings) as store:
                running = await running_session(store, _now())
        except HsStreamError as error:
            return f"by a service; whether it is that of this store nobody can tell: {error.message}"
    if running not in [session["id"] for session in sessions]:
        raise ConfigurationError(f"{taken.message}, by a service over another store", hint=taken.hint)
    return "by the service of this store"


def _logs(logs: LoggingSettings) -> str:
    parts = [f"{logs.format} on stderr from {logs.level}"]
    if logs.file:
        folder = Path(logs.file).absolute().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ConfigurationError(
                f"logging.file {logs.file}: {folder} is no directory to write to", hint="make it, or name another file"
            )
        parts.append(f"in {logs.file}")
    if logs.mqtt_topic:
        parts.append(f"on the topic {logs.mqtt_topic} from {logs.mqtt_level}")
    return ", ".join(parts)


async def _broker(settings: Settings) -> str:
    # A client id of our own: the service's would throw a running service off the broker.
    options = mqtt_options(settings).with_client_id(f"hs-stream-doctor-{secrets.token_hex(4)}")
    client = MqttClient(options, clean=True)
    task = asyncio.create_task(client.run(), name="doctor: broker")
    try:
        await client.wait_connected(_CONNECT_SECONDS)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return f"{redacted(settings.mqtt.url)} takes us, with MQTT {'5' if options.version == 5 else '3.1.1'}"


async def _store(settings: Settings) -> list[Finding]:
    embedded = EmbeddedStore(settings)
    try:
        finding = await _look("store", lambda: _open(settings, embedded))
        findings = [finding]
        if finding.ok and settings.store.url.startswith("mongodb"):
            findings.append(await _look("store's server", lambda: _server(settings.store.url)))
        return findings
    finally:
        await embedded.close()


async def _open(settings: Settings, embedded: EmbeddedStore) -> str:
    shown = redacted(settings.store.url)
    if settings.store.url.startswith("mongodb"):
        reader = make_store(settings, settings.store.url, read_only=True)
        try:
            await reader.open()
            session = await running_session(reader, _now())
            saved = await _saved(settings, reader)
        finally:
            await reader.close()
        if session:
            return f"{shown} answers, and a service is writing to it{saved}"
    store = await embedded.open()
    try:
        await store.open()
        streams = await store.streams()
        held = await Lease(store, SystemClock()).holder()
        saved = await _saved(settings, store)
    finally:
        await store.close()
    if held:
        return f"{shown} answers, and a service is writing to it{saved}"
    return f"{shown} can be read and written, {len(streams)} streams{saved}"


async def _saved(settings: Settings, store: Store) -> str:
    """How many workflows are saved. `ConfigurationError` for one that does not load."""
    try:
        catalog = Catalog(settings, load_registry(settings))
    except ConfigurationError:
        return ""  # the files are looked at by themselves
    await catalog.open(store)
    count = sum(catalog.origin(workflow.name) == STORE for workflow in catalog.workflows)
    return f", {count} saved workflows" if count else ""


async def _server(url: str) -> str:
    try:
        async with AsyncMongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
            version = (await client.admin.command("buildInfo"))["version"]
            before = _now()
            hello = await client.admin.command("hello")
            apart = abs(to_ms(hello["localTime"].replace(tzinfo=UTC)) - (before + _now()) // 2)
    except PyMongoError as error:
        raise StoreUnavailable(f"the server does not say its version: {error}") from None
    if Version.coerce(version) < Version("6.0.0"):
        raise HsStreamError(f"MongoDB {version} is too old", hint="upgrade it to 6.0 or newer")
    if apart > _CLOCK_MS:
        raise HsStreamError(
            f"its clock and ours are {format_duration(apart)} apart", hint="set both clocks, for example with NTP"
        )
    return f"MongoDB {version}, clocks {apart} ms apart"


def _now() -> int:
    return time.time_ns() // 1_000_000
