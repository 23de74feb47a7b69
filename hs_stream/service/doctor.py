"""``hs-stream doctor``: can this configuration work here, and what to do about what cannot."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.metadata
import os
import re
import secrets
import tempfile
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
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_duration, format_time, to_ms
from hs_stream.core.urls import redacted
from hs_stream.engine.ports import Store
from hs_stream.service.connectors import Connectors, mqtt_options
from hs_stream.service.host import reading_store
from hs_stream.service.http.server import bind, check_certificate
from hs_stream.service.lease import Lease
from hs_stream.service.remote import running_service, service_at
from hs_stream.service.session import running_session
from hs_stream.service.settings import LoggingSettings, Settings, read_secret
from hs_stream.service.silence import heard_of, waits_for, witness_in
from hs_stream.service.stores import EmbeddedStore, has_store, make_store, without_server
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.catalog import STORE, Catalog, saved_workflows
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.loading import first_workflow, load_workflows
from hs_stream.store.factories import sqlite_path
from hs_stream_connectors.mqtt.client import MqttClient
from hs_stream_connectors.mqtt.source import MqttSource

__all__ = ["Finding", "examine"]

_CONNECT_SECONDS: Final = 5.0
_OLDEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
_CLOCK_MS: Final = 2_000
_SHOWN: Final = 3
_ROOM: Final = 256 << 10
_NAMED: Final = 10
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
        *await _files(settings),
        http := await _look("http", lambda: _http(settings)),
        *await _service(settings),
        await _look("logs", lambda: asyncio.to_thread(_logs, settings.logging)),
        await _look("broker", lambda: _broker(settings)),
        *await _store(settings),
        *(await _overwritten(settings) if http.ok else ()),
    ]


async def _look(what: str, look: Callable[[], Coroutine[Any, Any, str | tuple[str, str]]]) -> Finding:
    """``look`` gives a text, or a text and a hint."""
    try:
        found = await look()
        return Finding(what, True, *([found] if isinstance(found, str) else found))
    except HsStreamError as error:
        hint = without_server(error) if isinstance(error, StoreUnavailable) else error.hint
        return Finding(what, False, _where(error), hint, isinstance(error, Unavailable))


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


async def _workflows(settings: Settings) -> str | tuple[str, str]:
    workflows = load_workflows(settings, load_registry(settings))
    if not workflows:
        named = f"no file matches {', '.join(settings.workflows)}" if settings.workflows else "no file is named"
        with contextlib.suppress(StoreUnavailable):
            if saved := await saved_workflows(settings):
                return f"{named}; saved in the store: {', '.join(saved)}"
        raise HsStreamError(
            f"{named} in {Path.cwd()}",
            hint=f"{first_workflow(settings)} writes one for what your gateways send; or correct workflows",
        )
    Connectors(settings).feeds(workflows)
    sources = [source for workflow in workflows for source in workflow.sources.values() if source.options]
    nodes = sum(len(workflow.nodes) for workflow in workflows)
    text = f"{len(workflows)} load, with {len(sources)} connected sources and {nodes} nodes"
    if doubts := doubts_about(settings, workflows):
        more = f"; and {len(doubts) - 1} more, see hs-stream workflow check FILE" if len(doubts) > 1 else ""
        return text, f"warning: {doubts[0]}{more}"
    return text


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


async def _service(settings: Settings) -> list[Finding]:
    """What a running service says of itself; nothing where none runs."""
    try:
        service = await running_service(settings)
        if service is None:
            return []
        said = await asyncio.to_thread(service.ready)
        parts, degraded = said["parts"], said.get("degraded", [])
    except (HsStreamError, ValueError, TypeError, KeyError, AttributeError):
        return []  # the one before looks at who listens
    found = []
    for name, part in parts.items():
        if not part["ok"]:
            found.append(Finding(f"the running service: {name}", False, str(part.get("error", "not ok"))))
    for one in degraded:
        text = f"{one['error']} ({one['count']} times since its start)"
        found.append(
            Finding(f"the running service: {one['what']}", False, text, "see its log, and hs-stream dead-letters")
        )
    return found or [Finding("the running service", True, "ready, and nothing is degraded")]


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


async def _overwritten(settings: Settings) -> list[Finding]:
    """What the running service has overwritten: a device may correct itself, so it is no failure."""
    try:
        service = await running_service(settings)
        answer = {} if service is None else await asyncio.to_thread(service.ask, "GET", "/api/deadletters?limit=1")
    except HsStreamError:
        return []  # it has just answered, and stops
    return [
        Finding(
            "readings",
            True,
            f"{found['count']} of source {found['source']} were overwritten by other values of the same times, the "
            f"last in {found['stream']} at {found['time']}",
            "if they are not of one device, give each device a stream of its own: {device} in the topic, or "
            "bind: {device: id}; else let it send finer times",
        )
        for found in answer.get("overwritten", ())
    ]


async def _broker(settings: Settings) -> str:
    # A client id of our own: the service's would throw a running service off the broker.
    options = mqtt_options(settings).with_client_id(f"hs-stream-doctor-{secrets.token_hex(4)}")
    client = MqttClient(options, clean=True)
    client.set_filters(_filters(settings))
    task = asyncio.create_task(client.run(), name="doctor: broker")
    try:
        await client.wait_connected(_CONNECT_SECONDS)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if refused := client.statistics().refused:
        name, error = next(iter(refused.items()))
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        raise HsStreamError(
            f"{redacted(settings.mqtt.url)} takes us, and refuses the subscription to {name}: {error}{more}",
            hint="check the broker's access list",
        )
    return f"{redacted(settings.mqtt.url)} takes us, with MQTT {'5' if options.version == 5 else '3.1.1'}"


def _filters(settings: Settings) -> list[str]:
    """What the workflows subscribe to; nothing where they do not load, which is looked at by itself."""
    try:
        feeds = Connectors(settings).feeds(load_workflows(settings, load_registry(settings)))
    except HsStreamError:
        return []
    return [name for feed in feeds if isinstance(feed.source, MqttSource) for name in feed.source.filters]


async def _store(settings: Settings) -> list[Finding]:
    embedded = EmbeddedStore(settings)
    try:
        finding = await _look("store", lambda: _open(settings, embedded))
        findings = [finding]
        if finding.ok and settings.store.url.startswith("mongodb"):
            findings.append(await _look("store's server", lambda: _server(settings.store.url)))
        if finding.ok and not settings.store.url.startswith(("memory", "embedded")):
            findings.append(await _look("readings", lambda: _readings(settings)))
            findings += await _clocks(settings)
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
            await _service_writes(settings)
            return f"{shown} answers, and a service is writing to it{saved}"
    store = await embedded.open()
    if settings.store.url.startswith("sqlite"):
        await asyncio.to_thread(_has_room, sqlite_path(settings.store.url))
    try:
        await store.open()
        streams = await store.streams()
        held = await Lease(store).holder()
        saved = await _saved(settings, store)
    finally:
        await store.close()
    if held:
        await _service_writes(settings)
        return f"{shown} answers, and a service is writing to it{saved}"
    return f"{shown} can be read and written, {len(streams)} streams{saved}"


async def _service_writes(settings: Settings) -> None:
    """`StoreUnavailable` when the running service says that the store refuses what it writes."""
    try:
        service = await running_service(settings)
        parts = (await asyncio.to_thread(service.ready)).get("parts", {}) if service else {}
    except HsStreamError:
        return
    trouble = parts.get("store", {}).get("error")
    if trouble:
        raise StoreUnavailable(f"the running service says: {trouble}", hint="its readings wait at the broker")


def _has_room(file: Path) -> None:
    """Try to write where the database is. What it is asked for itself may fit into space that it has already."""
    if not file.parent.is_dir():
        return  # it will be made
    try:
        with tempfile.TemporaryFile(dir=file.parent) as probe:
            probe.write(bytes(_ROOM))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some disk space there" if full else "give this user write access to the directory"
        raise StoreUnavailable(f"nothing can be written in {file.parent}: {error.strerror}", hint=hint) from None


async def _saved(settings: Settings, store: Store) -> str:
    """How many workflows are saved. `ConfigurationError` for one that does not load."""
    try:
        catalog = Catalog(settings, load_registry(settings))
    except ConfigurationError:
        return ""  # the files are looked at by themselves
    await catalog.open(store)
    count = sum(catalog.origin(workflow.name) == STORE for workflow in catalog.workflows)
    return f", {count} saved workflows" if count else ""


async def _readings(settings: Settings) -> str | tuple[str, str]:
    """Which sources have readings, and what the others wait for. An error where nothing of one could be used."""
    async with reading_store(settings) as store:
        try:
            catalog = Catalog(settings, load_registry(settings))
            await catalog.open(store)
        except ConfigurationError:
            return "not looked at, since the workflows do not load"
        workflows = catalog.workflows
        names = sorted({name for one in workflows for name, source in one.sources.items() if source.options})
        heard = await heard_of(store, names)
        waits = [name for name in names if name not in heard]
        if not waits:
            return f"all {len(names)} connected sources have some", "" if names else first_workflow(settings)
        witness = await witness_in(store, _now())
        bad = [name for name in waits if witness and witness.accounts.get(name, {}).get("dead_letters")]
        shown = (bad or waits)[:_SHOWN]
        said = "; ".join(waits_for(workflows, name, heard, witness) for name in shown)
        text = f"{len(heard)} of {len(names)} connected sources have some, not {', '.join(waits[:_NAMED])}"
        if bad:
            raise HsStreamError(text, hint=said)
        return text, f"{said}; {first_workflow(settings)} shows what comes"


async def _clocks(settings: Settings) -> list[Finding]:
    """Workflows with nodes without inputs that do not begin with the earliest reading, since that came too late."""
    findings = []
    try:
        async with reading_store(settings) as store:
            catalog = Catalog(settings, load_registry(settings))
            await catalog.open(store)
            held = {}
            for record in await store.streams():
                if record.since is not None:
                    first = await store.read(record.id, MIN_TIME, MAX_TIME, limit=1)
                    if first and first.first_time < record.since:
                        held[record.stream.name] = record.stream, first.first_time
            for workflow in catalog.workflows:
                clocks = [node.name for node in workflow.nodes.values() if not node.inputs and workflow.begin is None]
                old = [held[name] for name in workflow.sources if name in held]
                if clocks and old:
                    stream, first_time = old[0]
                    text = (
                        f"{', '.join(clocks[:_NAMED])} of workflow {workflow.name} begins later than {stream}, whose "
                        f"first reading, of {format_time(first_time)}, came later than watermark.backdate allows"
                    )
                    hint = f"if that clock was right, write start: {format_time(first_time)} into the workflow"
                    findings.append(Finding("clocks", True, text, hint))
    except HsStreamError:
        return []  # said already
    return findings


async def _files(settings: Settings) -> list[Finding]:
    """What the running service of these settings has not loaded, where one answers."""
    try:
        service = await running_service(settings)
        answer = await asyncio.to_thread(service.ask, "GET", "/api/workflows") if service else {}
    except HsStreamError:
        return []
    unread = answer.get("unread") if isinstance(answer, dict) else None
    return [Finding("workflow files", False, str(unread["text"]), str(unread["hint"]))] if unread else []


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
