"""Whatever is asked, within and beside what /openapi.json says, the answer is never a failure of the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hs_stream.service.http.api import create_api
from hs_stream.service.http.server import HttpServer, bind
from tests.service.test_api import NOW, make_context

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Served:
    """The application on a real socket, in a loop of its own thread."""

    def __init__(self) -> None:
        self.url = ""
        self.openapi: dict[str, Any] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._server: HttpServer
        self._loop: asyncio.AbstractEventLoop
        self._thread.start()
        assert self._ready.wait(20)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with make_context() as api:
            for room in ("kitchen", "attic/lamp"):
                await api.deliver("climate", {"house": "1", "room": room}, [(NOW - 5000, {"t": 1.0})])
            app = create_api(api.context)
            self.openapi = app.openapi()
            listener = bind("127.0.0.1", 0)
            self._server = HttpServer(app, listener)
            self.url = f"http://127.0.0.1:{self._server.port}"
            running = asyncio.create_task(self._server.run())
            await self._server.wait_started()
            self._ready.set()
            await running
            listener.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(20)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_no_request_makes_the_service_fail(served: Served) -> None:
    schema = schemathesis.openapi.from_dict(served.openapi)
    paths = []
    for found in schema.get_all_operations():
        operation = found.ok()
        paths.append(operation.path)
        # Live events never end: see below.
        if not operation.path.endswith("/live"):
            _fuzz(operation, served.url)
    assert {"/api/streams/{stream}/instances", "/api/compute", "/api/readings", "/api/settled"} <= set(paths)
    assert "/api/streams/{stream}/live" in paths


def _fuzz(operation: Any, url: str) -> None:
    @EXAMPLES
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        answer = case.call(base_url=url, timeout=10)
        # 503 says that too much is asked at the same time, or that a part is away.
        assert answer.status_code < 500, f"{case.as_curl_command()}: {answer.text}"

    ask()


@EXAMPLES
@given(
    stream=st.one_of(st.sampled_from(["1", "smooth[house=1,room=kitchen]", "99", "x[", "²"]), st.text(max_size=20)),
    start=st.one_of(st.none(), st.sampled_from(["now", "-inf", "inf", "-1h", "9" * 19]), st.text(max_size=12)),
    last_id=st.one_of(st.sampled_from(["", "1", "a.1.b.1.1.1", "a.1.b.1.1.-1~"]), st.text(max_size=30)),
)
def test_no_live_request_makes_the_service_fail(stream: str, start: str | None, last_id: str) -> None:
    async def ask() -> int:
        async with make_context() as api:
            await api.deliver("climate", {"house": "1", "room": "kitchen"}, [(NOW - 5000, {"t": 1.0})])
            app = create_api(api.context)
            query = {"last_event_id": last_id} | ({} if start is None else {"from": start})
            status: list[int] = []
            ended = asyncio.Event()

            async def receive() -> dict[str, Any]:
                await ended.wait()
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None:
                if message["type"] == "http.response.start":
                    status.append(message["status"])
                elif b"event: ready" in message.get("body", b""):
                    ended.set()

            path = f"/api/streams/{stream}/live"
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": path,
                "raw_path": quote(path).encode(),
                "query_string": urlencode(query).encode(),
                "headers": [(b"host", b"127.0.0.1")],
                "server": ("api", 80),
                "client": ("127.0.0.1", 1),
            }
            async with asyncio.timeout(10):
                await app(scope, receive, send)
            return status[0]

    assert asyncio.run(ask()) in (200, 404, 422)
