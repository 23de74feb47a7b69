"""Hears everything that a broker carries for a while, in a session that it leaves no trace of."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable

from hs_stream_connectors.mqtt.client import MqttClient
from hs_stream_connectors.mqtt.options import MqttOptions

__all__ = ["listen"]

_CONNECT_SECONDS = 10.0


async def listen(options: MqttOptions, seconds: float, heard: Callable[[str, bytes, int], None]) -> None:
    """Call ``heard(topic, payload, arrival)`` for each message of ``seconds``, retained ones included.

    Raises `BrokerUnavailable` when there is no connection at first; later it reconnects. Topics that are not UTF-8, and
    messages above 1 MiB, are left out.
    """
    client = MqttClient(options.with_client_id(f"hs-discover-{secrets.token_hex(4)}"), clean=True)
    client.set_filters(["#"])
    running = asyncio.create_task(client.run(), name="listen: connection")
    try:
        await client.wait_connected(_CONNECT_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    connection, messages = await client.receive()
                    arrival = time.time_ns() // 1_000_000
                    for message in messages:
                        if message.left_out:
                            continue
                        with contextlib.suppress(UnicodeDecodeError):
                            heard(message.topic.decode(), message.payload, arrival)
                    connection.acknowledge(messages)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
