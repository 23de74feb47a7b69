"""``hs-stream doctor``: can this configuration work here, and what to do about what cannot."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import re
import secrets
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from semantic_version import SimpleSpec, Version

from hs_stream.core.errors import ConfigurationError, HsStreamError, StoreUnavailable
from hs_stream.core.urls import redacted
from hs_stream.engine.clock import SystemClock
from hs_stream.service.connectors import Connectors, mqtt_options
from hs_stream.service.doctor_store import look_at_store
from hs_stream.service.findings import Finding, look
from hs_stream.service.host import reading_store
from hs_stream.service.http.server import bind, check_certificate
from hs_stream.service.remote import running_service, service_at
from hs_stream.service.session import running_session
from hs_stream.service.settings import LoggingSettings, Settings, read_secret
from hs_stream.service.stores import has_store
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.catalog import saved_workflows
from hs_stream.service.workflows.doubts import doubts_about
from hs_stream.service.workflows.loading import first_workflow, load_workflows
from hs_stream_connectors.mqtt.client import MqttClient
from hs_stream_connectors.mqtt.source import MqttSource

__all__ = ["Finding", "examine"]

_CONNECT_SECONDS: Final = 5.0
_OLDEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
_VIEWER: Final = "pip install 'hs_stream[viewer]'"
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?\s*((?:[<>=!~]=?\s*[\d.]+,?\s*)*)")


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything, in order; one failure does not hide the next."""
    return [
        await look("versions", _versions),
        await look("clock", _clock),
        await look("workflows", lambda: _workflows(settings)),
        *await _files(settings),
        http := await look("http", lambda: _http(settings)),
        *await _service(settings),
        await look("logs", lambda: asyncio.to_thread(_logs, settings.logging)),
        await look("broker", lambda: _broker(settings)),
        *await look_at_store(settings),
        *(await _overwritten(settings) if http.ok else ()),
    ]


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
    Connectors(settings).sources_of(workflows)
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
                running = await running_session(store, SystemClock().now())
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
        sources = Connectors(settings).sources_of(load_workflows(settings, load_registry(settings)))
    except HsStreamError:
        return []
    return [name for one in sources if isinstance(one.source, MqttSource) for name in one.source.filters]


async def _files(settings: Settings) -> list[Finding]:
    """What the running service of these settings has not loaded, where one answers."""
    try:
        service = await running_service(settings)
        answer = await asyncio.to_thread(service.ask, "GET", "/api/workflows") if service else {}
    except HsStreamError:
        return []
    unread = answer.get("unread") if isinstance(answer, dict) else None
    return [Finding("workflow files", False, str(unread["text"]), str(unread["hint"]))] if unread else []
