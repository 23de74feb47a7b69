"""Who may do what over HTTP: tokens, failed attempts, headers, request ids.

1. Without tokens everybody who reaches the service may do everything; settings see to it that only this machine does,
   and the request must name it (a web page may let its own name lead to 127.0.0.1). With one, every request needs a
   token, but for ``/healthz``. What is refused says nothing about the service, and costs next to nothing.
2. The read-only token may read. Everything that writes or computes needs the other one, also where it is a GET.
3. A token comes as ``Authorization: Bearer TOKEN``. A browser may send it as the password of Basic authentication, any
   user name; since browsers send that by themselves, for other sites too, it only reads.
4. Tokens are compared in constant time, and have at least `SHORTEST` characters (the log asks for `GOOD`). A right one
   is always taken, whatever else came from its address. After `MOST_FAILURES` wrong ones within `WINDOW` seconds the
   answer is 429, and the log says no more. The table of addresses is bounded. The address is that of the connection:
   what a client says of itself (``X-Forwarded-For``) counts for nothing.
5. A page of another site cannot write, compute or open a WebSocket with a browser's help: ``Origin`` must be this
   service or one of the settings. Its GETs only read.
6. A request that names a lease (`LEASE_HEADER`) is answered by the service that has it, or with 421: so a command that
   changes a store is never heard by the service of another one, whatever listens at its address.
7. A body is read up to `MOST_BODY` bytes.
8. Each request has an id, the client's ``X-Request-Id`` if it sent a good one; it is in the answer and in the log. The
   log never has tokens, headers or query strings.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hs_stream.core.errors import ConfigurationError, Unavailable
from hs_stream.service.http.gate import Gate
from hs_stream.service.json_values import dumps
from hs_stream.service.lease import LEASE_HEADER
from hs_stream.service.settings import TOKEN_VARIABLE, HttpSettings, read_secret

__all__ = [
    "GOOD",
    "MOST_BODY",
    "SHORTEST",
    "Access",
    "AccessMiddleware",
    "Attempts",
    "Tokens",
    "access_of",
    "read_tokens",
    "require_write",
]

logger = structlog.get_logger(__name__)
_standard = logging.getLogger(__name__)

Access = Literal["write", "read"]

MOST_BODY: Final = 8 << 20
MOST_FAILURES: Final = 10
WINDOW: Final = 60.0
_MOST_ADDRESSES: Final = 4096
_READING: Final = ("GET", "HEAD", "OPTIONS")
SHORTEST: Final = 4
GOOD: Final = 16
"""Characters of a token that is not guessed, whatever it is made of."""
_OPEN: Final = "/healthz"
_VIEWER: Final = "/_nicegui_ws/"
"""Where a WebSocket does not get through, the viewer's browser posts what is clicked. It only reads, whatever it is."""
_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    ),
)
_UNGATED: Final = ("/healthz", "/metrics")
_TLS_HEADERS: Final = ((b"strict-transport-security", b"max-age=31536000"),)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The secrets; empty ones are not there."""

    write: str = field(default="", repr=False)
    read: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.write or self.read)

    def access(self, given: str, *, basic: bool = False) -> Access | None:
        """What ``given`` allows."""
        # Both are compared whatever the first one says: how long it takes tells nothing.
        found: dict[Access, bool] = {
            "write": hmac.compare_digest(given.encode(), self.write.encode()),
            "read": hmac.compare_digest(given.encode(), self.read.encode()),
        }
        if not given:
            return None
        if found["write"]:
            return "read" if basic else "write"
        return "read" if found["read"] else None


def read_tokens(http: HttpSettings) -> Tokens:
    """Those in the files of the settings. `ConfigurationError` where one cannot be used."""
    return Tokens(_token(http.token_file, "http.token_file"), _token(http.read_token_file, "http.read_token_file"))


def _token(path: str, key: str) -> str:
    token = read_secret(path, key) if path else ""
    if token and len(token) < SHORTEST:
        raise ConfigurationError(
            f"{key}: the token in {path} has {len(token)} characters, which can be guessed",
            hint=f"write a long one into it: openssl rand -hex 32 > {path}",
        )
    if token and len(token) < GOOD:
        logger.warning("the token is short", setting=key, characters=len(token), hint=f"openssl rand -hex 32 > {path}")
    return token


class Attempts:
    """Failed attempts by address (rule 4). IPv6 addresses count by their network of 64 bits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Seconds until attempts from ``address`` are looked at again; 0 when they are."""
        began, count = self._failures.get(_network(address), (0.0, 0))
        return max(began + WINDOW - self._clock(), 0.0) if count >= MOST_FAILURES else 0.0

    def failed(self, address: str) -> int:
        """A wrong token came from ``address``; the how-manieth within the window."""
        now, network = self._clock(), _network(address)
        began, count = self._failures.pop(network, (now, 0))
        if now >= began + WINDOW:
            began, count = now, 0
        self._failures[network] = (began, count + 1)
        if len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
        return count + 1


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return address


def access_of(scope: Scope) -> Access:
    """What the request may do, as `AccessMiddleware` found out."""
    found: Access = scope.get("hs_access", "read")
    return found


def require_write(request: Request) -> None:
    """Refuse a request whose token may only read."""
    if access_of(request.scope) != "write":
        raise HTTPException(403, "this token may only read")


class AccessMiddleware:
    """The outermost part of the application, apart from CORS. See the module."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        gate: Gate,
        origins: Sequence[str] = (),
        *,
        tls: bool = False,
        lease: str = "",
    ) -> None:
        self._app = app
        self._gate = gate
        self._lease = lease.encode()
        self._tokens = tokens
        self._origins = frozenset(origins)
        self._names = frozenset(urlsplit(origin).hostname for origin in origins)
        self._attempts = Attempts()
        self._headers = (*_HEADERS, *_TLS_HEADERS) if tls else _HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if scope["type"] == "websocket":
            await self._websocket(scope, headers, receive, send)
            return
        identity = _request_id(headers)
        began = time.perf_counter()

        async def send_careful(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                ours = [header for header in self._headers if header[0] not in names]
                message["headers"] = [*given, *ours, (b"x-request-id", identity.encode())]
                if _standard.isEnabledFor(logging.DEBUG):
                    milliseconds = round((time.perf_counter() - began) * 1000, 1)
                    what = {"method": scope["method"], "path": scope["path"], "status": message["status"]}
                    logger.debug("request", **what, milliseconds=milliseconds)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=identity):
            refused = self._refused(scope, headers)
            if refused is not None:
                await refused(scope, receive, send_careful)
                return
            try:
                async with nullcontext() if scope["path"] in _UNGATED else self._gate.passing():
                    await self._app(scope, _bounded(receive), send_careful)
            except Unavailable as error:
                await _answer(503, error.message, error.hint, {"Retry-After": "5"})(scope, receive, send_careful)

    async def _websocket(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        access = self._access(scope, headers)
        if isinstance(access, Response) or not self._is_ours(headers) or self._is_elsewhere(scope, headers):
            await send({"type": "websocket.close", "code": 1008})
            return
        scope["hs_access"] = access
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> Response | None:
        wanted = headers.get(LEASE_HEADER.lower().encode(), self._lease)
        if not hmac.compare_digest(wanted, self._lease):
            return _answer(421, "this is the service of another store", "ask the one that has the store's lease")
        if scope["path"] == _OPEN and scope["method"] != "GET":
            if scope["method"] == "HEAD":
                return Response()
            return _answer(405, f"{scope['method']} is not possible here", "use GET", {"Allow": "GET, HEAD"})
        access = self._access(scope, headers)
        if isinstance(access, Response):
            return access
        if self._is_elsewhere(scope, headers):
            error = "this service does not answer to a name that anybody may give it"
            return _answer(403, error, "use its IP address or localhost, or set http.token_file")
        ours = self._is_ours(headers)
        scope["hs_access"] = access if ours else "read"
        if scope["method"] in _READING:
            return None
        if access != "write" and not scope["path"].startswith(_VIEWER):
            if not self._tokens.write:
                error = "this service has only a token that may read, so nobody changes anything"
                return _answer(403, error, "set http.token_file for the service, and start it again")
            hint = f"send the other one; hs-stream takes it from the file of http.token_file or {TOKEN_VARIABLE}"
            return _answer(403, "this token may only read", hint)
        if not ours:
            return _answer(403, "a page of another site cannot write here", "name its origin in http.cors_origins")
        return None

    def _access(self, scope: Scope, headers: dict[bytes, bytes]) -> Access | Response:
        if not self._tokens:
            return "write"
        if scope["path"] == _OPEN:
            return "read"
        scheme, _, rest = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        basic = scheme.lower() == "basic"
        given = _password(rest) if basic else rest.strip() if scheme.lower() == "bearer" else ""
        if not given:
            return _unauthorized()
        address = (scope.get("client") or ("", 0))[0]
        access = self._tokens.access(given, basic=basic)
        if access is None:
            if wait := self._attempts.wait(address):
                seconds = str(int(wait) + 1)
                return _answer(429, "too many failed attempts", "try again later", {"Retry-After": seconds})
            count = self._attempts.failed(address)
            if count in (1, MOST_FAILURES):
                logger.warning("a wrong token was sent", address=address, times=count)
            return _unauthorized()
        return access

    def _is_elsewhere(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Without tokens: whether the request was for a name that somebody else may let lead here."""
        return not self._tokens and scope["path"] != _OPEN and not _is_for_us(headers, self._names)

    def _is_ours(self, headers: dict[bytes, bytes]) -> bool:
        origin = headers.get(b"origin", b"").decode("latin-1")
        if not origin:
            return headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin")
        host = headers.get(b"host", b"").decode("latin-1")
        return origin in self._origins or urlsplit(origin).netloc == host


def _bounded(receive: Receive) -> Receive:
    """``receive``, which raises where the body goes on beyond `MOST_BODY`."""
    size = 0

    async def received() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MOST_BODY:
            raise HTTPException(413, f"a body has at most {MOST_BODY} bytes: send it in several pieces")
        return message

    return received


def _is_for_us(headers: dict[bytes, bytes], names: Collection[str | None]) -> bool:
    """Whether the request names this machine in a way that no name server decides, or by one of ``names``."""
    try:
        host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}").hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost") or host in names:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode("latin-1").partition(":")[2]
    except binascii.Error:
        return ""


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given) else secrets.token_hex(8)


def _unauthorized() -> Response:
    refused = _answer(
        401, "a token is needed", "send it as: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
    )
    refused.headers.append("WWW-Authenticate", 'Basic realm="hs-stream", charset="UTF-8"')
    return refused


def _answer(status: int, error: str, hint: str, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps({"error": error, "hint": hint}), status, headers, "application/json")
