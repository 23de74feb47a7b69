"""A running service, asked over its HTTP API."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError, HsStreamError, NotFound, Unavailable
from hs_stream.service.settings import Settings, read_secret

__all__ = ["Remote", "running_service"]

_LOOK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 30.0
_VARIABLE: Final = "HS_STREAM__HTTP__TOKEN_FILE"
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to, not to listen on


class Remote:
    """The service at ``url``."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None = None) -> None:
        self.url = url
        self._token = token
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
        """The JSON of the answer. `NotFound`, `ConfigurationError` or `Unavailable` with what the service says.

        ``also``: a status that is an answer too.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if kind:
            headers["Content-Type"] = kind
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310 - from below
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = error.read()
            if error.code == also:
                with contextlib.suppress(ValueError):
                    return json.loads(said)
            raise self._refused() if error.code == 401 else _error(error.code, said) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"the service at {self.url} does not answer: {reason}", hint="see its log") from None

    def _refused(self) -> HsStreamError:
        if not self._token:
            return ConfigurationError(
                f"the service at {self.url} wants a token, and these settings have none",
                hint=f"name the file that holds it: http.token_file, or the environment variable {_VARIABLE}",
            )
        return ConfigurationError(
            f"the service at {self.url} does not take the token of http.token_file",
            hint=f"name the file that this service has its token from: http.token_file, or {_VARIABLE}",
        )


def _error(status: int, body: bytes) -> HsStreamError:
    try:
        said = json.loads(body)
        message, hint = str(said["error"]), str(said["hint"])
    except (ValueError, KeyError, TypeError):
        message, hint = f"the service answers {status}", "does something else listen on http.port?"
    if status == 404:
        return NotFound(message, hint=hint)
    kind = ConfigurationError if status < 500 else Unavailable
    return kind(message, hint=hint)


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


def running_service(settings: Settings) -> Remote | None:
    """The service of these settings, if it runs, to be asked with their token. One of port 0 is not found.

    `ConfigurationError` when the file with the token, or the certificate, cannot be read.
    """
    if not settings.http.port:
        return None
    host = _EVERYWHERE.get(settings.http.host, settings.http.host)
    context = _trusting(settings.http.cert_file) if settings.http.cert_file else None
    url = f"{'https' if context else 'http'}://{f'[{host}]' if ':' in host else host}:{settings.http.port}"
    try:
        health = Remote(url, "", context).ask("GET", "/healthz", timeout=_LOOK_SECONDS)
    except HsStreamError:
        return None
    # Where it wants a token it says no more than this to who has none.
    if not isinstance(health, dict) or health.get("ok") is not True:
        return None
    key = "token_file" if settings.http.token_file else "read_token_file"
    path = getattr(settings.http, key)
    return Remote(url, read_secret(path, f"http.{key}") if path else "", context)
