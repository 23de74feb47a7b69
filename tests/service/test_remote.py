"""What a command makes of the answers of a service, over HTTP with a server that says what it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest

from hs_stream.cli import imports
from hs_stream.cli.work import compute_through
from hs_stream.core.errors import ConfigurationError, HsStreamError, NotFound, ToolError, Unavailable
from hs_stream.service.remote import Refused, Remote, _reached


class Scripted(BaseHTTPRequestHandler):
    """Answers with ``answers``, one after the other, and keeps what it was asked."""

    answers: ClassVar[list[tuple[int, bytes]]] = []
    asked: ClassVar[list[tuple[str, str, str | None, bytes]]] = []

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, self.headers.get("Hs-Stream-Lease"), body))
        status, answer = self.answers.pop(0)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - the base class names them

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Remote]:
    Scripted.answers, Scripted.asked = [], []
    with HTTPServer(("127.0.0.1", 0), Scripted) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Remote(f"http://127.0.0.1:{server.server_port}", "secret", lease="a1")
        server.shutdown()
        thread.join()


def said(error: str, hint: str = "", **more: Any) -> bytes:
    return json.dumps({"error": error, "hint": hint, **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, said("there is no x", "did you mean y?"), NotFound, "there is no x (did you mean y?)"),
        (403, said("no", "set it"), ConfigurationError, "refuses: no (set it)"),
        (401, said("a token is needed"), ConfigurationError, "does not take the token of http.token_file"),
        (421, said("this is the service of another store"), Refused, "another store"),
        (422, said("start: no time"), Refused, "start: no time"),
        (500, said("a tool failed"), ToolError, "a tool failed"),
        (503, said("loading", "again"), Unavailable, "loading (again)"),
        (502, b"<html>Bad Gateway</html>", Unavailable, "answers 502"),
        (400, b"[]", Unavailable, "answers 400"),
        (200, b"<html>hello</html>", Unavailable, "does not answer"),
    ],
)
def test_answers_become_errors(
    service: Remote, status: int, body: bytes, kind: type[HsStreamError], words: str
) -> None:
    Scripted.answers = [(status, body)]
    with pytest.raises(kind) as caught:
        service.ask("GET", "/api/x")
    assert words in str(caught.value)
    assert Scripted.asked == [("GET", "/api/x", "a1", b"")]


def test_what_is_refused_is_kept_whole(service: Remote) -> None:
    Scripted.answers = [(409, said("not confirmed", extent={"count": 2}))]
    with pytest.raises(Refused) as caught:
        service.ask("DELETE", "/api/streams?name=x")
    assert (caught.value.status, caught.value.document["extent"]) == (409, {"count": 2})


def test_a_computation_is_followed_to_its_end(service: Remote) -> None:
    progress = b'event: progress\ndata: {"done":1,"total":2}\n\n'
    done = b'event: done\ndata: {"streams":["x"],"done":2,"total":2,"incomplete":["x"]}\n\n'
    shown: list[tuple[int, int]] = []
    Scripted.answers = [(200, progress + done)]
    assert compute_through(service, ["x"], 1, 2, lambda *how_far: shown.append(how_far)) == ["x"]
    assert shown == [(1, 2), (2, 2)]
    assert json.loads(Scripted.asked[0][3]) == {"streams": ["x"], "start": "1", "end": "2"}
    failed = b'event: error\ndata: {"error":"it raised","hint":"","status":500}\n\n'
    for body, kind in ((failed, ToolError), (progress, Unavailable), (b"event: done\ndata: {\n\n", Unavailable)):
        Scripted.answers = [(200, body)]
        with pytest.raises(kind):
            compute_through(service, ["x"], 1, 2)


def test_a_piece_is_sent_again_while_the_service_cannot_take_it(
    service: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "_PAUSES", (0.0, 0.0))
    away = (503, said("the store is away"))
    Scripted.answers = [away, away, (200, b'{"taken":1,"refused":[]}')]
    assert imports._send(service, b"piece") == {"taken": 1, "refused": []}
    assert [body for *_, body in Scripted.asked] == [b"piece"] * 3
    Scripted.answers = [away, away, away]
    with pytest.raises(Unavailable, match="the store is away"):
        imports._send(service, b"piece")


def test_where_a_service_that_listens_everywhere_is_reached() -> None:
    assert _reached("http://0.0.0.0:8080") == "http://127.0.0.1:8080"
    assert _reached("https://[::]:8080", socket.gethostname()) == "https://[::1]:8080"
    assert _reached("http://0.0.0.0:8080", "attic") == "http://attic:8080"
    assert _reached("http://10.0.0.7:8080", "attic") == "http://10.0.0.7:8080"
