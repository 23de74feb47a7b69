"""Bare payloads: ``number`` (``21.43``, ``1e3``, ``-7``) and ``text`` (any UTF-8).

::

    codec: number                    # or text
    time: arrival                    # the only time there is, and the default
    max_payload: 1024                # optional, bytes

A number without point and exponent is an int, every other one a float; surrounding white space is allowed.
``nan``, ``inf`` and numbers beyond the range of a float are ``not_finite``. An empty text is a value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.core.value import Value
from hs_stream_connectors.codecs.base import CodecOptions, Decoded, Placing, to_value
from hs_stream_connectors.codecs.objects import load_json

__all__ = ["NumberCodec", "TextCodec", "guess", "to_number", "to_text"]

_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,19}")
_FLOAT: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_NOT_FINITE: Final = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_LONGEST: Final = 1_000


def _options(name: str, options: Mapping[str, Any]) -> CodecOptions:
    parsed = CodecOptions.parse(name, options)
    if parsed.time.field is not None or parsed.fields is not None or parsed.bind:
        raise ConfigurationError(
            f"codec {name}: a bare payload has no fields",
            hint="leave `time`, `fields` and `bind` out, or use codec: json",
        )
    return parsed


@dataclass(frozen=True, slots=True)
class NumberCodec:
    """See the module."""

    options: CodecOptions
    name: str = "number"
    plates: tuple[str, ...] = ()
    placing: Placing = Placing.CORRECT

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        return cls(_options("number", options))

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        self.options.check(payload, retained)
        number = to_number(payload)
        if number is None:
            other = ", but JSON: use codec: json" if payload.lstrip()[:1] in (b"{", b"[") else ""
            raise PayloadError("number", f"{_show(payload.strip())} is not a number{other}")
        return [(None, number)]


@dataclass(frozen=True, slots=True)
class TextCodec:
    """See the module."""

    options: CodecOptions
    name: str = "text"
    plates: tuple[str, ...] = ()
    placing: Placing = Placing.CORRECT

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        return cls(_options("text", options))

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        self.options.check(payload, retained)
        return [(None, to_text(payload))]


def to_number(payload: bytes) -> int | float | None:
    """The number that ``payload`` is, ``None`` for anything else. `PayloadError`: ``not_finite``, ``value``."""
    text = bytes(payload).strip()
    if _INTEGER.fullmatch(text):
        return int(to_value(int(text)))
    if len(text) <= _LONGEST and _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
        raise PayloadError("not_finite", f"{_show(text)} is beyond the range of a float")
    if _NOT_FINITE.fullmatch(text):
        raise PayloadError("not_finite", f"{_show(text)} is not a finite number")
    return None


def to_text(payload: bytes) -> str:
    """The text that ``payload`` is. `PayloadError` with ``encoding``."""
    try:
        return bytes(payload).decode()
    except UnicodeDecodeError as error:
        raise PayloadError("encoding", f"the payload is not UTF-8: {error}") from None


def guess(payload: bytes) -> Value:
    """A number where ``payload`` is one, the JSON where it begins like an object or array, else text.

    >>> guess(b" 21.5"), guess(b'{"event": "S"}'), guess(b"on")
    (21.5, {'event': 'S'}, 'on')
    """
    number = to_number(payload)
    if number is not None:
        return number
    if payload.lstrip()[:1] in (b"{", b"["):
        return to_value(load_json(payload))
    return to_text(payload)


def _show(text: bytes) -> str:
    return repr(text[:40].decode(errors="replace"))
