"""The HTTP server inside of the service's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from hs_stream.core.errors import ConfigurationError, HsStreamError
from hs_stream.service.http.outgoing import SENDING, Backlog, Outgoing

__all__ = ["HttpServer", "bind", "check_certificate"]

_STOP_SECONDS: Final = 2
_REQUEST_SECONDS: Final = 10.0
_MOST_CONNECTIONS: Final = 900
"""Below the limit beyond which every request is refused."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. `ConfigurationError` when the port is taken or the address is not ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigurationError(
            f"http.host {host!r} cannot be resolved: {error.strerror}", hint='write host = "127.0.0.1"'
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"http.port {port} on {host} is in use", hint="stop what listens there, or choose another http.port"
            ) from None
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror}", hint="choose another http.host or http.port"
        ) from None
    listener.setblocking(False)
    return listener


def check_certificate(cert_file: str, key_file: str) -> None:
    """`ConfigurationError` when a server cannot use them."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password=lambda: "")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error)
        raise ConfigurationError(
            f"http.cert_file {cert_file} and http.key_file {key_file} cannot be used: {reason}",
            hint="name a certificate and its key in PEM files without a password",
        ) from None


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's."""
        yield


class _Impatient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """A connection on which no request has come `_REQUEST_SECONDS` after it was made is closed.

    Where there are more than `_MOST_CONNECTIONS`, so is the oldest of those without a request under way. Sockets cost
    nothing to whoever opens them, and must not keep others out. What it sends and nobody reads: `outgoing`.
    """

    backlog: Backlog

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.outgoing = Outgoing(self.backlog, transport)
        self.app_state: dict[str, Any] = {**self.app_state, "outgoing": self.outgoing}  # each scope has a copy
        self.made = self.loop.time()
        self.deadline = self.loop.call_later(_REQUEST_SECONDS, self._too_late)
        if len(self.connections) > _MOST_CONNECTIONS:
            idle = (one for one in self.connections if one.idle and not one.transport.is_closing())
            min(idle, key=lambda one: one.made, default=self).transport.abort()

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def _too_late(self) -> None:
        # A WebSocket has taken the transport over.
        if self.cycle is None and self.transport.get_protocol() is self:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.deadline.cancel()
        self.outgoing.resumed()
        super().connection_lost(error)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.outgoing.paused()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.outgoing.resumed()


class HttpServer:
    """Serves ``app`` on ``listener`` from `run` until `stop`. `run` may be called again when it has raised.

    ``sending``: how many bytes may be on their way to clients that do not read them.
    """

    def __init__(
        self, app: FastAPI, listener: socket.socket, cert_file: str = "", key_file: str = "", sending: int = SENDING
    ) -> None:
        self.backlog = Backlog(sending)
        self._listener = listener
        self._config: dict[str, Any] = {
            "app": app,
            "log_config": None,
            "access_log": False,
            "lifespan": "auto",
            "server_header": False,
            "http": type("_Connection", (_Impatient,), {"backlog": self.backlog}),
            # What a client says of its own address counts for nothing.
            "proxy_headers": False,
            "timeout_graceful_shutdown": _STOP_SECONDS,
            "timeout_keep_alive": 15,
            "limit_concurrency": 1000,
            "ssl_certfile": cert_file or None,
            "ssl_keyfile": key_file or None,
        }
        self._server = _Server(uvicorn.Config(**self._config))
        self._stopping = False

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    async def run(self) -> None:
        """Serve until `stop`; open requests get a moment to end. `HsStreamError` when it ends by itself."""
        if self._stopping:
            return
        server = self._server = _Server(uvicorn.Config(**self._config))
        try:
            # uvicorn closes what it is given.
            await server.serve(sockets=[self._listener.dup()])
        except SystemExit:
            pass  # uvicorn's word for a start that failed; its log says why
        except asyncio.CancelledError:
            # What the application began with the server has to end, or uvicorn logs that it was broken off.
            lifespan = getattr(server, "lifespan", None)
            if lifespan is not None and not lifespan.shutdown_event.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_STOP_SECONDS):
                        await lifespan.shutdown()
            raise
        if not self._stopping:
            raise HsStreamError("the HTTP server ended by itself", hint="see the log")

    async def wait_started(self) -> None:
        """Return when requests are answered."""
        while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Take no more requests. `run` returns soon after."""
        self._stopping = self._server.should_exit = True
