"""URLs with a user and a password in them: how they are taken apart, and how they are shown.

A password may hold any character, also those that end the host's part of a URL. Where it does and is not
percent-encoded, nobody can tell where it ends, and a parser takes a piece of it for a host or a port, which its message
then quotes. So what may be a piece of a password is hidden, and such a URL is refused without a word of it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["ENCODE", "check_login", "checked_url", "host_of", "redacted", "said_of"]

ENCODE: Final = "percent-encode special characters of user and password"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_AUTHORITY_END: Final = re.compile(r"[/?#]")
_PORT: Final = re.compile(r":(?!\d{1,5}(?:,|$))")
_SECRET_OPTION: Final = re.compile(r"([?&;][^=&;]*(?:password|token|secret|properties)[^=&;]*=)[^&;]*", re.IGNORECASE)


def redacted(url: str) -> str:
    """``url`` without its password, fit for a message or a log, whatever characters the password has.

    What is between the first ``:`` of the user and the last ``@`` of all is taken for the password; where there is no
    ``@``, all from a port that is no number.

    >>> redacted("mongodb://anna:secret@db/hs")
    'mongodb://anna:***@db/hs'
    >>> redacted("mqtt://anna:se/cr#et?@host")
    'mqtt://anna:***@host'
    >>> redacted("mqtt://anna:se/cret")
    'mqtt://anna:***'
    """
    scheme, secret, rest = _parts(url)
    if secret is None:
        return scheme + _SECRET_OPTION.sub(r"\1***", rest)
    user, colon, _ = secret.partition(":")
    shown = _SECRET_OPTION.sub(r"\1***", rest)
    return f"{scheme}{user}{':***' if colon else ''}{shown}"


def _parts(url: str) -> tuple[str, str | None, str]:
    """The scheme with ``://``, user and password where there may be some, and the rest with its ``@``."""
    match = _SCHEME.match(url)
    scheme = match.group() if match else ""
    after = url[len(scheme) :]
    login, at, rest = after.rpartition("@")
    if at:
        return scheme, login, at + rest
    if _PORT.search(re.sub(r"\[[^\]]*\]", "", _authority(after))):
        return scheme, after, ""
    return scheme, None, after


def said_of(url: str, said: object) -> str:
    """``": said"``, what a library says of ``url``; empty where it may quote a piece of the password."""
    text = str(said).replace(url, redacted(url))
    _, login, _ = _parts(url)
    if login is not None:
        password = login.partition(":")[2]
        pieces = {*re.split(r"[^\w.~-]", password), *re.split(r"\W", unquote(password))} - {""}
        if any(piece in text for piece in pieces):
            return ""
    return f": {text}" if text else ""


def checked_url(url: str) -> SplitResult:
    """``url`` taken apart. `ValueError`, which quotes nothing of the password, where it is no URL.

    A password that holds a ``/``, ``?`` or ``#`` is refused: a piece of it would be taken for the host.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError as error:
        raise ValueError(f"{redacted(url)!r} is no address{said_of(url, error)}") from None
    if parts.netloc.endswith(":"):
        raise ValueError(f"{redacted(url)!r} has no port after its colon")
    check_login(url)
    return parts


def check_login(url: str) -> None:
    """`ValueError` where an ``@`` stands after the host's part: what is before it may be a piece of a password."""
    after = url[len(_parts(url)[0]) :]
    if "@" in after[len(_authority(after)) :]:
        raise ValueError(f"{redacted(url)!r} has an @ after its host: write %40 there, or {ENCODE}")


def host_of(url: str) -> str:
    """The host, or hosts, with the port, fit for a message; ``?`` where there is none."""
    shown = redacted(url)
    return _authority(shown[len(_parts(shown)[0]) :].rpartition("@")[2]) or "?"


def _authority(after: str) -> str:
    """What is before the path, of a URL without its scheme."""
    return _AUTHORITY_END.split(after, maxsplit=1)[0]
