"""One service with every secret there is, in every kind of trouble: no secret is told, and nothing without a token."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import aiomqtt
import pytest
from pymongo import MongoClient

from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod

BROKER, STORE, WRITE, READ, WRONG = "brkr-1f7a", "stre-2e8b", "tokn-3d9c", "read-4c0d", "wrng-5b1e"
SECRETS = (BROKER, STORE, WRITE, READ, WRONG)
OPEN = {"/healthz"}


def ask(port: int, path: str, token: str = "", method: str = "GET") -> tuple[int, str, str]:
    """Status, headers, body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, str(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.headers), error.read().decode()


async def until(port: int, path: str, wanted: int) -> str:
    async with asyncio.timeout(30):
        while True:
            try:
                status, _, body = await asyncio.to_thread(ask, port, path, READ)
            except OSError:
                status, body = 0, ""
            if status == wanted:
                return body
            await asyncio.sleep(0.1)


async def said(site: Any, *arguments: str) -> str:
    """Everything that a command prints."""
    command = await site.start(*arguments)
    out, errors = await asyncio.wait_for(command.process.communicate(), 60)
    return str((out + errors).decode())


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_public_service_in_trouble_tells_no_secret_and_nothing_without_a_token(site: Any) -> None:
    if find_mongod() is None:
        pytest.skip("no mongod runs on this machine")
    mongod = EmbeddedMongod(site.directory / "mongod", options=("--auth",))
    await mongod.start()
    with MongoClient[dict[str, Any]](mongod.url) as client:
        client.admin.command("createUser", "anna", pwd=STORE, roles=["root"])
    store = f"mongodb://anna:{STORE}@{mongod.url.partition('://')[2]}/hs?authSource=admin"
    broker = EmbeddedBroker(site.directory / "broker", password=BROKER, kind="mosquitto")
    await broker.start()
    (site.directory / "write").write_text(WRITE, encoding="utf-8")
    (site.directory / "read").write_text(READ, encoding="utf-8")
    settings = site.write(
        broker.url,
        store,
        more='host = "0.0.0.0"\ntoken_file = "write"\nread_token_file = "read"\n'
        '[logging]\nlevel = "debug"\nfile = "log/hs.log"\nmqtt_topic = "home/log"\nmqtt_level = "info"\n',
    )
    settings.chmod(0o600)
    told: list[str] = []
    try:
        service = await site.start("serve")
        await until(site.port, "/readyz", 200)
        reading = json.dumps({"ts": 1_767_225_600_000, "temperature": 20.5})
        async with aiomqtt.Client("127.0.0.1", broker.port, username="hs-stream", password=BROKER) as client:
            await client.publish("home/h1/kitchen/climate", reading, qos=1)
            await client.publish("home/h1/kitchen/climate", b"{not json", qos=1)

        # Every path of the API, without a token, with a wrong one, and with the right one.
        document = json.loads((await asyncio.to_thread(ask, site.port, "/openapi.json", READ))[2])
        paths = [path for path, methods in document["paths"].items() if "get" in methods and "{" not in path]
        paths = [path for path in paths if "events" not in path]  # those do not end
        assert len(paths) > 8
        attempts = [(path, "") for path in [*paths, "/", "/docs", "/nothing/here"] if path not in OPEN]
        for path, token in [*attempts, ("/api/streams", WRONG), ("/metrics", WRONG)]:
            status, headers, body = await asyncio.to_thread(ask, site.port, path, token)
            told += [headers, body]
            assert status == 401, path
            assert "climate" not in body
            assert "kitchen" not in body
        for path in paths:
            _, headers, body = await asyncio.to_thread(ask, site.port, path, READ)
            told += [headers, body]
        assert any("kitchen" in one for one in told)

        # Trouble: the broker and the database go and come back, a command has other credentials.
        await broker.kill()
        await mongod.stop()
        await until(site.port, "/readyz", 503)
        told.append(await said(site, "doctor"))
        await broker.start()
        await mongod.start()
        await until(site.port, "/readyz", 200)
        told += [await said(site, "doctor"), await said(site, "query", "temperature[house=h1,room=kitchen]")]
        told.append(await said(site, "--debug", "streams"))
        service.process.terminate()
        code, errors = await service.end(30)
        assert code == 0, errors
        told += [errors, (site.directory / "log/hs.log").read_text(encoding="utf-8")]
        site.write(broker.url.replace(BROKER, WRONG), store.replace(STORE, WRONG))
        for arguments in (["serve"], ["doctor"], ["--debug", "streams"]):
            told.append(await said(site, *arguments))
    finally:
        await broker.stop()
        await mongod.kill()
    everything = "\n".join(told)
    assert "anna" in everything
    assert [secret for secret in SECRETS if secret in everything] == []
