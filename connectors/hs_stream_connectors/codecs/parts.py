"""What formats share in which a message holds some of many named values, mostly those that changed (Shelly, Sparkplug).

Merging such messages into an object would need a memory of what was said before, which is wrong after a restart, and
two messages of one time would replace one another. So nothing is merged: each named value is a stream of its own, or a
source chooses one of them. `PartOptions.parse` refuses everything else.

::

    bind: {metric: name}             # a plate with a value per name
    fields: [Temperature, Pressure]  # optional: only these

    fields: [Temperature]            # or one name alone: no plate, the bare value
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.stream import Meta
from hs_stream.core.value import Value
from hs_stream_connectors.codecs.base import CodecOptions, Time, no_time, to_value

__all__ = ["PartOptions", "must_identify"]


@dataclass(frozen=True, slots=True)
class PartOptions:
    """The options of such a codec. ``only`` are the chosen names, ``None`` for all."""

    options: CodecOptions
    only: frozenset[str] | None

    @classmethod
    def parse(
        cls, codec: str, options: Mapping[str, Any], words: Sequence[str], time: str, also: Sequence[str] = ()
    ) -> Self:
        """``words`` are what ``bind`` may name; ``time`` says where the time is; ``also`` are further options."""
        no_time(codec, options, time)
        parsed = CodecOptions.parse(codec, options, also)
        for plate, word in parsed.bind:
            if word not in words:
                raise ConfigurationError(
                    f"codec {codec}: bind: {plate}: {word!r} is unknown", hint=f"write one of {', '.join(words)}"
                )
        return cls(parsed, None if parsed.fields is None else frozenset(parsed.fields))

    @property
    def words(self) -> frozenset[str]:
        """What ``bind`` names."""
        return frozenset(word for _, word in self.options.bind)

    @property
    def single(self) -> str | None:
        """The one name that is chosen, if it is one."""
        fields = self.options.fields
        return fields[0] if fields is not None and len(fields) == 1 else None

    def reading(self, time: int, value: Any, words: Mapping[str, str]) -> tuple[Time, Value] | tuple[Time, Value, Meta]:
        """The reading of one named value."""
        if self.options.bind:
            return time, to_value(value), self.options.bound(words)
        return time, to_value(value)


def must_identify(codec: str, identified: bool, example: str) -> None:
    """`ConfigurationError` unless the options say which stream each value belongs to."""
    if not identified:
        raise ConfigurationError(
            f"codec {codec}: a message holds only what changed, so each value is a stream of its own", hint=example
        )
