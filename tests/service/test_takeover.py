"""ST-20 through real processes: a service that is frozen for longer than its right to write lasts, and continued."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import aiomqtt
import pytest

from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.child import free_port

NODE = "smooth[house=1,room=kitchen]"
PATH = f"/api/streams/{NODE.replace('[', '%5B').replace(']', '%5D')}/instances"
LEASE_SECONDS = 2
COUNT = 100


@pytest.fixture(params=["sqlite", "replica"])
def url(request: pytest.FixtureRequest) -> str:
    return "sqlite:///data/x.db" if request.param == "sqlite" else str(request.getfixturevalue("replica_url"))


async def test_a_service_that_was_frozen_changes_nothing_once_it_has_a_successor(
    site: Any, broker: EmbeddedBroker, url: str
) -> None:
    settings = f'{url}"\nlease = "{LEASE_SECONDS}s'
    site.write(broker.url, store=settings)
    base = time.time_ns() // 1_000_000 - 600_000
    told: dict[int, tuple[int, float]] = {}
    client = aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5)

    def until(value: float) -> Any:
        return lambda answer: [row["value"] for row in answer.get("instances", ())][:1] == [value]

    async def listen() -> None:
        async for message in client.messages:
            said = json.loads(message.payload)
            told[said["time"]] = max(told.get(said["time"], (-1, 0.0)), (said["revision"], said["value"]))

    async def send(index: int, value: float) -> None:
        payload = json.dumps({"ts": base + index, "temperature": value})
        await client.publish("home/1/kitchen/climate", payload, qos=1)

    async with client, asyncio.TaskGroup() as group:
        await client.subscribe("hs/comfort/smooth/#", qos=1)
        listening = group.create_task(listen())
        first = await site.start("serve")
        await first.until("/readyz", lambda answer: isinstance(answer, dict) and answer["ready"])
        await send(0, 1.0)
        await first.until(PATH, until(1.0))
        if not url.startswith("sqlite"):
            # At work. Inside of a transaction of SQLite it would hold the lock of the file.
            await asyncio.gather(*(send(index, 1.0) for index in range(1, COUNT)))
        first.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(LEASE_SECONDS + 0.5)

        site.port = free_port()
        site.write(broker.url, store=settings)
        second = await site.start("serve")
        await second.until("/readyz", lambda answer: isinstance(answer, dict) and answer["ready"])
        await asyncio.gather(*(send(index, 3.0) for index in range(COUNT)))
        await second.until(f"{PATH}?limit={COUNT}", lambda answer: all_are(answer, 3.0))

        first.process.send_signal(signal.SIGCONT)
        code, errors = await first.end()
        assert code == 4, errors
        said = [line for line in errors.splitlines() if line.startswith("hs-stream: ")]
        assert len(said) == 1, errors
        assert "has taken over" in said[0]

        assert all_are(second.ask(f"{PATH}?limit={COUNT}"), 3.0)
        async with asyncio.timeout(10):
            while [value for _, value in told.values()] != [3.0] * COUNT:
                await asyncio.sleep(0.05)
        second.process.send_signal(signal.SIGTERM)
        assert (await second.end(15))[0] == 0
        listening.cancel()
    check = await site.start("verify", "comfort")
    out, _ = await check.process.communicate()
    assert check.process.returncode == 0, out.decode()


def all_are(answer: Any, value: float) -> bool:
    return [row["value"] for row in answer.get("instances", ())] == [value] * COUNT
