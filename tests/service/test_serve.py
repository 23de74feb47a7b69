"""The service as a process: mosquitto in, SQLite, mosquitto out, HTTP; how it starts, refuses to start, and stops."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import socket
import subprocess
import time
from typing import Any

import aiomqtt
import pytest
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.service.doctor import _http as examine_http
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod
from hs_stream.service.findings import look as examine_one
from hs_stream.service.settings_file import load_settings
from tests.service.conftest import ROOT


def ready(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("ready") is True


def client_of(broker: EmbeddedBroker) -> aiomqtt.Client:
    return aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5)


async def test_readings_become_results_on_mqtt_and_http(site: Any, broker: EmbeddedBroker) -> None:
    site.write(broker.url)
    service = await site.start("serve")
    await service.until("/readyz", ready)
    base = time.time_ns() // 1_000_000 - 60_000
    async with client_of(broker) as client:
        await client.subscribe("hs/#", qos=1)
        for index in range(10):
            payload = json.dumps({"ts": base + index * 1000, "temperature": float(index), "humidity": 40})
            await client.publish("home/1/kitchen/climate", payload, qos=1)
        await client.publish("home/1/kitchen/climate", "{bad", qos=1)
        got = []
        async with asyncio.timeout(15):
            async for message in client.messages:
                if str(message.topic) == "hs/comfort/smooth/1/kitchen":
                    got.append(json.loads(message.payload))
                if len(got) == 10:
                    break
    assert [item["value"] for item in got] == [index / 2 for index in range(10)]
    assert got[0] == {
        "time": base,
        "value": 0.0,
        "revision": 0,
        "kind": "insert",
        "stream": "smooth[house=1,room=kitchen]",
        "tool": "sliding_mean@1.0.0",
    }
    letters = await service.until("/api/deadletters", lambda answer: answer["dead_letters"])
    assert letters["dead_letters"][0]["reason"] == "json"
    stored = service.ask("/api/streams/smooth%5Bhouse=1,room=kitchen%5D/instances")
    assert [row["value"] for row in stored["instances"]] == [index / 2 for index in range(10)]
    assert 'hs_readings_total{source="climate"} 10.0' in service.ask("/metrics")
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    code, errors = await service.end()
    assert code == 0, errors
    assert time.monotonic() - began < 10
    check = await site.start("verify", "comfort")
    out, _ = await check.process.communicate()
    assert check.process.returncode == 0
    assert "clean" in out.decode()


async def test_a_restart_goes_on_where_it_stopped(site: Any, broker: EmbeddedBroker) -> None:
    site.write(broker.url)
    base = time.time_ns() // 1_000_000 - 60_000
    for run in range(2):
        service = await site.start("serve")
        await service.until("/readyz", ready)
        async with client_of(broker) as client:
            payload = json.dumps({"ts": base + run * 1000, "temperature": float(run)})
            await client.publish("home/1/bath/climate", payload, qos=1)
        path = "/api/streams/smooth%5Bhouse=1,room=bath%5D/instances"
        found = await service.until(path, lambda answer, run=run: len(answer.get("instances", [])) == run + 1)
        service.process.send_signal(signal.SIGINT)
        code, errors = await service.end()
        assert code == 0, errors
    assert [row["value"] for row in found["instances"]] == [0.0, 0.5]


async def test_it_comes_up_before_the_broker(site: Any, broker: EmbeddedBroker) -> None:
    await broker.stop()
    site.write(broker.url)
    service = await site.start("serve")
    waiting = await service.until("/readyz", lambda answer: isinstance(answer, dict) and "parts" in answer)
    assert not waiting["ready"]
    assert not waiting["parts"]["broker"]["ok"]
    assert waiting["parts"]["store"]["ok"]
    await broker.start()
    await service.until("/readyz", ready, seconds=30)
    service.process.send_signal(signal.SIGTERM)
    assert (await service.end())[0] == 0


async def refusal(site: Any, *arguments: str) -> tuple[int, list[str]]:
    process = await site.start(*arguments)
    code, errors = await process.end(30)
    return code, [line for line in errors.splitlines() if line.startswith("hs-stream:")]


async def test_a_port_in_use_is_exit_2(site: Any) -> None:
    site.write(store="memory://")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        code, lines = await refusal(site, "serve")
    assert code == 2
    assert len(lines) == 1
    assert f"http.port {site.port}" in lines[0]
    assert "in use" in lines[0]


async def test_a_wrong_password_is_exit_3(site: Any) -> None:
    async with EmbeddedBroker(site.directory / "locked", password="right", kind="mosquitto") as broker:
        site.write(broker.url.replace("right", "wrong-one"), store="memory://")
        code, lines = await refusal(site, "serve")
    assert code == 3
    assert len(lines) == 1
    assert "mqtt.password_file" in lines[0]
    assert "wrong-one" not in lines[0]


@pytest.mark.parametrize(
    "url", ["mongodb://u:hunter2@127.0.0.1:1/x?serverSelectionTimeoutMS=300", "sqlite:////proc/no/x.db"]
)
async def test_a_store_that_is_away_is_exit_3(site: Any, url: str) -> None:
    site.write(store=url)
    code, lines = await refusal(site, "serve")
    assert code == 3
    assert len(lines) == 1
    assert "hunter2" not in lines[0]


async def test_a_bad_workflow_is_exit_2_with_its_line(site: Any) -> None:
    site.write(store="memory://")
    path = site.directory / "comfort.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("sliding_mean", "sliding_men"), encoding="utf-8")
    code, lines = await refusal(site, "serve")
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith("hs-stream: comfort.yaml:7: ")
    assert "did you mean sliding_mean" in lines[0]


async def test_a_token_guards_the_service(site: Any) -> None:
    (site.directory / "token").write_text("s3cret\n", encoding="utf-8")
    site.write(store="memory://", more='token_file = "token"\n')
    service = await site.start("serve")
    await service.until("/healthz", lambda answer: answer.get("ok"))
    assert "token" in service.ask("/api/streams")["error"]
    service.process.send_signal(signal.SIGTERM)
    code, errors = await service.end()
    assert code == 0
    assert "s3cret" not in errors


async def test_what_the_readme_says_to_ask_works_beside_the_service(in_site: Any, broker: EmbeddedBroker) -> None:
    asking = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Asking\n")[2].partition("\n## ")[0]
    block = asking.partition("```sh\n")[2].partition("```")[0].replace("config/workflows/", "")
    in_site.write(broker.url)
    service = await in_site.start("serve")
    await service.until("/readyz", ready)
    async with client_of(broker) as client:
        payload = json.dumps({"ts": time.time_ns() // 1_000_000 - 60_000, "temperature": 20.0})
        await client.publish("home/1/kitchen/climate", payload, qos=1)
    await service.until("/api/streams?name=smooth", lambda answer: answer["total"] == 1)
    commands = [line for line in block.splitlines() if line.startswith("hs-stream ")]
    for line in commands:
        code, out, errors = await said(*shlex.split(line, comments=True)[1:])
        assert (code, errors) == (0, ""), (line, out, errors)
    assert len(commands) == 4
    # What a comment says is tried, too.
    [options] = [line.partition("#")[2] for line in commands if " query " in line]
    values = {"--from": ["-1d"], "--to": ["now"], "--format": ["csv"]}
    for option in re.findall(r"--\w+", options):
        code, out, errors = await said("query", "smooth[house=1,room=kitchen]", option, *values.get(option, []))
        assert (code, errors) == (0, ""), (option, out, errors)
    for path in re.findall(r"/(?:api|metrics)[^'`\s]*", asking):
        answer = service.ask(
            path.replace("{id}", "smooth[house=1,room=kitchen]").replace("[", "%5B").replace("]", "%5D")
        )
        assert isinstance(answer, str) or not answer.get("error"), (path, answer)
    assert "compute=true" in asking
    code, _, errors = await said("query", "smooth[house=1,room=kitchen]", "--compute", "--from", "-1d")
    assert code == 0, errors


SAVED = """
workflow: more
plates: {house: {}, room: {parent: house, max: 20}}
sources:
  climate: {mqtt: "home/{house}/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  humidity: {tool: component@^1, from: climate, with: {key: humidity}}
"""


CHANGES: tuple[tuple[str, ...], ...] = (
    ("workflow", "save", "more.yaml"),
    ("workflow", "remove", "more"),
    ("purge", "climate", "--yes"),
    ("import", "data.csv", "--stream", "climate[house=1,room=kitchen]", "--time", "t"),
    ("assets", "put", "notes", "notes.json", "--new"),
    ("compute", "comfort", "--from", "-1h", "--to", "now"),
    ("query", "climate[house=1,room=kitchen]", "--from", "-1h", "--compute"),
)
"""Every command that changes a store."""


async def said(*arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command in this process, beside a service in its own."""
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.timeout(240)  # some forty commands, each a process
@pytest.mark.parametrize("tls", [False, True])
async def test_workflows_are_saved_in_a_service_that_wants_a_token(in_site: Any, tls: bool) -> None:
    files = {"data.csv": "t,temperature\n2026-01-01T00:00:00Z,20\n", "notes.json": "{}", "more.yaml": SAVED}
    for name, text in (files | {"token": "s3cret", "read": "reads", "other": "wr0ng"}).items():
        (in_site.directory / name).write_text(f"{text}\n", encoding="utf-8")
    https = ""
    if tls:
        https = 'cert_file = "cert.pem"\nkey_file = "key.pem"\n'
        make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=house -keyout key.pem -out cert.pem"
        subprocess.run(make.split(), check=True, capture_output=True)  # noqa: ASYNC221 - nothing else runs yet
    settings = f'{https}read_token_file = "read"\n'
    in_site.write(more=f'{settings}token_file = "token"\n')
    service = await in_site.start("serve")
    url = f"{'https' if tls else 'http'}://127.0.0.1:{in_site.port}"
    async with asyncio.timeout(60):
        while (await said("workflow", "list"))[1].count("yes") != 1:
            pass
    assert await said("workflow", "save", "more.yaml") == (
        0,
        "more is added (new: humidity). The service runs it\n",
        "",
    )
    assert (await said("workflow", "list"))[1].count("yes") == 2
    assert (await said("workflow", "show", "more"))[1].startswith("workflow: more\n")
    assert await said("workflow", "remove", "more") == (0, "more is removed; its results stay\n", "")
    for command in CHANGES[3:]:
        assert (await said(*command))[0] == 0
    assert (await said(*CHANGES[2]))[1] == "1 instances of climate[house=1,room=kitchen] removed\n"
    for more, expected in (
        (https, f"the service at {url} wants a token, and these settings have none (name the file that holds it: "),
        (f'{https}token_file = "other"\n', f"the service at {url} does not take the token of http.token_file"),
        (settings, f"the service at {url} refuses: this token may only read (send the other one; hs-stream"),
        (f'{https}token_file = "gone"\n', "http.token_file: cannot read gone"),
    ):
        in_site.write(more=more)
        for command in CHANGES:
            code, out, errors = await said(*command)
            assert (code, out) == (2, "")
            assert errors.startswith(f"hs-stream: {expected}"), errors
            assert len(errors.splitlines()) == 1
            assert ("HS_STREAM__HTTP__TOKEN_FILE" in errors) == (" service at " in errors)
            assert not {"s3cret", "reads", "wr0ng"} & set(errors.split())
    service.process.send_signal(signal.SIGTERM)
    assert (await service.end())[0] == 0
    in_site.write(more=f'{https}token_file = "token"\n')
    assert "It runs when the service starts" in (await said("workflow", "save", "more.yaml"))[1]


async def test_doctor_tells_whose_service_has_the_port(in_site: Any) -> None:
    for name in ("token", "other"):
        (in_site.directory / name).write_text(f"{name} secret\n", encoding="utf-8")
    taken = f"http.port {in_site.port} on 127.0.0.1 is in use"
    elsewhere = "-> stop what listens there, or choose another http.port"

    async def doctor(*, store: str = "sqlite:///data/x.db", token: str = "token", fails: bool = False) -> str:
        """What it says of http."""
        in_site.write(store=store, more=f'token_file = "{token}"\n' if token else "")
        found = await examine_one("http", lambda: examine_http(load_settings()))
        assert found.ok is not fails, found
        return f"{found.text} -> {found.hint}" if fails else found.text

    assert "is free" in await doctor()
    service = await in_site.start("serve")
    await service.until("/healthz", lambda answer: answer.get("ok"))
    assert "is served already by the service of this store, asks for a token" in await doctor()
    another = f"{taken}, by a service over another store {elsewhere}"
    assert await doctor(store="sqlite:///data/new.db", fails=True) == another
    assert "whether it is that of this store nobody can tell: memory://" in await doctor(store="memory://")
    wants = await doctor(token="", fails=True)
    assert wants.startswith(f"{taken}, and the service at http://127.0.0.1:{in_site.port} wants a token")
    assert "HS_STREAM__HTTP__TOKEN_FILE; else stop what listens there" in wants
    assert "does not take the token of http.token_file" in await doctor(token="other", fails=True)
    service.process.send_signal(signal.SIGTERM)
    assert (await service.end())[0] == 0
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", in_site.port))
        other.listen()
        assert await doctor(fails=True) == f"{taken} {elsewhere}"
    assert "is free" in await doctor()


@pytest.mark.timeout(120)
async def test_mongodb_with_verify_beside_the_running_service(
    site: Any, broker: EmbeddedBroker, mongo_url: str
) -> None:
    site.write(broker.url, store=mongo_url)
    service = await site.start("serve")
    await service.until("/readyz", ready)
    base = time.time_ns() // 1_000_000 - 60_000
    async with client_of(broker) as client:
        for index in range(50):
            payload = json.dumps({"ts": base + index * 100, "temperature": float(index)})
            await client.publish(f"home/1/room{index % 3}/climate", payload, qos=1)
    await service.until("/api/streams?name=smooth", lambda answer: answer["total"] == 3)
    check = await site.start("verify", "comfort")
    out, errors = await check.process.communicate()
    assert check.process.returncode == 0, (out, errors)
    code, errors = await (await site.start("compute", "comfort", "--from", "-1h", "--to", "now")).end(30)
    assert code == 0, errors
    assert "What its inputs do not cover yet, the service computes when they do" in errors
    service.process.send_signal(signal.SIGTERM)
    code, errors = await service.end()
    assert code == 0, errors
    code, errors = await (await site.start("compute", "comfort", "--from", "-1h", "--to", "now")).end(30)
    assert code == 0, errors
    doctor = await site.start("doctor")
    out, _ = await doctor.process.communicate()
    assert doctor.process.returncode == 0, out
    assert b"ok   store's server: MongoDB 6" in out


@pytest.mark.timeout(120)
async def test_a_store_that_goes_away_is_waited_for_but_not_by_the_stop(site: Any, broker: EmbeddedBroker) -> None:
    if find_mongod() is None:
        pytest.skip("no mongod runs on this machine")
    mongod = EmbeddedMongod(site.directory / "mongod")
    await mongod.start()
    try:
        site.write(broker.url, store=mongod.database_url("x"))
        service = await site.start("serve")
        await service.until("/readyz", ready)
        await mongod.kill()
        base = time.time_ns() // 1_000_000 - 60_000
        async with client_of(broker) as client:
            payload = json.dumps({"ts": base, "temperature": 1.0})
            await client.publish("home/1/bath/climate", payload, qos=1)
        away = await service.until("/readyz", lambda answer: not answer["parts"]["store"]["ok"])
        assert away["parts"]["broker"]["ok"]
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        code, errors = await service.end()
        assert time.monotonic() - began < 10
        assert code in {0, 3}, errors
        await mongod.start()
        again = await site.start("serve")
        path = "/api/streams/smooth%5Bhouse=1,room=bath%5D/instances"
        found = await again.until(path, lambda answer: answer.get("instances"))
        assert [row["value"] for row in found["instances"]] == [1.0]
        again.process.send_signal(signal.SIGTERM)
        assert (await again.end())[0] == 0
    finally:
        await mongod.stop()
