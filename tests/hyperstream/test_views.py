"""Views: what they give, how much they read, and how they show themselves."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hs_stream import HyperStream
from hs_stream.core.errors import ConfigurationError
from hs_stream.hyperstream import Instance, Stream
from hs_stream.hyperstream import views as views_module

from .conftest import T0, at


@pytest.fixture
def numbers(hs: HyperStream) -> Stream:
    """25 readings, a second apart."""
    stream = hs.get_or_create_stream("numbers")
    stream.write([(at(second), float(second)) for second in range(25)])
    return stream


@pytest.fixture
def memory() -> Any:
    with HyperStream() as hs:
        yield hs


def test_what_a_view_gives(numbers: Stream) -> None:
    view = numbers.window((at(3), at(10)))
    assert view.values() == [float(second) for second in range(4, 11)]
    assert view.timestamps() == [at(second) for second in range(4, 11)]
    assert view.items() == list(view) == [Instance(at(second), float(second)) for second in range(4, 11)]
    assert view.first() == (at(4), 4.0)
    assert view.last() == (at(10), 10.0)
    assert view.last().timestamp.tzinfo is UTC
    assert view.head(2) == [(at(4), 4.0), (at(5), 5.0)]
    assert view.tail(2) == [(at(9), 9.0), (at(10), 10.0)]
    assert view.head(100) == view.tail(100) == view.items()
    assert view.head(0) == view.tail(-1) == []
    assert view.count() == 7
    empty = numbers.window((at(100), at(101)))
    assert (empty.items(), empty.first(), empty.last("nothing"), empty.count()) == ([], None, "nothing", 0)
    assert numbers.window().count() == 25


def test_views_read_page_by_page(numbers: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_module, "_PAGE", 10)
    reads: list[int] = []
    read = type(numbers.channel).read

    def spy(self: Any, stream: int, start: int, end: int, limit: int, **options: Any) -> Any:
        batch = read(self, stream, start, end, limit, **options)
        reads.append(len(batch))
        return batch

    monkeypatch.setattr(type(numbers.channel), "read", spy)
    instances = iter(numbers.window())
    assert [next(instances).value for _ in range(3)] == [0.0, 1.0, 2.0]
    assert reads == [10]
    assert [instance.value for instance in instances] == [float(second) for second in range(3, 25)]
    assert reads == [10, 10, 5]
    assert len(numbers.window().to_numpy()[0]) == 25
    reads.clear()
    assert numbers.window().last().value == 24.0
    assert reads == [1]


def test_what_is_done_to_a_value_does_not_reach_the_store(hs: HyperStream) -> None:
    stream = hs.get_or_create_stream("objects")
    stream.write([(at(0), {"a": [1, 2]})])
    stream.window().last().value["a"].append(3)
    stream.window().to_numpy()[1][0]["a"].append(3)
    stream.window().to_pandas()["a"].iloc[0].append(3)
    assert stream.window().last().value == {"a": [1, 2]}
    assert hs["objects"].window().to_numpy()[1].dtype == object


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        ([1.5, 2.5], "float64", [1.5, 2.5]),
        ([1, 2], "int64", [1, 2]),
        ([True, False], "bool", [True, False]),
        ([1, 2.5], "float64", [1.0, 2.5]),
        ([1, None], "float64", [1.0, float("nan")]),
        (["on", 1], "object", ["on", 1]),
        ([], "float64", []),
    ],
)
def test_numpy_and_pandas(memory: HyperStream, given: list[Any], kind: str, expected: list[Any]) -> None:
    stream = memory.get_or_create_stream("values")
    stream.write([(at(0), "other"), *((at(second + 1), value) for second, value in enumerate(given))])
    view = stream.window((at(0), at(9)))
    times, values = view.to_numpy()
    assert times.tolist() == [at(second + 1).replace(tzinfo=None) for second in range(len(given))]
    assert values.dtype == kind
    assert repr(values.tolist()) == repr(expected)
    series = view.to_pandas()
    assert isinstance(series, pd.Series)
    assert repr(series.tolist()) == repr(expected)
    assert series.name == "values"
    assert series.index.tolist() == [at(second + 1) for second in range(len(given))]
    assert str(series.index.tz) == "UTC"


def test_objects_become_a_data_frame(memory: HyperStream) -> None:
    stream = memory.get_or_create_stream("climate", room="hall")
    stream.write([(at(0), {"t": 20.5, "h": 40}), (at(1), {"t": 21.0})])
    frame = stream.window().to_pandas()
    assert list(frame.columns) == ["t", "h"]
    assert frame["t"].tolist() == [20.5, 21.0]
    assert np.isnan(frame["h"].iloc[1])
    # And back again.
    again = memory.get_or_create_stream("again")
    assert again.write(frame) == 2
    assert again.window().first().value == {"t": 20.5, "h": 40.0}


def test_what_can_be_written(memory: HyperStream) -> None:
    stream = memory.get_or_create_stream("readings")
    index = pd.date_range("2026-01-01T01:00", periods=3, freq="s", tz="Europe/Brussels")
    assert stream.write(pd.Series([1.0, None, 3.0], index=index)) == 3
    assert stream.window().timestamps() == [at(0), at(1), at(2)]
    assert stream.window((at(1), at(2))).last().value == 3.0
    assert np.isnan(stream.window((at(0), at(1))).last().value)
    assert stream.write(pd.Series(pd.array([1, None], "Int64"), index=index[:2])) == 2
    assert stream.window((at(-1), at(1))).values() == [1, None]
    assert stream.write({"2026-01-01T00:01:00Z": "on", T0 + 61_000: "off"}) == 2
    assert stream.write((at(second), np.int16(second)) for second in range(100, 12_100)) == 12_000
    assert stream.window().last() == (at(12_099), 12_099)
    assert stream.write([("-1h", (1, "x"))]) == 1
    assert stream.window("-2h").values() == [[1, "x"]]
    assert stream.write([]) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text", "are no readings"),
        (5, "are no readings"),
        ([5], "5 is no reading.*write"),
        ([(at(0), 1), (datetime(2026, 1, 1), 2)], "reading 2: naive datetime"),  # noqa: DTZ001
        ([("yesterday", 1)], "reading 1: 'yesterday' is not a time"),
        ([(at(0), {"a": {1}})], "reading 1.a: set cannot be stored"),
        ([(at(0), 1 << 70)], "reading 1: the integer"),
        (pd.Series([1.0]), "the index holds no times"),
        (pd.Series([1.0], index=pd.to_datetime(["2026-01-01"])), "tz_localize"),
        ([("2199-01-01T00:00:00Z", 1), (at(0), 2)], "1 of 2 readings were not stored: event time 2199"),
    ],
)
def test_what_cannot_be_written_says_why(memory: HyperStream, data: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        memory.get_or_create_stream("readings").write(data)


# --- on the screen ---


class Cells(HTMLParser):
    """The texts of table cells; any tag that is not ours is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        assert tag in ("div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"), tag
        assert not attributes
        self.cells += [""] if tag in ("td", "th") else []

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_html_is_escaped(memory: HyperStream) -> None:
    evil = "<script>alert('x')</script>&amp;"
    stream = memory.get_or_create_stream("values", room="<img src>")
    stream.write([(at(0), evil), (at(1), {evil: evil})])
    memory.tools.apply(function="builtins:len").execute([stream], "evil", (at(-1), at(0)))
    html = stream.window()._repr_html_()
    assert evil not in html
    assert repr(evil) in Cells(html).cells
    for shown in (stream, memory.streams(), memory.history(), memory.sessions, memory.tools, memory.workflows):
        assert "<script" not in shown._repr_html_()
        assert "<img" not in shown._repr_html_()
        assert Cells(shown._repr_html_()).cells


def test_text_fits_on_a_screen(memory: HyperStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream = memory.get_or_create_stream("values")
    stream.write([(at(second), {"text": "x" * 1000, "list": list(range(1000))}) for second in range(1000)])
    lines = repr(stream.window()).splitlines()
    assert lines[0] == "values"
    assert len(lines) == 14
    assert max(map(len, lines)) <= 80
    assert lines[3].startswith("2026-01-01T00:00:00Z")
    assert lines[-1].startswith("2026-01-01T00:16:39Z")
    for index in range(30):
        memory.get_or_create_stream(f"s{index}").write([(at(0), 1)])
    assert repr(memory.streams()).splitlines()[0] == "streams: 31"
    assert repr(memory.streams()).splitlines()[-1] == "... and 11 more"


def test_a_view_shows_what_is_not_computed_without_a_warning(memory: HyperStream) -> None:
    memory.get_or_create_stream("power").write([(at(0), 1.0)])
    mean = memory.tools.sliding_mean(width="1s").execute(["power"], "mean", (at(-1), at(0)))
    assert "not computed: (2026-01-01T00:00:00Z, 2026-01-01T00:00:05Z]" in repr(mean.window((at(-1), at(5))))
    assert repr(mean.window((at(1), at(5)))).endswith(
        "no instances; not computed: (2026-01-01T00:00:01Z, 2026-01-01T00:00:05Z]"
    )
    pin, span = memory.tools.sliding_mean(width="1s").tool.pin, "(2025-12-31T23:59:59Z, 2026-01-01T00:00:00Z]"
    assert repr(mean) == f"<stream mean: derived, {pin}, computed {span}>"
    absent = memory.get_or_create_stream("absent")
    assert repr(absent) == "<stream absent>"
    assert "there is no stream absent" in repr(absent.window())
    assert "there is no stream absent" in absent._repr_html_()


# --- plots ---


class Axes:
    """What is drawn, as matplotlib's axes would be told."""

    def __init__(self) -> None:
        self.lines: dict[str, tuple[Any, Any]] = {}
        self.other: list[str] = []

    def plot(self, times: Any, values: Any, *, label: str, **options: Any) -> None:
        self.lines[label] = (times, values)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.other.append(name)


def test_a_plot_of_numbers(memory: HyperStream) -> None:
    stream = memory.get_or_create_stream("numbers")
    stream.write([(at(0), 1), (at(1), None), (at(2), 3.5)])
    axes = stream.window().plot(Axes(), color="red")
    [(label, (times, values))] = axes.lines.items()
    assert label == "numbers"
    assert times.dtype == "datetime64[ms]"
    assert repr(values.tolist()) == "[1.0, nan, 3.5]"


def test_a_plot_of_objects_has_a_line_for_each_number(memory: HyperStream) -> None:
    stream = memory.get_or_create_stream("climate")
    stream.write([(at(0), {"t": 20.0, "name": "x"}), (at(1), {"t": 21.0, "h": 40})])
    axes = stream.window().plot(Axes())
    assert list(axes.lines) == ["climate t", "climate h"]
    assert "legend" in axes.other


def test_a_plot_of_much_keeps_the_extremes(memory: HyperStream) -> None:
    stream = memory.get_or_create_stream("numbers")
    stream.write((T0 + index, 100.0 if index == 12_345 else index % 7) for index in range(30_000))
    times, values = stream.window().plot(Axes()).lines["numbers"]
    assert len(times) <= 4_002
    assert values.max() == 100.0
    assert (np.diff(times.astype(np.int64)) > 0).all()


def test_text_cannot_be_drawn(memory: HyperStream) -> None:
    stream = memory.get_or_create_stream("words")
    stream.write([(at(0), "on")])
    with pytest.raises(ConfigurationError, match="holds no numbers"):
        stream.window().plot(Axes())


@pytest.mark.parametrize(("library", "method"), [("pandas", "to_pandas"), ("matplotlib", "plot")])
def test_a_missing_library_is_named(
    memory: HyperStream, monkeypatch: pytest.MonkeyPatch, library: str, method: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.partition(".")[0] == library:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    stream = memory.get_or_create_stream("numbers")
    stream.write([(at(0), 1.0)])
    with pytest.raises(ConfigurationError, match=f"this needs {library} .pip install {library}"):
        getattr(stream.window(), method)()


def test_matplotlib_itself(memory: HyperStream) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    stream = memory.get_or_create_stream("numbers")
    stream.write([(at(second), float(second)) for second in range(10)])
    axes = stream.window().plot()
    assert len(axes.lines) == 1
    axes.figure.canvas.draw()
