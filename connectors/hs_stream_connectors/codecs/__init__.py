"""Codecs: from payloads to readings. ``codec("json", time={"field": "ts", "unit": "ms"})``.

===============  =========================================================  =============================
name             payload                                                    module
===============  =========================================================  =============================
``json``         object, array of objects, or bare value                    `codecs.objects`
``msgpack``      the same in MessagePack                                    `codecs.objects`
``number``       ``21.43``                                                  `codecs.bare`
``text``         UTF-8 text                                                 `codecs.bare`
``zigbee2mqtt``  object of properties, ``last_seen``                        `codecs.zigbee2mqtt`
``tasmota``      nested object with local ``Time``; ``ON``                  `codecs.tasmota`
``shelly``       JSON-RPC notification of what changed, ``params.ts``       `codecs.shelly`
``shelly1``      a bare value per topic (first generation)                  `codecs.states`
``esphome``      a bare value per topic                                     `codecs.states`
``statestream``  a bare value or JSON per topic (Home Assistant)            `codecs.states`
``sparkplug``    protobuf with aliases, a time per metric                   `codecs.sparkplug`
``sphere``       ``{"uid", "bt", "e": [{"n", "v"}]}``                       `codecs.sphere`
===============  =========================================================  =============================
"""

from __future__ import annotations

from typing import Any, Final

from hs_stream.core.errors import ConfigurationError
from hs_stream.entry_points import CODECS
from hs_stream_connectors.codecs.base import (
    DEFAULT_MAX_PAYLOAD,
    REASONS,
    BatchError,
    Codec,
    CodecOptions,
    Decoded,
    TimeSpec,
)

__all__ = [
    "OPTIONS",
    "REASONS",
    "BatchError",
    "Codec",
    "CodecOptions",
    "Decoded",
    "TimeSpec",
    "codec",
    "fields_of",
    "is_ours",
    "max_payload_of",
]

OPTIONS: Final = ("time", "fields", "bind", "earliest", "max_payload", "base", "zone", "scope", "rebirth")
"""Every option that some codec has."""


def codec(name: str, **options: Any) -> Codec:
    """The codec ``name`` with the options of a workflow file (`OPTIONS`, of which each codec takes its own).

    `ConfigurationError` for an unknown name or option.
    """
    if name not in CODECS.table():
        raise ConfigurationError(f"codec {name!r} is unknown", hint=f"write one of {', '.join(CODECS.names())}")
    made: Codec = CODECS.make(name, options)
    return made


def is_ours(name: str) -> bool:
    """Whether the codec ``name`` has no options but those of `OPTIONS`."""
    return CODECS.is_own(name)


def fields_of(made: Codec) -> tuple[str, ...]:
    """The ``fields`` that a workflow file chooses; none where all are taken, or the codec has no such option."""
    options = _options_of(made)
    return () if options is None else options.fields or ()


def max_payload_of(made: Codec) -> int:
    """How many bytes a payload may have."""
    options = _options_of(made)
    return DEFAULT_MAX_PAYLOAD if options is None else options.max_payload


def _options_of(made: Codec) -> CodecOptions | None:
    options = getattr(getattr(made, "parts", made), "options", None)
    return options if isinstance(options, CodecOptions) else None
