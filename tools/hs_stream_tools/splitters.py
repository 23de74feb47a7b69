"""Tools that divide a stream over a plate: one output stream for each plate value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.time import TimeInterval, parse_time, to_ms
from hs_stream.core.tool import SKIP, Pointwise, Previous, SplitTool, Support
from hs_stream.core.value import Value
from hs_stream_tools._values import describe, wrong

__all__ = [
    "AssetSplitter",
    "Splitter",
    "SplitterFromStream",
    "SplitterOfDict",
    "SplitterOfList",
    "SplitterTimeAware",
    "SplitterTimeAwareFromStream",
    "SplitterWithUnlist",
    "StreamBroadcaster",
    "StreamBroadcasterFromStream",
]


def as_text(tool: str, value: Value, *where: str | int) -> str | None:
    """The plate value that ``value`` names; ``None`` where it is missing. ``TypeError`` for what names none.

    ``where`` it is, for the message: names of fields and indices of lists, the outer ones first.
    """
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value)
    if value is None or value != value:
        return None
    raise wrong(tool, "texts, whole numbers or booleans, which name plate values", value, _told(where))


def _told(where: Sequence[str | int]) -> str:
    return "".join(f" in {place!r}" if isinstance(place, str) else f" at index {place}" for place in where)


def check_mapping(mapping: Mapping[str, Any] | None) -> None:
    """``ValueError`` unless all keys and values are texts."""
    if mapping is not None and not (
        isinstance(mapping, Mapping) and all(isinstance(text, str) for pair in mapping.items() for text in pair)
    ):
        raise ValueError(f"mapping must give a plate value for each text, such as {{K: kitchen}}, not {mapping!r}")


def fields_of(tool: str, value: Value, *where: str | int) -> dict[str, Value]:
    """``value``, which must be an object; a missing one has no fields. ``TypeError`` for anything else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(tool, "objects", value, _told(where))
    return value


class _PairTool(SplitTool):
    """A second input says, by its last instance at or before t, how the first one is divided."""

    arity = 2

    def support(self, slot: int) -> Support:
        """The data at t, and the last instance of the other input."""
        return Pointwise() if slot == 0 else Previous(1)

    def divided(self, time: int, value: Value, by: Value) -> Value:
        """What of ``value`` belongs to ``self.plate_value`` when ``by`` holds, or `SKIP`."""
        raise TypeError(f"{type(self).__name__} does not define divided")

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """`divided` at each instance of the first input at or after one of the second."""
        data, by = sources[0].slice(interval.start, interval.end), sources[1]
        if not data or not by:
            return NOTHING
        which = (by.times.searchsorted(data.times, "right") - 1).tolist()
        known = list(by)
        times, values = [], []
        for (time, value), index in zip(data, which, strict=True):
            result = SKIP if index < 0 else self.divided(time, value, known[index][1])
            if result is not SKIP:
                times.append(time)
                values.append(result)
        return Batch.build(times, values)


@dataclass(frozen=True, kw_only=True)
class Splitter(SplitTool):
    """Objects to the plate value that one of their fields names, without that field.

    ``element``: the field; a text, a whole number or a boolean (``true``, ``false``). ``mapping``: the plate value for
    each text of the field; without it the text is the plate value. Objects without the field, and texts that the
    mapping does not have, go nowhere. ``TypeError`` for what is no object, and for a field that holds something else.

    >>> kitchen = Splitter(element="room").bound_to({"room": "kitchen"}, "room")
    >>> kitchen.part(0, {"room": "kitchen", "t": 21.5}), kitchen.part(0, {"room": "hall", "t": 18.0})
    ({'t': 21.5}, SKIP)
    """

    name = "splitter"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "examples"
    samples = ({"element": "a"}, {"element": "temperature", "mapping": {"1": "a", "x": "b"}})
    plate_values = ("a", "b", "1")
    element: str
    mapping: Any = None

    def __post_init__(self) -> None:
        check_mapping(self.mapping)

    def keys_named(self) -> tuple[str, ...]:
        """``element``."""
        return (self.element,)

    def keys_made(self, keys: frozenset[str] | None) -> frozenset[str] | None:
        """All others."""
        return None if keys is None else keys - {self.element}

    def part(self, time: int, value: Value) -> Value:
        """The other fields."""
        return part_of(self.name, value, self.element, self.mapping, self.plate_value)

    def examples(self, slot: int) -> Sequence[Value]:
        """Objects that go to each plate value, and nowhere."""
        return _named(self.element, self.mapping or _SOME)


_SOME: Final = {name: name for name in ("a", "b", "1")}


def _named(element: str, names: Iterable[str]) -> list[Value]:
    """Objects that name ``names`` in their field ``element``, and objects that do not."""
    other = "q" if element != "q" else "p"
    rows: list[dict[str, Value]] = [{element: name, other: float(at)} for at, name in enumerate(names)]
    return [*rows, {element: 1, other: "text"}, {element: None}, {element: "nowhere", other: 1}, {other: True}, {}]


def part_of(
    tool: str, value: Value, element: str, mapping: Mapping[str, str] | None, plate_value: str, *where: str | int
) -> Value:
    """``value`` without ``element`` if that names ``plate_value``, else `SKIP`. ``where`` it is, for messages."""
    fields = fields_of(tool, value, *where)
    text = as_text(tool, fields.get(element), *where, element)
    if text is None or (text if mapping is None else mapping.get(text)) != plate_value:
        return SKIP
    return {key: held for key, held in fields.items() if key != element}


@dataclass(frozen=True, kw_only=True)
class SplitterFromStream(_PairTool):
    """Objects to the plate value that one of their fields names, by a mapping that is a stream.

    Two inputs: the objects, and the mapping (an object, text to plate value). At each object the last mapping at or
    before its time holds; before the first one there is no output. Otherwise as ``splitter``. ``TypeError`` for a
    mapping that is no object, or that gives something else than plate values.

    >>> tool = SplitterFromStream(element="id").bound_to({"room": "hall"}, "room")
    >>> tool.divided(0, {"id": "s1", "t": 18.0}, {"s1": "hall", "s2": "bath"})
    {'t': 18.0}
    """

    name = "splitter_from_stream"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = "examples"
    samples = ({"element": "a"},)
    element: str

    def divided(self, time: int, value: Value, by: Value) -> Value:
        """The other fields."""
        fields = fields_of(self.name, by, "the mapping")
        mapping = {
            key: text
            for key, held in fields.items()
            if (text := as_text(self.name, held, "the mapping", key)) is not None
        }
        return part_of(self.name, value, self.element, mapping, self.plate_value)

    def examples(self, slot: int) -> Sequence[Value]:
        """Objects, and mappings from what they name."""
        if slot == 0:
            return _named(self.element, _SOME)
        return [_SOME, {"a": "b", "b": "a", "1": 1}, {"a": None, "b": True}, {}]


@dataclass(frozen=True, kw_only=True)
class SplitterOfDict(SplitTool):
    """Each field of an object to the plate value of its name.

    ``mapping``: the plate value for each field that is wanted; without it the field's name is the plate value.
    ``TypeError`` for what is no object.

    >>> SplitterOfDict().bound_to({"city": "Ghent"}, "city").part(0, {"Ghent": 9.5, "Bristol": 10.0})
    9.5
    """

    name = "splitter_of_dict"
    version = "1.0.0"
    takes = "object"
    samples = ({}, {"mapping": {"temperature": "a", "b": "b"}})
    plate_values = ("a", "b", "temperature")
    mapping: Any = None

    def __post_init__(self) -> None:
        check_mapping(self.mapping)
        if self.mapping is not None and len(set(self.mapping.values())) < len(self.mapping):
            raise ValueError("mapping gives two fields one plate value, so one of them would be lost at each time")

    def keys_named(self) -> tuple[str, ...]:
        """Those in ``mapping``."""
        return () if self.mapping is None else tuple(self.mapping)

    def part(self, time: int, value: Value) -> Value:
        """The field's value."""
        fields = fields_of(self.name, value)
        if self.mapping is None:
            return fields.get(self.plate_value, SKIP)
        found = next((key for key, target in self.mapping.items() if target == self.plate_value), None)
        return SKIP if found is None else fields.get(found, SKIP)


@dataclass(frozen=True, kw_only=True)
class SplitterOfList(SplitTool):
    """Each element of a list to the plate value of its place.

    ``mapping``: the plate values in the order of the elements. Shorter lists leave the last ones without output, what
    is beyond the mapping goes nowhere. ``TypeError`` for what is no list.

    >>> SplitterOfList(mapping=("x", "y")).bound_to({"axis": "y"}, "axis").part(0, [1.0, 2.0])
    2.0
    """

    name = "splitter_of_list"
    version = "1.0.0"
    takes = "[number]"
    samples = ({"mapping": ["a", "b", "1"]},)
    mapping: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.mapping)) < len(self.mapping):
            raise ValueError("mapping names a plate value twice")

    def part(self, time: int, value: Value) -> Value:
        """The element."""
        if value is None:
            return SKIP
        if not isinstance(value, list):
            raise wrong(self.name, "lists", value)
        index = self.mapping.index(self.plate_value) if self.plate_value in self.mapping else len(value)
        return value[index] if index < len(value) else SKIP


@dataclass(frozen=True, kw_only=True)
class SplitterWithUnlist(SplitTool):
    """Objects in a list inside of an object, each to the plate value that one of its fields names.

    ``element``: the field that holds the list. ``subelement``: the field of each object in it that names the plate
    value, by ``mapping`` where that is given. Output: the object without ``subelement``, with the outer object's other
    fields, which win. Of several objects for one plate value at one time the last one stays. No output where the list
    is missing; what is missing in it is passed over. ``TypeError`` for what is no object, for a field ``element`` that
    holds anything else than a list of objects, and for a ``subelement`` that names no plate value.

    >>> tool = SplitterWithUnlist(element="e", subelement="n").bound_to({"sensor": "co2"}, "sensor")
    >>> tool.part(0, {"uid": "7", "e": [{"n": "co2", "v": 512}, {"n": "light", "v": 3}]})
    {'v': 512, 'uid': '7'}
    """

    name = "splitter_with_unlist"
    version = "1.0.0"
    takes = "examples"
    samples = ({"element": "a", "subelement": "b"}, {"element": "x", "subelement": "a", "mapping": {"1": "b"}})
    element: str
    subelement: str
    mapping: Any = None

    def __post_init__(self) -> None:
        check_mapping(self.mapping)

    def part(self, time: int, value: Value) -> Value:
        """The last object for this plate value."""
        fields = fields_of(self.name, value)
        result: Value = SKIP
        inner = fields.get(self.element)
        if inner is not None and not isinstance(inner, list):
            raise wrong(self.name, "lists of objects", inner, _told([self.element]))
        for index, one in enumerate(inner or ()):
            found = part_of(self.name, one, self.subelement, self.mapping, self.plate_value, self.element, index)
            if found is not SKIP:
                result = found | {key: held for key, held in fields.items() if key != self.element}
        return result

    def examples(self, slot: int) -> Sequence[Value]:
        """Lists for several plate values, some of them twice, and what is not there."""
        rows = _named(self.subelement, self.mapping or _SOME)
        return [
            {self.element: rows, "uid": "7"},
            {self.element: rows[1:4]},
            {self.element: [*rows[:2], None, *rows[:1]], "q": "outer"},
            *({self.element: [row], "uid": 7} for row in rows),
            {self.element: []},
            {self.element: None},
            {"uid": "7"},
        ]


def _bounds(tool: str, value: Value) -> tuple[int, int]:
    """``(start, end]`` in ms of a time interval, or of a list or object of two times."""
    if isinstance(value, TimeInterval):
        return value.start, value.end
    ends = [value.get("start"), value.get("end")] if isinstance(value, dict) else value
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        raise wrong(tool, "time intervals, such as [2026-01-01T00:00:00Z, 2026-02-01T00:00:00Z]", value)
    try:
        start, end = (parse_time(one, now=0) if isinstance(one, str) else to_ms(one) for one in ends)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{tool} needs time intervals, but got {describe(value)}: {error}") from None
    if start >= end:
        raise ValueError(f"{tool}: the interval {describe(value)} is empty")
    return start, end


@dataclass(frozen=True, kw_only=True)
class SplitterTimeAware(SplitTool):
    """Instances to the plate values whose time intervals hold their time.

    ``time_intervals``: ``(start, end]`` for each plate value, as two times (ISO 8601 with a zone, or milliseconds since
    the epoch). Intervals may overlap: an instance goes to each plate value that has it.

    >>> visits = {"one": ["1970-01-01T00:00:00Z", "1970-01-01T00:00:10Z"]}
    >>> tool = SplitterTimeAware(time_intervals=visits).bound_to({"visit": "one"}, "visit")
    >>> tool.part(0, "before"), tool.part(10_000, "the last")
    (SKIP, 'the last')
    """

    name = "splitter_time_aware"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    samples = ({"time_intervals": {"a": [0, 60_000], "b": ["2015-02-04T17:00:00Z", "2015-10-25T01:30:00Z"]}},)
    time_intervals: Any

    def __post_init__(self) -> None:
        if not isinstance(self.time_intervals, Mapping) or not self.time_intervals:
            raise ValueError("time_intervals must give an interval for each plate value: {visit1: [START, END]}")
        for value in self.time_intervals.values():
            _bounds(self.name, value)

    def part(self, time: int, value: Value) -> Value:
        """The instance itself."""
        interval = self.time_intervals.get(self.plate_value)
        if interval is None:
            return SKIP
        start, end = _bounds(self.name, interval)
        return value if start < time <= end else SKIP


@dataclass(frozen=True, kw_only=True)
class SplitterTimeAwareFromStream(_PairTool):
    """Instances to the plate values whose time intervals hold their time; the intervals are a stream.

    Two inputs: the instances, and an object that gives an interval ``(start, end]`` for each plate value (a time
    interval, or two times). At each instance the last object at or before its time holds; before the first one there is
    no output. Otherwise as ``splitter_time_aware``. ``TypeError`` for what is no object of intervals.

    >>> tool = SplitterTimeAwareFromStream().bound_to({"visit": "one"}, "visit")
    >>> tool.divided(10, 21.5, {"one": TimeInterval(0, 10)}), tool.divided(11, 21.5, {"one": TimeInterval(0, 10)})
    (21.5, SKIP)
    """

    name = "splitter_time_aware_from_stream"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = ("any", "{interval}")
    samples = ({},)

    def divided(self, time: int, value: Value, by: Value) -> Value:
        """The instance itself."""
        if by is None:
            return SKIP
        if not isinstance(by, dict):
            wanted = f"objects that give each plate value its interval, such as {{{self.plate_value!r}: [START, END]}}"
            raise wrong(self.name, wanted, by, " as its second input")
        interval = by.get(self.plate_value)
        if interval is None:
            return SKIP
        start, end = _bounds(self.name, interval)
        return value if start < time <= end else SKIP


@dataclass(frozen=True, kw_only=True)
class StreamBroadcaster(SplitTool):
    """The same instances for every plate value.

    A stream on fewer plates is shared by all anyway where nodes are connected; this makes streams of their own.

    >>> StreamBroadcaster().bound_to({"room": "hall"}, "room").part(0, 21.5)
    21.5
    """

    name = "stream_broadcaster"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    samples = ({},)

    def part(self, time: int, value: Value) -> Value:
        """The instance itself."""
        return value


@dataclass(frozen=True, kw_only=True)
class StreamBroadcasterFromStream(_PairTool):
    """The same instances for those plate values that a second stream names.

    Two inputs: the instances, and what names the plate values: a text, a list of texts, or an object, of which the
    values count, or with ``use_keys_not_values`` the fields' names. At each instance the last one at or before its time
    holds; before the first there is no output. Whole numbers and booleans are as their texts, what is missing names
    none, ``TypeError`` for anything else.

    >>> tool = StreamBroadcasterFromStream().bound_to({"room": "hall"}, "room")
    >>> tool.divided(0, 21.5, ["hall", "bath"]), tool.divided(0, 21.5, {"a": "bath"})
    (21.5, SKIP)
    """

    name = "stream_broadcaster_from_stream"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "same"
    takes = ("any", "examples")
    samples = ({}, {"use_keys_not_values": True})
    use_keys_not_values: bool = False

    def divided(self, time: int, value: Value, by: Value) -> Value:
        """The instance itself."""
        return value if self.plate_value in names_in(self.name, by, use_keys=self.use_keys_not_values) else SKIP

    def examples(self, slot: int) -> Sequence[Value]:
        """Names of all forms."""
        return some_names(use_keys=self.use_keys_not_values)


def names_in(tool: str, value: Value, *, use_keys: bool) -> list[str]:
    """The plate values that a text, list or object names; none where it is missing. ``TypeError`` for anything else."""
    if isinstance(value, dict):
        texts = [key if use_keys else as_text(tool, held, key) for key, held in value.items()]
    elif isinstance(value, list):
        texts = [as_text(tool, held, index) for index, held in enumerate(value)]
    else:
        texts = [as_text(tool, value)]
    return [text for text in texts if text is not None]


def some_names(*, use_keys: bool) -> list[Value]:
    """Examples of what `names_in` takes."""
    forms: list[list[Value]] = [["a"], ["b", "a"], ["a", None, "b"], [1, True], [], ["kitchen"]]
    objects = [
        dict.fromkeys(map(str, form), 2.5) if use_keys else dict(zip("xyz", form, strict=False)) for form in forms
    ]
    return ["a", "b", "x", 1, True, *forms, *objects]


@dataclass(frozen=True, kw_only=True)
class AssetSplitter(SplitTool):
    """Each field of an asset to the plate value of its name.

    ``element``: the field of the asset that holds the object to split; without it the asset itself. ``filters``: the
    only names that are wanted. No output where ``element`` is missing. ``TypeError`` for what is no object, and for an
    ``element`` that holds none.

    >>> house = {"residents": {"R1": {"age": 70}, "R2": {"age": 68}}}
    >>> AssetSplitter(element="residents").bound_to({"resident": "R2"}, "resident").part(0, house)
    {'age': 68}
    """

    name = "asset_splitter"
    version = "1.0.0"
    takes = "examples"
    samples = ({}, {"element": "x"}, {"filters": ["a"]})
    plate_values = ("a", "b", "temperature")
    element: str | None = None
    filters: tuple[str, ...] = ()

    def part(self, time: int, value: Value) -> Value:
        """The field's value."""
        fields = fields_of(self.name, value)
        if self.element is not None:
            fields = fields_of(self.name, fields.get(self.element), self.element)
        if self.filters and self.plate_value not in self.filters:
            return SKIP
        return fields.get(self.plate_value, SKIP)

    def examples(self, slot: int) -> Sequence[Value]:
        """Assets with some of the plate values, and what is not there."""
        held: list[Value] = [{"a": 1.5, "b": {"age": 70}}, {"temperature": None, "a": "text"}, {"c": 1}, {}]
        return (
            held if self.element is None else [*({self.element: one, "a": 3} for one in held), {self.element: None}, {}]
        )
