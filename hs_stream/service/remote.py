"""A running service, asked over its HTTP API.

1. Which service has a store, the store says: who holds its lease, and the session of that service says its address.
2. Each request names the lease. What has another store, and listens at that address, answers 421 and does nothing.
3. The token and the certificate are those of the settings. No token goes to who has not the lease, but where nobody can
   look into the store (`service_at`).
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from hs_stream.core.errors import (
    ConfigurationError,
    HsStreamError,
    NotFound,
    StoreUnavailable,
    ToolError,
    Unavailable,
)
from hs_stream.service.host import reading_store
from hs_stream.service.lease import LEASE_HEADER, name_of, shown
from hs_stream.service.settings import TOKEN_VARIABLE, Settings, read_secret
from hs_stream.service.stores import has_store

__all__ = ["Refused", "Remote", "running_service", "service_at", "service_of"]

_LOOK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 30.0
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to, not to listen on


class Refused(ConfigurationError):
    """The service does not do what it is asked for; ``document`` is the whole of its answer."""

    def __init__(self, message: str, hint: str, status: int, document: dict[str, Any]) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.document = document


class Remote:
    """The service at ``url``. ``lease``: the one that it must have, or it does nothing."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None = None, lease: str = "") -> None:
        self.url = url
        self._token = token
        self._lease = lease
        # It is on this machine or in its network: no proxy of the environment leads there.
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
        self._opener = urllib.request.build_opener(*handlers)

    def ready(self) -> dict[str, Any]:
        """What ``/readyz`` says, whether or not it is ready. Raises as `ask` does."""
        answer = self.ask("GET", "/readyz", also=503)
        return answer if isinstance(answer, dict) else {}

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        timeout: float = _ANSWER_SECONDS,
        *,
        also: int = 200,
    ) -> Any:
        """The JSON of the answer. `NotFound`, `Refused`, `ToolError` or `Unavailable` with what the service says.

        ``also``: a status that is an answer too.
        """
        try:
            with self._open(method, path, body, {"Content-Type": kind} if kind else {}, timeout, also) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._silent(error) from None

    def events(self, path: str, body: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """Post ``body``, JSON, and give kind and data of each event of the answer as it comes. Raises as `ask`."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        kind = ""
        try:
            with self._open("POST", path, body, headers, _ANSWER_SECONDS) as answer:
                for line in answer:
                    key, _, text = line.decode().strip().partition(": ")
                    if key == "event":
                        kind = text
                    elif key == "data":
                        document = json.loads(text)
                        if kind == "error":
                            raise _error(int(document["status"]), document)
                        yield kind, document
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            raise self._silent(error) from None

    def _open(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float, also: int = 200
    ) -> Any:
        headers = dict(headers)
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if self._lease:
            headers[LEASE_HEADER] = self._lease
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310 - from below
        try:
            return self._opener.open(request, timeout=timeout)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read()
            if error.code == also:
                return io.BytesIO(said)
            raise self._said(error.code, said) from None

    def _silent(self, error: Exception) -> Unavailable:
        reason = getattr(error, "reason", error)
        return Unavailable(f"the service at {self.url} does not answer: {reason}", hint="see its log")

    def _said(self, status: int, body: bytes) -> HsStreamError:
        try:
            error = _error(status, json.loads(body))
        except (ValueError, KeyError, TypeError):
            return Unavailable(f"{self.url} answers {status}", hint="is that the service? See http.host and http.port")
        if status == 401:
            return self._unknown()
        if status == 403:
            return ConfigurationError(f"the service at {self.url} refuses: {error.message}", hint=error.hint)
        return error

    def _unknown(self) -> HsStreamError:
        if not self._token:
            return ConfigurationError(
                f"the service at {self.url} wants a token, and these settings have none",
                hint=f"name the file that holds it: http.token_file, or the environment variable {TOKEN_VARIABLE}",
            )
        return ConfigurationError(
            f"the service at {self.url} does not take the token of http.token_file",
            hint=f"name the file that this service has its token from: http.token_file, or {TOKEN_VARIABLE}",
        )


def _error(status: int, said: dict[str, Any]) -> HsStreamError:
    message, hint = str(said["error"]), str(said["hint"])
    if status == 404:
        return NotFound(message, hint=hint)
    if status == 500:
        return ToolError(message, hint=hint)
    return Refused(message, hint, status, said) if status < 500 else Unavailable(message, hint=hint)


def _trusting(cert_file: str) -> ssl.SSLContext:
    """Takes this very certificate, whatever name it is for, or one that it has signed."""
    try:
        context = ssl.create_default_context(cafile=cert_file)
    except OSError as error:
        raise ConfigurationError(
            f"http.cert_file {cert_file} cannot be used: {error.strerror or error}", hint="name a certificate in PEM"
        ) from None
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def service_at(settings: Settings) -> Remote | None:
    """What answers at http.host and http.port of the settings as a service does, whichever store it has.

    `ConfigurationError` when the file with the token, or the certificate, cannot be read. One of port 0 is not found.
    """
    url = _own_url(settings)
    return _answering(settings, url, "") if url else None


async def running_service(settings: Settings) -> Remote | None:
    """The service that uses the store of the settings, if one runs and answers. `ConfigurationError` as `service_at`.

    Where nobody can look into the store (memory://, or it is away) it is what answers at the address of the settings.
    """
    if settings.store.url.startswith("memory://"):
        return service_at(settings)
    if not has_store(settings):
        return None
    try:
        async with reading_store(settings) as store:
            sessions = await store.documents("sessions")
    except StoreUnavailable:
        return service_at(settings)
    # Who answers for the lease runs. What the session says is not so sure: between two generations it has stopped.
    newest = next((one for _, one in sorted(sessions.items(), reverse=True) if one.get("lease")), None)
    if newest is None:
        return None
    return _first(settings, [_own_url(settings), _reached(str(newest["url"]))], str(newest["lease"]))


async def service_of(settings: Settings, owner: str) -> Remote:
    """The service that writes to the store of the settings, where ``owner`` has its lease.

    `Unavailable` when it does not answer, and when what writes is no service, but a command or a notebook.
    """
    lease = name_of(owner)
    async with reading_store(settings) as store:
        sessions = sorted((await store.documents("sessions")).items(), reverse=True)
    url = next((str(one["url"]) for _, one in sessions if one.get("lease") == lease), "")
    if not url:
        raise Unavailable(
            f"another command or notebook is writing to this store: {shown(owner)}, or a service that starts",
            hint="wait until it ends; a service is asked by itself as soon as it has started",
        )
    host = owner.partition("/")[0]
    own = _own_url(settings)
    places = [_reached(url, host), own] if host == socket.gethostname() else [own, _reached(url, host)]
    found = _first(settings, places, lease)
    if found is None:
        tried = " or ".join(dict.fromkeys(filter(None, places)))
        raise Unavailable(
            f"a running service is using this store: {shown(owner)}, and does not answer at {tried}",
            hint=_unheard(settings, url),
        )
    return found


def _unheard(settings: Settings, url: str) -> str:
    if url.startswith("https:") and not settings.http.cert_file:
        return "it speaks TLS: name its certificate in http.cert_file, or HS_STREAM__HTTP__CERT_FILE"
    return "say where it does with http.host and http.port, or HS_STREAM__HTTP__HOST and HS_STREAM__HTTP__PORT"


def _own_url(settings: Settings) -> str:
    http = settings.http
    if not http.port:
        return ""
    scheme = "https" if http.cert_file else "http"
    return _reached(f"{scheme}://{f'[{http.host}]' if ':' in http.host else http.host}:{http.port}")


def _reached(url: str, host: str = "") -> str:
    """``url``, of what listens, as what to connect to: an address that means all of them is that of ``host``."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    if name in _EVERYWHERE:
        name = host if host and host != socket.gethostname() else _EVERYWHERE[name]
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{parts.port}"


def _first(settings: Settings, urls: Iterable[str], lease: str) -> Remote | None:
    return next((found for url in dict.fromkeys(urls) if url and (found := _answering(settings, url, lease))), None)


def _answering(settings: Settings, url: str, lease: str) -> Remote | None:
    """The service at ``url``, with the token of the settings. It says itself whether it has the ``lease``, if given."""
    http = settings.http
    context = _trusting(http.cert_file) if http.cert_file and url.startswith("https:") else None
    try:
        health = Remote(url, "", context, lease).ask("GET", "/healthz", timeout=_LOOK_SECONDS)
    except HsStreamError:
        return None
    # Where it wants a token it says no more than this to who has none.
    if not isinstance(health, dict) or health.get("ok") is not True:
        return None
    key = "token_file" if http.token_file else "read_token_file"
    path = getattr(http, key)
    return Remote(url, read_secret(path, f"http.{key}") if path else "", context, lease)
