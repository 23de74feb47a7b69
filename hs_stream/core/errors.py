"""The errors of hs_stream, named by who must act.

::

    HsStreamError
    |-- ConfigurationError   the author of a settings or workflow file (path, line, what to write instead)
    |   |-- UnknownToolError a tool or a version of it that no registry holds
    |   `-- MissingPackage   what is asked for needs a package that is not installed
    |-- ToolError            the author of a tool: it raised, or broke its contract
    |-- PayloadError         the device: never raised out of ingest, ends as a dead letter
    |-- Unavailable          retry later
    |   |-- StoreUnavailable
    |   |-- StoreReplaced    whoever restored a backup under a running service: it ends, and goes on from what is there
    |   |-- BrokerUnavailable
    |   `-- BackendUnavailable
    |-- Fenced               nobody: another process has taken the store over, so this one writes nothing more and ends
    |-- NotFound             who asked: no such stream, workflow or node
    `-- LawViolation         us, or a general tool: a split or incremental law does not hold
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hs_stream.core.visible import visible

__all__ = [
    "MOST_SAID",
    "BackendUnavailable",
    "BrokerUnavailable",
    "ConfigurationError",
    "Fenced",
    "HsStreamError",
    "LawViolation",
    "MissingPackage",
    "NotFound",
    "PayloadError",
    "StoreReplaced",
    "StoreUnavailable",
    "ToolError",
    "Unavailable",
    "UnknownToolError",
    "did_you_mean",
]


MOST_SAID: Final = 4000
"""Characters of what is said of a payload."""


class HsStreamError(Exception):
    """Root of every error that hs_stream raises on purpose.

    ``hint`` says what to do about it, in one sentence without a full stop.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(HsStreamError):
    """A settings file, a workflow file or a parameter is wrong. ``line`` counts from 1."""

    def __init__(self, message: str, *, hint: str = "", path: str = "", line: int | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.line = line

    @property
    def where(self) -> str:
        """``"path:line: "``; empty where neither is known."""
        where = self.path + (f":{self.line}" if self.line is not None else "")
        return f"{where}: " if where else ""

    def __str__(self) -> str:
        return self.where + super().__str__()


class UnknownToolError(ConfigurationError):
    """No tool of this name, or no version of it that the pin allows."""


class MissingPackage(ConfigurationError):
    """What is asked for needs a package that a plain installation does not bring; the hint says how to install it."""


class ToolError(HsStreamError):
    """A tool raised or broke its contract. ``stream`` is the text of the output's stream id."""

    def __init__(self, message: str, *, hint: str = "", stream: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stream = stream


class PayloadError(HsStreamError):
    """What a device sent cannot become a reading.

    ``reason`` is one of a small fixed set of words: it becomes a metric label. What the message quotes of the device is
    `hs_stream.core.visible`, and no longer than `MOST_SAID`.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "") -> None:
        super().__init__(visible(message, MOST_SAID), hint=visible(hint, MOST_SAID))
        self.reason = reason


class Unavailable(HsStreamError):
    """Something outside does not answer. The caller may try again."""


class StoreUnavailable(Unavailable):
    """The store does not answer, or refuses (disk full, no access)."""


class StoreReplaced(Unavailable):
    """The store holds less than this process has stored in it: it was restored or replaced meanwhile.

    Not repeated, as `StoreUnavailable` is: what this process knows of the store is not true any more.
    """

    def __init__(self, where: str, missing: str) -> None:
        super().__init__(
            f"{where} was replaced or restored from an older backup while this service was using it: {missing}",
            hint="what had been acknowledged since that backup is gone; this service ends here, and the next start "
            "goes on from what the store holds now: see 'Restore a backup' in docs/guides/operate.md",
        )


class BrokerUnavailable(Unavailable):
    """The MQTT broker does not answer, or refuses (password, client id, ACL)."""


class BackendUnavailable(Unavailable):
    """What a task comes to is not known, because who ran it does not answer any more. It can be run again."""


class Fenced(HsStreamError):
    """Another process has the right to write to the store by now. Nothing of this write was stored.

    Never repeated: what this process knows of the store may not be true any more.
    """

    def __init__(self, where: str, owner: str = "") -> None:
        super().__init__(
            f"{owner or 'another process'} has taken over {where}: this one writes nothing more",
            hint="it was frozen, suspended or cut off for too long, and ends here; what it had not acknowledged comes "
            "again, to the one that has the store now",
        )


class NotFound(HsStreamError):
    """What was asked for does not exist."""


class LawViolation(HsStreamError):
    """Two evaluations that must agree bit for bit differ."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint: the closest of ``known`` that is not ``word`` itself, else ``otherwise`` and all of them."""
    import difflib  # noqa: PLC0415 - only on the way to an error

    names = list(known)
    close = difflib.get_close_matches(word, [name for name in names if name != word], n=1)
    if close:
        return f"did you mean {close[0]}?"
    return f"{otherwise or 'there is'} {', '.join(names)}" if names else ""
