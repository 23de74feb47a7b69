"""Tokens, failed attempts, headers, request ids, CORS, TLS; over the real application."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from hs_stream.core.errors import ConfigurationError
from hs_stream.engine.engine import Engine
from hs_stream.service.app import Service
from hs_stream.service.http.api import create_api
from hs_stream.service.http.context import ApiContext
from hs_stream.service.http.gate import Gate
from hs_stream.service.http.security import (
    MOST_BODY,
    MOST_FAILURES,
    WINDOW,
    AccessMiddleware,
    Attempts,
    Tokens,
    access_of,
)
from hs_stream.service.http.server import check_certificate
from hs_stream.service.lease import LEASE_HEADER
from hs_stream.service.metrics import ServiceTelemetry
from hs_stream.service.settings_file import load_settings
from hs_stream.store.memory import MemoryStore
from hs_stream.testing.clock import VirtualClock
from tests.service.test_api import registry_once

WRITE, READ = "w" * 32, "r" * 32


@asynccontextmanager
async def served(tokens: Tokens, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    clock, store, telemetry = VirtualClock(1_800_000_000_000), MemoryStore(), ServiceTelemetry()
    engine = Engine(store, clock=clock, telemetry=telemetry)
    await engine.open([])

    async def ready() -> dict[str, Any]:
        return {"ready": True, "parts": {}}

    context = ApiContext(
        engine, store, clock, [], registry_once(), telemetry.exposition, ready, "1.2.3", tokens, **more
    )
    transport = httpx.ASGITransport(create_api(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(token: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()}


COMPUTE = {"streams": ["x"], "start": "-1h"}


@pytest.mark.parametrize("path", ["/", "/docs", "/metrics", "/readyz", "/openapi.json", "/api/streams", "/nowhere"])
async def test_without_a_token_every_answer_is_the_same(path: str) -> None:
    async with served(Tokens(WRITE, READ)) as client:
        for headers in ({}, bearer("wrong"), basic("wrong"), {"Authorization": "Basic ???"}, {"Authorization": WRITE}):
            answer = await client.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"] == "a token is needed"
            assert "1.2.3" not in answer.text + str(answer.headers)
        assert (await client.get("/healthz")).json() == {"ok": True}


async def test_the_read_only_token_reads() -> None:
    async with served(Tokens(WRITE, READ)) as client:
        for headers in (bearer(READ), bearer(WRITE), basic(READ), basic(WRITE)):
            assert (await client.get("/api/streams", headers=headers)).status_code == 200
        for headers in (bearer(READ), basic(READ), basic(WRITE)):
            assert (await client.post("/api/compute", headers=headers, json=COMPUTE)).status_code == 403
        assert (await client.post("/api/compute", headers=bearer(WRITE), json=COMPUTE)).status_code == 404


CHANGES = [
    ("POST", "/api/readings", {"streams": [{"stream": "x", "instances": [{"time": 1, "value": 1}]}], "new": True}),
    ("DELETE", "/api/streams?name=x&confirm=1", None),
    ("DELETE", "/api/streams/x/instances?confirm=1", None),
    ("POST", "/api/compute", COMPUTE),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_what_changes_something_needs_the_read_write_token(method: str, path: str, body: Any) -> None:
    async with served(Tokens(WRITE, READ)) as client:
        for headers, status in ((bearer(READ), 403), (basic(WRITE), 403), (bearer(WRITE), 404), ({}, 401)):
            answer = await client.request(method, path, headers=headers, json=body)
            assert answer.status_code == (200 if status == 404 and path == "/api/readings" else status), answer.text
        answer = await client.request(method, path, headers=bearer(READ), json=body)
        assert "HS_STREAM__HTTP__TOKEN_FILE" in answer.json()["hint"]
    # Without tokens, so only for this machine, nothing is done for a page of another site, or by a name server's name.
    async with served(Tokens()) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Host": "rebound.example"}):
            assert (await client.request(method, path, headers=headers, json=body)).status_code == 403


async def test_who_names_the_lease_of_another_store_is_not_heard() -> None:
    async with served(Tokens(WRITE), lease="a1") as client:
        path = "/api/streams?name=x&confirm=1"
        for lease, status in (("b2", 421), ("", 421), ("a1", 404)):
            headers = bearer(WRITE) | {LEASE_HEADER: lease}
            assert (await client.delete(path, headers=headers)).status_code == status
        # Before a token is looked at: none is sent to who is not the one.
        assert (await client.get("/healthz", headers={LEASE_HEADER: "b2"})).status_code == 421
        assert (await client.get("/healthz", headers={LEASE_HEADER: "a1"})).status_code == 200


async def test_a_body_is_read_up_to_its_bound() -> None:
    async with served(Tokens()) as client:

        async def body(size: int) -> AsyncIterator[bytes]:
            for _ in range(size // 65_536):
                yield b" " * 65_536

        headers = {"Content-Type": "application/json"}
        for size, status in ((MOST_BODY, 422), (MOST_BODY + 65_536, 413)):
            answer = await client.post("/api/readings", headers=headers, content=body(size))
            assert answer.status_code == status, answer.text


async def test_with_only_a_read_token_nobody_writes() -> None:
    async with served(Tokens(read=READ)) as client:
        refused = await client.delete("/api/streams?name=x", headers=bearer(READ))
        assert "set http.token_file for the service" in refused.json()["hint"]
        assert (await client.get("/api/streams", headers=bearer(READ))).status_code == 200
        assert (await client.post("/api/compute", headers=bearer(READ), json=COMPUTE)).status_code == 403
        assert (await client.get("/api/streams", headers=bearer(""))).status_code == 401


async def test_wrong_tokens_are_counted_and_missing_ones_are_not() -> None:
    async with served(Tokens(WRITE)) as client:
        for _ in range(MOST_FAILURES * 2):
            assert (await client.get("/api/streams")).status_code == 401
        with capture_logs() as logs:
            for _ in range(MOST_FAILURES):
                assert (await client.get("/api/streams", headers=bearer("secret-guess"))).status_code == 401
            refused = await client.get("/api/streams", headers=bearer("another-guess"))
            # What others tried from the same address locks nobody out.
            assert (await client.get("/api/streams", headers=bearer(WRITE))).status_code == 200
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= WINDOW + 1
        assert [log["times"] for log in logs if log["event"] == "a wrong token was sent"] == [1, MOST_FAILURES]
        assert "secret-guess" not in str(logs)
        assert WRITE not in str(logs)


def test_attempts_by_address() -> None:
    now = [1000.0]
    attempts = Attempts(lambda: now[0])
    for _ in range(MOST_FAILURES):
        assert attempts.wait("10.0.0.1") == 0
        attempts.failed("10.0.0.1")
    assert attempts.wait("10.0.0.1") == WINDOW
    assert attempts.wait("10.0.0.2") == 0
    now[0] += WINDOW
    assert attempts.wait("10.0.0.1") == 0
    assert attempts.failed("10.0.0.1") == 1
    for index in range(MOST_FAILURES):
        attempts.failed(f"2001:db8::{index:x}")
    assert attempts.wait("2001:db8::ffff") > 0
    assert attempts.wait("2001:db8:1::1") == 0
    for index in range(10_000):
        attempts.failed(f"h{index}")
    assert len(attempts._failures) <= 4096


def test_no_repr_shows_a_token() -> None:
    assert WRITE not in repr(Tokens(WRITE, READ))


async def test_requests_have_ids() -> None:
    async with served(Tokens()) as client:
        one, two = await client.get("/api/streams"), await client.get("/api/streams")
        assert one.headers["x-request-id"] != two.headers["x-request-id"]
        given = await client.get("/api/streams", headers={"X-Request-Id": "abc-1"})
        assert given.headers["x-request-id"] == "abc-1"
        for bad in ("a b", "x" * 65, "a\tb"):
            answer = await client.get("/api/streams", headers={"X-Request-Id": bad})
            assert answer.headers["x-request-id"] != bad


async def test_security_headers() -> None:
    async with served(Tokens(), tls=True) as client:
        headers = (await client.get("/api/streams")).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "max-age" in headers["strict-transport-security"]
    async with served(Tokens()) as client:
        assert "strict-transport-security" not in (await client.get("/api/streams")).headers


async def test_a_page_of_another_site_cannot_write() -> None:
    async with served(Tokens()) as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            assert (await client.post("/api/compute", headers=headers, json=COMPUTE)).status_code == 403
        assert (
            await client.post("/api/compute", headers={"Origin": "http://localhost"}, json=COMPUTE)
        ).status_code == 404
    async with served(Tokens(), origins=["https://dash.example"]) as client:
        headers = {"Origin": "https://dash.example"}
        assert (await client.post("/api/compute", headers=headers, json=COMPUTE)).status_code == 404


async def test_only_get_and_head_of_healthz_are_open() -> None:
    async with served(Tokens(WRITE)) as client:
        assert (await client.head("/healthz")).status_code == 200
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            answer = await client.request(method, "/healthz")
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
            assert answer.json()["hint"] == "use GET"


async def test_without_a_token_only_names_of_this_machine_are_answered() -> None:
    async with served(Tokens(), origins=["https://dash.example"]) as client:
        for host in ("localhost", "127.0.0.1:8080", "[::1]:8080", "home.localhost", "dash.example"):
            assert (await client.get("/api/streams", headers={"Host": host})).status_code == 200
        for host in ("evil.example", "127.0.0.1.evil.example", ""):
            for path in ("/api/streams", "/metrics", "/", "/api/deadletters"):
                answer = await client.get(path, headers={"Host": host})
                assert (answer.status_code, answer.json()["hint"]) == (
                    403,
                    "use its IP address or localhost, or set http.token_file",
                )
        assert (await client.get("/healthz", headers={"Host": "evil.example"})).status_code == 200
    async with served(Tokens(WRITE)) as client:
        headers = {"Host": "home.example", **bearer(WRITE)}
        assert (await client.get("/api/streams", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("host", "origin", "opens"),
    [
        ("localhost", "http://localhost", True),
        ("evil.example", "http://evil.example", False),
        ("localhost", "https://evil.example", False),
    ],
)
async def test_a_websocket_is_for_us_and_ours(host: str, origin: str, opens: bool) -> None:
    reached: list[str] = []

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        reached.append(scope["path"])

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    guard = AccessMiddleware(application, Tokens(), Gate())
    headers = [(b"host", host.encode()), (b"origin", origin.encode())]
    scope = {"type": "websocket", "path": "/_nicegui_ws/socket.io", "headers": headers, "client": ("127.0.0.1", 1)}
    await guard(scope, None, send)  # type: ignore[arg-type]
    assert (reached == ["/_nicegui_ws/socket.io"]) is opens
    assert (sent == []) is opens


async def test_a_page_of_another_site_computes_nothing_by_a_get() -> None:
    seen: list[str] = []

    async def application(scope: Any, _receive: Any, _send: Any) -> None:
        seen.append(access_of(scope))

    guarded = AccessMiddleware(application, Tokens(), Gate())
    for origin in ("http://localhost", "https://evil.example"):
        headers = [(b"host", b"localhost"), (b"origin", origin.encode())]
        scope = {"type": "http", "method": "GET", "path": "/api/x", "headers": headers, "client": ("127.0.0.1", 1)}
        await guarded(scope, None, None)  # type: ignore[arg-type]
    assert seen == ["write", "read"]


async def test_cors_is_off_until_an_origin_is_named() -> None:
    asked = {"Origin": "https://dash.example", "Access-Control-Request-Method": "GET"}
    async with served(Tokens(WRITE)) as client:
        answer = await client.options("/api/streams", headers=asked)
        assert answer.status_code == 401
        assert "access-control-allow-origin" not in answer.headers
    async with served(Tokens(WRITE), origins=["https://dash.example"]) as client:
        answer = await client.options("/api/streams", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://dash.example"
        refused = await client.get("/api/streams", headers={"Origin": "https://dash.example"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://dash.example"
        other = await client.get("/api/streams", headers={"Origin": "https://evil.example", **bearer(WRITE)})
        assert "access-control-allow-origin" not in other.headers


async def test_what_changes_seldom_is_asked_for_again_cheaply() -> None:
    async with served(Tokens()) as client:
        first = await client.get("/api/tools")
        assert first.headers["content-encoding"] == "gzip"
        tag = first.headers["etag"]
        again = await client.get("/api/tools", headers={"If-None-Match": f'"x", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert (await client.get("/api/tools", headers={"If-None-Match": '"x"'})).status_code == 200
        assert "etag" not in (await client.get("/api/streams")).headers


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try:
        subprocess.run(
            [*command, "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def test_a_certificate_is_looked_at_before_the_start(certificate: tuple[str, str], tmp_path: Path) -> None:
    check_certificate(*certificate)
    with pytest.raises(ConfigurationError, match=r"http\.cert_file"):
        check_certificate(certificate[1], certificate[1])
    with pytest.raises(ConfigurationError, match="No such file"):
        check_certificate(str(tmp_path / "none.pem"), certificate[1])


async def test_the_service_speaks_tls(site: Any, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    site.write(more=f'cert_file = "{cert}"\nkey_file = "{key}"\n')
    process = await site.start("serve")
    context = ssl.create_default_context(cafile=cert)
    async with httpx.AsyncClient(verify=context) as client:
        for _ in range(200):
            try:
                answer = await client.get(f"https://localhost:{site.port}/healthz")
                break
            except httpx.ConnectError:
                assert process.process.returncode is None
                await asyncio.sleep(0.05)
    assert answer.json()["ok"] is True
    process.process.terminate()
    code, words = await process.end()
    assert code == 0
    assert f"https://127.0.0.1:{site.port}" in words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('host = "0.0.0.0"', "lets other machines in"),
        ('cert_file = "x"', "cert_file and key_file"),
        ('cors_origins = ["*"]', "is no origin"),
        ('cors_origins = ["https://a.example/"]', "is no origin"),
        ("max_subscribers = 5000", "max_subscribers"),
    ],
)
def test_settings_that_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(f"[http]\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        load_settings(path)


def test_a_token_that_can_be_guessed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("x\n", encoding="utf-8")
    settings = load_settings(None, http={"token_file": "token"}, store={"url": "memory://"})
    with pytest.raises(ConfigurationError, match=r"http\.token_file: the token in token has 1 characters") as caught:
        Service(settings)
    assert caught.value.hint == "write a long one into it: openssl rand -hex 32 > token"


async def test_idle_sockets_keep_nobody_out(site: Any) -> None:
    """1,100 connections that never ask for anything, beyond uvicorn's own limit of 1,000."""
    site.write()
    process = await site.start("serve")
    async with httpx.AsyncClient() as client:
        for _ in range(400):
            with suppress(httpx.ConnectError):
                if (await client.get(f"http://127.0.0.1:{site.port}/healthz")).status_code == 200:
                    break
            await asyncio.sleep(0.05)
        idle = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(1100)]
        try:
            for _ in range(5):
                async with httpx.AsyncClient() as fresh:
                    assert (await fresh.get(f"http://127.0.0.1:{site.port}/api/streams")).status_code == 200
        finally:
            for one in idle:
                one.close()
    process.process.terminate()
    assert (await process.end())[0] == 0


def test_a_public_bind_may_have_either_token(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[http]\nhost = "0.0.0.0"\nread_token_file = "t"\n', encoding="utf-8")
    assert load_settings(path).http.read_token_file == "t"
