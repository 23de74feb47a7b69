"""Names of streams, and what was found when stored and new contents were compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hs_stream.core.batch import NOTHING, Batch, same_values
from hs_stream.core.value import same

__all__ = [
    "SUGGESTED",
    "Difference",
    "StreamId",
    "check_plate_value",
    "difference",
    "nearest_streams",
    "suggestion",
    "unpublishable",
]

Meta = tuple[tuple[str, str], ...]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_FORBIDDEN: Final = re.compile(r"[\[\],=+#\x00-\x1f\x7f]")
_BEYOND: Final = "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
_UNPUBLISHABLE: Final = re.compile(rf"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_BEYOND}]")
"""What MQTT forbids in a topic, or lets a broker close the connection for (MQTT 5, section 1.5.4)."""
_TEXT: Final = re.compile(r"([^\[\]]+)(?:\[(.*)\])?", re.DOTALL)
MAX_PLATE_VALUE: Final = 128
SUGGESTED: Final = 5
_COMPARED: Final = 100


def unpublishable(text: str) -> str:
    """The first character of ``text`` that no MQTT topic may hold; empty where there is none.

    Control characters, surrogates and the 66 code points that are no characters.
    """
    found = _UNPUBLISHABLE.search(text)
    return found.group() if found else ""


def check_plate_value(value: str) -> str:
    """``value`` itself, or ``ValueError`` with the reason why no plate takes it in.

    A stream that is stored may have more: older versions took what `unpublishable` finds, and it can be named still.
    """
    if found := unpublishable(_check_form(value)):
        raise ValueError(f"a plate value holds {found!r}, which MQTT forbids in a topic")
    return value


def _check_form(value: str) -> str:
    """What keeps the text of a stream unambiguous."""
    if not value or not value.strip():
        raise ValueError("a plate value is empty")
    if len(value) > MAX_PLATE_VALUE:
        raise ValueError(f"a plate value has {len(value)} characters; at most {MAX_PLATE_VALUE} are allowed")
    if found := _FORBIDDEN.search(value):
        raise ValueError(f"a plate value holds {found.group()!r}; [ ] , = + # and control characters are not allowed")
    return value


@dataclass(frozen=True, slots=True, order=True)
class StreamId:
    """``name`` and ``meta``, a sorted tuple of ``(plate, plate value)``.

    >>> str(StreamId.parse("smooth[room=kitchen,house=1]"))
    'smooth[house=1,room=kitchen]'
    """

    name: str
    meta: Meta = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "meta", tuple(sorted((str(key), str(value)) for key, value in self.meta)))

    @classmethod
    def make(cls, name: str, meta: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> StreamId:
        """From a mapping or pairs in any order. ``ValueError``: a bad name or plate value, a plate named twice."""
        pairs = tuple(meta.items() if isinstance(meta, Mapping) else meta)
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a stream name: use letters, digits, _ . and -, beginning with a letter")
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError(f"{name}: a plate is named twice in {pairs}")
        for _, value in pairs:
            _check_form(value)
        return cls(name, pairs)

    @classmethod
    def parse(cls, text: str) -> StreamId:
        """From ``name`` or ``name[house=1,room=kitchen]``. ``ValueError`` for anything else."""
        match = _TEXT.fullmatch(text.strip())
        if not match:
            raise ValueError(f"{text!r} is not a stream: write name or name[house=1,room=kitchen]")
        name, inside = match.group(1), match.group(2)
        pairs = []
        for part in (inside or "").split(","):
            key, equals, value = part.partition("=")
            if part and not equals:
                raise ValueError(f"{text!r} is not a stream: write name[house=1,room=kitchen]")
            if part:
                pairs.append((key.strip(), value))
        return cls.make(name, pairs)

    def value_of(self, plate: str) -> str | None:
        """The plate value on ``plate``, or ``None``."""
        return next((value for key, value in self.meta if key == plate), None)

    def __str__(self) -> str:
        inside = ",".join(f"{key}={value}" for key, value in self.meta)
        return f"{self.name}[{inside}]" if inside else self.name


def nearest_streams(wanted: StreamId, known: Iterable[StreamId], count: int) -> list[StreamId]:
    """Up to ``count`` of ``known``, the closest first: those of the name of ``wanted``, else of the closest name.

    At most 100 of a name are compared: whoever asks in vain costs little.
    """
    import difflib  # noqa: PLC0415 - only on the way to an error

    by_name: dict[str, list[StreamId]] = {}
    for stream in known:
        found = by_name.setdefault(stream.name, [])
        if len(found) < _COMPARED:
            found.append(stream)

    names = [wanted.name] if wanted.name in by_name else difflib.get_close_matches(wanted.name, by_name, n=1)
    if not names:
        return []
    texts = {str(stream): stream for stream in sorted(by_name[names[0]])}
    return [texts[text] for text in difflib.get_close_matches(str(wanted), texts, n=count, cutoff=0)]


def suggestion(wanted: StreamId, near: Sequence[StreamId]) -> str:
    """A hint for a stream that there is not, out of `nearest_streams`: at most five; "" where none is close."""
    if not near:
        return ""
    if near[0].name == wanted.name:
        plates = [name for name, _ in near[0].meta]
        unknown = [name for name, _ in wanted.meta if name not in plates]
        wrong = f"{', '.join(unknown)} is no plate of {wanted.name}; " if unknown else ""
        return f"{wrong}there is {', '.join(map(str, near[:SUGGESTED]))}"
    return f"did you mean {near[0]}?"


@dataclass(frozen=True, slots=True)
class Difference:
    """What turns old contents into new ones. All three are disjoint in time."""

    inserted: Batch
    revised: Batch
    retracted: list[int]

    def __bool__(self) -> bool:
        return bool(self.inserted) or bool(self.revised) or bool(self.retracted)

    def __len__(self) -> int:
        return len(self.inserted) + len(self.revised) + len(self.retracted)

    def times(self) -> list[int]:
        """Every time at which old and new differ, ascending."""
        return sorted([*self.inserted.times.tolist(), *self.revised.times.tolist(), *self.retracted])


def difference(old: Batch, new: Batch) -> Difference:
    """Compare contents over one and the same interval, bit for bit."""
    if not old:
        return Difference(new, NOTHING, [])
    if np.array_equal(old.times, new.times) and same_values(old.values, new.values):
        return Difference(NOTHING, NOTHING, [])
    before = dict(old)
    inserted, revised, kept = [], [], set()
    for time, value in new:
        if time not in before:
            inserted.append((time, value))
        else:
            kept.add(time)
            if not same(before[time], value):
                revised.append((time, value))
    return Difference(Batch.of(inserted), Batch.of(revised), [time for time in before if time not in kept])
