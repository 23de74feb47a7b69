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
from hs_stream_connectors.codecs.base import CodecOptions, Decoded, to_value

__all__ = ["NumberCodec", "TextCodec"]

_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,19}")
_FLOAT: Final = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_NOT_FINITE: Final = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_LONGEST: Final = 1_000


def _options(name: str, options: Mapping[str, Any]) -> CodecOptions:
    parsed = CodecOptions.parse(name, options)
    if parsed.time.field is not None or parsed.fields is not None:
        raise ConfigurationError(
            f"codec {name}: a bare payload has no fields", hint="leave `time` and `fields` out, or use codec: json"
        )
    return parsed


@dataclass(frozen=True, slots=True)
class NumberCodec:
    """See the module."""

    options: CodecOptions
    name: str = "number"

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        return cls(_options("number", options))

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        self.options.check(payload, retained)
        text = bytes(payload).strip()
        if _INTEGER.fullmatch(text):
            return [(arrival, to_value(int(text)))]
        if len(text) <= _LONGEST and _FLOAT.fullmatch(text):
            number = float(text)
            if math.isfinite(number):
                return [(arrival, number)]
            raise PayloadError("not_finite", f"{_show(text)} is beyond the range of a float")
        if _NOT_FINITE.fullmatch(text):
            raise PayloadError("not_finite", f"{_show(text)} is not a finite number")
        raise PayloadError("number", f"{_show(text)} is not a number")


@dataclass(frozen=True, slots=True)
class TextCodec:
    """See the module."""

    options: CodecOptions
    name: str = "text"

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        return cls(_options("text", options))

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        self.options.check(payload, retained)
        try:
            return [(arrival, payload.decode())]
        except UnicodeDecodeError as error:
            raise PayloadError("encoding", f"the payload is not UTF-8: {error}") from None


def _show(text: bytes) -> str:
    return repr(text[:40].decode(errors="replace"))
