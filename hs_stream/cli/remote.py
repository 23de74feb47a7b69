"""A running service, asked over its HTTP API."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError, HsStreamError, NotFound, Unavailable
from hs_stream.service.settings import Settings, read_secret

__all__ = ["Remote", "running_service"]

_LOOK_SECONDS: Final = 2.0
_ANSWER_SECONDS: Final = 30.0
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to, not to listen on


class Remote:
    """The service at ``url``."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._token = token
        # It is on this machine or in its network: no proxy of the environment leads there.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "", timeout: float = _ANSWER_SECONDS
    ) -> Any:
        """The JSON of the answer. `NotFound`, `ConfigurationError` or `Unavailable` with what the service says."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if kind:
            headers["Content-Type"] = kind
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310 - http, from above
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                raise _error(error.code, error.read()) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"the service at {self.url} does not answer: {reason}", hint="see its log") from None


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


def running_service(settings: Settings) -> Remote | None:
    """The service of these settings, if it runs. A port that is chosen at its start (0) leads nowhere."""
    if not settings.http.port:
        return None
    host = _EVERYWHERE.get(settings.http.host, settings.http.host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{settings.http.port}"
    try:
        health = Remote(url, "").ask("GET", "/healthz", timeout=_LOOK_SECONDS)
    except HsStreamError:
        return None
    if not isinstance(health, dict) or "version" not in health:
        return None
    token = read_secret(settings.http.token_file, "http.token_file") if settings.http.token_file else ""
    return Remote(url, token)
