"""JSON and MessagePack: objects, batches of objects, and (with arrival time) bare values.

::

    codec: json                      # or msgpack: the same shapes
    time: {field: ts, unit: ms}      # {"ts": 1423072260000, "temperature": 21.4}; or an array of such objects
    fields: [temperature, humidity]  # optional; a path such as data.temperature goes into nested objects
    bind: {device: id}               # optional: a stream per content of `id`
    earliest: 2010-01-01T00:00:00Z   # optional; earlier times are a clock that was never set
    max_payload: 1048576             # optional, bytes

NaN and Infinity, which JSON does not have, are refused in both (``not_finite``; in JSON text they are ``json``), so
that whatever comes in can also go out as JSON. Integers beyond 64 bits are refused rather than rounded. MessagePack's
extension types are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import msgspec

from hs_stream.core.errors import PayloadError
from hs_stream_connectors.codecs.base import CodecOptions, Decoded, Placing

__all__ = ["JsonCodec", "MsgpackCodec", "load_json", "load_msgpack"]

_json = msgspec.json.Decoder()


def load_json(payload: bytes) -> Any:
    """The JSON value. `PayloadError`: ``json``, ``encoding``, ``not_finite``, ``depth``."""
    try:
        return _json.decode(payload)
    except UnicodeDecodeError as error:
        raise PayloadError("encoding", f"the payload is not UTF-8: {error}") from None
    except RecursionError:
        raise PayloadError("depth", "the payload is nested too deep") from None
    except msgspec.ValidationError:
        raise PayloadError("not_finite", "the payload holds a number that no float can hold") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise _json_error(payload, error) from None


def _json_error(payload: bytes, error: Exception) -> PayloadError:
    if not payload.strip():
        return PayloadError("json", "the payload is empty, which is how a retained message is taken away")
    try:
        payload.decode()
    except UnicodeDecodeError as bad:
        return PayloadError("encoding", f"the payload is not UTF-8: {bad}")
    return PayloadError("json", f"the payload is not JSON: {error}")


def load_msgpack(payload: bytes) -> Any:
    """The MessagePack value. `PayloadError`: ``msgpack``, ``encoding``, ``type``, ``not_finite``, ``depth``."""
    try:
        value = msgspec.msgpack.decode(payload)
        _check_plain(value)
    except UnicodeDecodeError as error:
        raise PayloadError("encoding", f"a text in the payload is not UTF-8: {error}") from None
    except RecursionError:
        raise PayloadError("depth", "the payload is nested too deep") from None
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise PayloadError("msgpack", f"the payload is not MessagePack: {error}") from None
    return value


def _check_plain(value: Any) -> None:
    kind = type(value)
    if kind is float:
        if not math.isfinite(value):
            raise PayloadError("not_finite", f"the payload holds {value}, which is not a finite number")
    elif kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise PayloadError("type", f"the key {repr(key)[:60]} of an object is not a text")
            _check_plain(item)
    elif kind is list:
        for item in value:
            _check_plain(item)
    elif kind is msgspec.msgpack.Ext or kind is datetime:
        raise PayloadError("type", "the payload holds an extension type; send times as numbers or ISO text")


@dataclass(frozen=True, slots=True)
class JsonCodec:
    """See the module."""

    options: CodecOptions
    name: str = "json"
    placing: Placing = Placing.CORRECT

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        return cls(CodecOptions.parse("json", options))

    @property
    def plates(self) -> tuple[str, ...]:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        return self.options.plates

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        options = self.options
        options.check(payload, retained)
        return options.readings(load_json(payload), arrival, retained)


@dataclass(frozen=True, slots=True)
class MsgpackCodec:
    """See the module."""

    options: CodecOptions
    name: str = "msgpack"
    placing: Placing = Placing.CORRECT

    @classmethod
    def make(cls, options: Mapping[str, Any]) -> Self:
        """From the options of a workflow file."""
        return cls(CodecOptions.parse("msgpack", options))

    @property
    def plates(self) -> tuple[str, ...]:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        return self.options.plates

    def decode(self, topic: str, payload: bytes, arrival: int, retained: bool) -> Decoded:
        """See `hs_stream_connectors.codecs.base.Codec`."""
        options = self.options
        options.check(payload, retained)
        return options.readings(load_msgpack(payload), arrival, retained)
