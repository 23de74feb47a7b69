"""Why a stream that a workflow declares has no instance: what its sources wait for, and what came instead.

::

    workflow comfort declares it; no reading on home/{room}/climate yet: 7 dead letters since 2026-03-01T10:00:00Z
    (time_invalid 6, json 1), the newest: 'the time in ...'; hs-stream dead-letters lists them
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from hs_stream.core.stream import SUGGESTED, StreamId, nearest_streams, suggestion
from hs_stream.core.time import MAX_TIME, MIN_TIME, parse_time
from hs_stream.core.workflow import SourceDefinition, WorkflowDefinition
from hs_stream.engine.ports import Store, StreamRecord
from hs_stream.service.accounts import reasons, shown
from hs_stream.service.session import running_session

if TYPE_CHECKING:
    from hs_stream.engine.engine import Engine

__all__ = ["Witness", "explain", "heard_of", "lacking", "sources_of", "suggest", "trouble", "waits_for", "witness_in"]

_LOOKED: Final = 100
"""Streams that are asked for an instance, so that a hint costs little."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Who can say what came: a run of the service, by what its session says.

    ``accounts``: see `hs_stream.service.accounts.Accounts.documents`. ``broker``: why it cannot be used; empty: it can.
    """

    since: str
    accounts: Mapping[str, Mapping[str, Any]]
    broker: str = ""
    running: bool = True


async def witness_in(store: Store, now: int) -> Witness | None:
    """The session that runs, else the one that was seen last. ``None``: no service has used this store yet."""
    sessions, running = await store.documents("sessions"), await running_session(store, now)
    told = {key: one for key, one in sessions.items() if "sources" in one}
    if not told:
        return None
    newest = running if running in told else max(told, key=lambda key: parse_time(str(told[key]["seen"]), now=0))
    session = told[newest]
    return Witness(str(session["started"]), session["sources"], str(session.get("broker", "")), newest == running)


def waits_for(
    workflows: Sequence[WorkflowDefinition], name: str, heard: Collection[str], witness: Witness | None
) -> str:
    """What the source or node ``name`` waits for; ``""`` where no workflow declares it.

    ``heard``: the sources of `sources_of` that have an instance.
    """
    workflow = next((item for item in workflows if name in item.sources or name in item.nodes), None)
    if workflow is None:
        return ""
    waits = [source for source in sources_of(workflow, name) if source.name not in heard]
    if not waits:
        online = witness is not None and witness.running and workflow.online
        read = ", ".join(source.name for source in sources_of(workflow, name)) or "nothing"
        failed = "hs-stream failed lists what tools could not compute"
        why = failed if online else f"hs-stream compute {workflow.name} --from -1d --to now computes the last day of it"
        return f"workflow {workflow.name} declares it; no result yet of the readings of {read}, {why}"
    places = " or ".join(_place(source, name) for source in waits)
    said = "; ".join(dict.fromkeys(filter(None, (_said(source, witness) for source in waits[:3]))))
    return f"workflow {workflow.name} declares it; no reading on {places} yet" + (f": {said}" if said else "")


def sources_of(workflow: WorkflowDefinition, name: str) -> list[SourceDefinition]:
    """The sources that ``name`` is or is computed from."""
    wanted = {name, *workflow.ancestors(name)}
    return [source for source in workflow.sources.values() if source.name in wanted]


def trouble(source: str, witness: Witness | None) -> str:
    """What came of ``source`` that was no reading; ``""`` where there is nothing to say."""
    if witness is None:
        return ""
    account = witness.accounts.get(source, {})
    parts = []
    dead: Mapping[str, int] = account.get("dead_letters", {})
    if dead:
        count = sum(dead.values())
        newest = account.get("newest")
        text = f", the newest: {shown(str(newest['message']))}" if newest else ""
        what = "1 dead letter" if count == 1 else f"{count} dead letters"
        parts.append(f"{what} since {witness.since} ({reasons(dead)}){text}; hs-stream dead-letters lists them")
    if ignored := account.get("ignored", 0):
        parts.append(f"{ignored} messages were ignored, since its codec finds no reading in them: does its topic fit?")
    return "; ".join(parts)


def _said(source: SourceDefinition, witness: Witness | None) -> str:
    if witness is None:
        return ""
    if found := trouble(source.name, witness):
        return found
    topic = source.options.get("mqtt")
    if not isinstance(topic, str):
        return ""
    if not witness.running:
        return "no service runs on this store now, hs-stream serve is one"
    if witness.broker:
        return f"the service is not connected to the broker ({witness.broker})"
    looks = f"mosquitto_sub -v -t '{_filter(topic)}' shows whether the broker carries any"
    return f"nothing has come on it since the service began at {witness.since}; {looks}"


def lacking(engine: Engine, workflows: Sequence[WorkflowDefinition], name: str, witness: Witness | None) -> str:
    """The same of a running engine; where there are instances of ``name``, what else came of that source."""

    def heard(one: str) -> bool:
        return any(status.newest is not None for status in engine.status(one))

    workflow = next((item for item in workflows if name in item.sources or name in item.nodes), None)
    if workflow is None or heard(name):
        return trouble(name, witness)
    return waits_for([workflow], name, {one.name for one in sources_of(workflow, name) if heard(one.name)}, witness)


# --- by what is stored ---


async def explain(
    store: Store, workflows: Sequence[WorkflowDefinition], stream: StreamId, now: int, otherwise: str = ""
) -> str:
    """`waits_for` where no stream of the name has an instance; else ``otherwise``, and what else came of the source.

    ``now`` in ms.
    """
    name = stream.name
    workflow = next((item for item in workflows if name in item.sources or name in item.nodes), None)
    if workflow is None:
        return otherwise
    heard = await heard_of(store, {name, *(source.name for source in sources_of(workflow, name))})
    witness = await witness_in(store, now)
    if name not in heard:
        return waits_for(workflows, name, heard, witness)
    return "; ".join(filter(None, (otherwise, trouble(name, witness))))


async def heard_of(store: Store, names: Collection[str]) -> set[str]:
    """Those of ``names`` of which a stream has an instance."""
    records: dict[str, list[StreamRecord]] = {}
    for record in await store.streams():
        if record.stream.name in names:
            records.setdefault(record.stream.name, []).append(record)
    return {name for name, found in records.items() if await _first_with_instances(store, found, 1)}


async def suggest(store: Store, wanted: StreamId) -> str:
    """A hint for a stream that there is not: others like it that have instances."""
    records = {record.stream: record for record in await store.streams()}
    near = [records[stream] for stream in nearest_streams(wanted, records, _LOOKED)]
    found = await _first_with_instances(store, near, SUGGESTED)
    return suggestion(wanted, [record.stream for record in found])


async def _first_with_instances(store: Store, records: Iterable[StreamRecord], count: int) -> list[StreamRecord]:
    """The first ``count`` of ``records`` that have an instance; at most `_LOOKED` are looked at."""
    found: list[StreamRecord] = []
    for record in islice(records, _LOOKED):
        if len(found) < count and await store.read(record.id, MIN_TIME, MAX_TIME, limit=1):
            found.append(record)
    return found


def _filter(topic: str) -> str:
    """The filter of a topic template, as MQTT writes it."""
    return re.sub(r"\{[^}]*\}", "+", re.sub(r"\{[^}]*#\}", "#", topic))


def _place(source: SourceDefinition, name: str) -> str:
    place = str(source.options.get("mqtt") or source.options.get("csv") or f"source {source.name}")
    return place if source.name == name or place.startswith("source ") else f"{place} (source {source.name})"
