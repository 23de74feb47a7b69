"""Codecs: from payloads to readings. ``codec("json", time={"field": "ts", "unit": "ms"})``.

================  =====================================================  =========================
name              payload                                                module
================  =====================================================  =========================
``json``          object, array of objects, or bare value                `codecs.objects`
``msgpack``       the same in MessagePack                                `codecs.objects`
``number``        ``21.43``                                              `codecs.bare`
``text``          UTF-8 text                                             `codecs.bare`
``zigbee2mqtt``   object of properties, ``last_seen``                    `codecs.zigbee2mqtt`
================  =====================================================  =========================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from hs_stream.core.errors import ConfigurationError
from hs_stream_connectors.codecs.bare import NumberCodec, TextCodec
from hs_stream_connectors.codecs.base import REASONS, BatchError, Codec, CodecOptions, Decoded, TimeSpec
from hs_stream_connectors.codecs.objects import JsonCodec, MsgpackCodec
from hs_stream_connectors.codecs.zigbee2mqtt import Zigbee2MqttCodec

__all__ = ["CODECS", "REASONS", "BatchError", "Codec", "CodecOptions", "Decoded", "TimeSpec", "codec"]

CODECS: Final[Mapping[str, Callable[[Mapping[str, Any]], Codec]]] = {
    "json": JsonCodec.make,
    "msgpack": MsgpackCodec.make,
    "number": NumberCodec.make,
    "text": TextCodec.make,
    "zigbee2mqtt": Zigbee2MqttCodec.make,
}


def codec(name: str, **options: Any) -> Codec:
    """The codec ``name`` with the options of a workflow file (``time fields earliest max_payload``).

    `ConfigurationError` for an unknown name or option.
    """
    try:
        make = CODECS[name]
    except KeyError:
        raise ConfigurationError(f"codec {name!r} is unknown", hint=f"write one of {', '.join(CODECS)}") from None
    return make(options)
