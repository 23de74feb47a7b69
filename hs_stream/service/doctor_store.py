"""What `hs_stream.service.doctor` looks at in the store: can it be written, and what do its readings say."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from semantic_version import Version

from hs_stream.core.errors import ConfigurationError, HsStreamError, StoreUnavailable
from hs_stream.core.time import MAX_TIME, MIN_TIME, format_duration, format_time, to_ms
from hs_stream.core.urls import redacted
from hs_stream.engine.clock import SystemClock
from hs_stream.engine.ports import Store
from hs_stream.service.findings import Finding, look
from hs_stream.service.host import reading_store
from hs_stream.service.lease import Lease
from hs_stream.service.remote import running_service
from hs_stream.service.session import running_session
from hs_stream.service.settings import Settings
from hs_stream.service.silence import heard_of, waits_for, witness_in
from hs_stream.service.stores import EmbeddedStore, make_store
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.catalog import STORE, Catalog
from hs_stream.service.workflows.loading import first_workflow
from hs_stream.store.factories import sqlite_path

__all__ = ["look_at_store"]

_CLOCK_MS: Final = 2_000
_SHOWN: Final = 3
_ROOM: Final = 256 << 10
_NAMED: Final = 10


async def look_at_store(settings: Settings) -> list[Finding]:
    """Its server and what is in it too, where it answers."""
    embedded = EmbeddedStore(settings)
    try:
        finding = await look("store", lambda: _open(settings, embedded))
        findings = [finding]
        if finding.ok and settings.store.url.startswith("mongodb"):
            findings.append(await look("store's server", lambda: _server(settings.store.url)))
        if finding.ok and not settings.store.url.startswith(("memory", "embedded")):
            findings.append(await look("readings", lambda: _readings(settings)))
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
            session = await running_session(reader, SystemClock().now())
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
        witness = await witness_in(store, SystemClock().now())
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


async def _server(url: str) -> str:
    try:
        async with AsyncMongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=5000) as client:
            version = (await client.admin.command("buildInfo"))["version"]
            before = SystemClock().now()
            hello = await client.admin.command("hello")
            apart = abs(to_ms(hello["localTime"].replace(tzinfo=UTC)) - (before + SystemClock().now()) // 2)
    except PyMongoError as error:
        raise StoreUnavailable(f"the server does not say its version: {error}") from None
    if Version.coerce(version) < Version("6.0.0"):
        raise HsStreamError(f"MongoDB {version} is too old", hint="upgrade it to 6.0 or newer")
    if apart > _CLOCK_MS:
        raise HsStreamError(
            f"its clock and ours are {format_duration(apart)} apart", hint="set both clocks, for example with NTP"
        )
    return f"MongoDB {version}, clocks {apart} ms apart"
