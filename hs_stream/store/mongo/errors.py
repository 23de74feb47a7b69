"""Which of MongoDB's errors mean that the store is away, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pymongo import errors

from hs_stream.core.errors import ConfigurationError, StoreUnavailable

__all__ = ["AWAY", "DUPLICATE", "duplicates", "too_large", "unavailable"]

DUPLICATE: Final = 11000

_AUTH: Final = (
    "check the user, the password and authSource in store.url, and the user's rights (readWrite on the database)"
)
_DISK: Final = "free some disk space on the database server"
AWAY: Final = "is mongod running and reachable? check store.url"
_HINTS: Final = {
    11: _AUTH, 13: _AUTH, 18: _AUTH, 33: _AUTH, 8000: _AUTH,
    14031: _DISK, 39: _DISK,
    72: "store.url asks for something that this server does not know; MongoDB 6 or newer is needed",
}  # fmt: skip
_TRANSIENT: Final = frozenset({
    6, 7, 24, 50, 64, 89, 91, 94, 133, 134, 189, 202, 262, 317, 365, 9001, 10058, 10107, 11600, 11602, 13435, 13436,
})  # fmt: skip
"""Host unreachable, time limits, starting, shutting down, stepping down, write concern not satisfied."""


_TOO_LARGE: Final = frozenset({10334, 17280, 17419, 17420})
"""Of the object, of a key, of the result of an update, of an upsert."""


def too_large(error: Exception) -> bool:
    """Whether a document did not fit. PyMongo finds most of them, the server the rest."""
    if isinstance(error, errors.DocumentTooLarge):
        return True
    if isinstance(error, errors.BulkWriteError):
        return any(item.get("code") in _TOO_LARGE for item in (error.details or {}).get("writeErrors", []))
    return isinstance(error, errors.OperationFailure) and error.code in _TOO_LARGE


def duplicates(error: errors.BulkWriteError) -> list[int] | None:
    """The positions of the documents that were there already, or ``None`` if anything else went wrong as well."""
    details = error.details or {}
    found = details.get("writeErrors", [])
    if details.get("writeConcernErrors") or any(item.get("code") != DUPLICATE for item in found):
        return None
    return [item["index"] for item in found]


@contextmanager
def unavailable(where: str) -> Iterator[None]:
    """Turns network, timeout, access and disk errors into `StoreUnavailable`; leaves our own mistakes alone.

    ``where`` names the server without a password.
    """
    try:
        yield
    except errors.BulkWriteError as error:
        details = error.details or {}
        found = [*details.get("writeErrors", []), *details.get("writeConcernErrors", [])]
        codes = {item.get("code", 0) for item in found} - {DUPLICATE}
        text = "; ".join(str(item.get("errmsg", "")) for item in found[:3])
        if codes and codes <= (_HINTS.keys() | _TRANSIENT):
            raise StoreUnavailable(f"MongoDB at {where}: {text}", hint=_HINTS.get(min(codes), AWAY)) from error
        raise
    except errors.OperationFailure as error:
        code = error.code or 0
        if code in _HINTS or code in _TRANSIENT or error.timeout or isinstance(error, errors.WriteConcernError):
            text = f"MongoDB at {where}: {_short(error)}"
            raise StoreUnavailable(text, hint=_HINTS.get(code, AWAY)) from error
        raise
    except errors.InvalidOperation as error:
        if "after close" not in str(error):
            raise
        raise StoreUnavailable(f"the store at {where} was closed meanwhile") from error
    except errors.InvalidURI as error:
        raise ConfigurationError(
            f"store.url for {where}: {_short(error)}", hint="see 'connection string' of MongoDB"
        ) from None
    except errors.ConfigurationError as error:
        raise ConfigurationError(
            f"store.url for {where}: {_short(error)}", hint="check the host name and the options"
        ) from error
    except (errors.ConnectionFailure, errors.WaitQueueTimeoutError) as error:
        raise StoreUnavailable(f"MongoDB at {where} does not answer: {_short(error)}", hint=AWAY) from error


def _short(error: Exception) -> str:
    text = str(error).partition(", Timeout: ")[0].partition(", full error:")[0].partition(" (configured timeouts:")[0]
    return text if len(text) <= 200 else text[:200] + "..."
