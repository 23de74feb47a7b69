"""Life of a HyperStream: threads, files, sessions, who may write, what it says when it refuses."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hs_stream import HyperStream, Workflow
from hs_stream.core.errors import ConfigurationError, NotFound, StoreUnavailable, ToolError
from hs_stream.core.stream import StreamId
from hs_stream.hyperstream import NotComputedWarning
from hs_stream.service.workflows.file import load_workflow
from hs_stream.store.sqlite import SqliteStore

from .conftest import T0, at

ROOT = Path(__file__).resolve().parents[2]
Opened = Callable[..., HyperStream]

YAML = """\
workflow: comfort
online: true
plates: {room: {}}
sources:
  climate: {mqtt: "home/{room}/climate", time: {field: ts, unit: ms}}
nodes:
  temperature: {tool: component@^1, from: climate, with: {key: temperature}}
  smooth: {tool: sliding_mean@^1, from: temperature, with: {width: 1m}}
publish: {smooth: {}}
"""

TOOL = '''\
from dataclasses import dataclass

from hs_stream.core.tool import MapTool


@dataclass(frozen=True, kw_only=True)
class Twice(MapTool):
    """Two times the number."""

    name = "twice"
    version = "1.0.0"
    takes = "number"

    def map(self, value):
        return value * 2
'''


def files_of(path: Path) -> list[str]:
    """What this process holds open of a database."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(str(path))]


# --- life ---


def test_with_closes_thread_and_files(tmp_path: Path) -> None:
    path = tmp_path / "streams.db"
    with HyperStream(f"sqlite:///{path}") as hs:
        stream = hs.get_or_create_stream("power")
        stream.write([(at(0), 1.0)])
        view = stream.window()
        assert files_of(path)
        assert [thread.name for thread in threading.enumerate() if "hs-stream" in thread.name]
    assert not files_of(path)
    assert not [thread for thread in threading.enumerate() if "hs-stream" in thread.name]
    hs.close()
    for call in (view.items, lambda: stream.write([(at(1), 1.0)]), hs.streams, lambda: hs.memory):
        with pytest.raises(ConfigurationError, match="this HyperStream is closed"):
            call()
    assert repr(hs) == f"<HyperStream over sqlite:///{path}: closed>"
    assert repr(stream) == "<stream power>"
    assert "closed" in repr(view)


async def test_inside_of_a_loop_that_runs_already(url: str) -> None:
    beside = asyncio.create_task(asyncio.sleep(0, "done"))
    with HyperStream(url) as hs:
        ticker = hs.tools.clock(every="1s").execute(sink="ticker", interval=(at(0), at(10)))
        assert ticker.window().count() == 10
    assert await beside == "done"


def test_many_threads_may_ask(hs: HyperStream) -> None:
    def work(number: int) -> None:
        stream = hs.get_or_create_stream(f"power{number}")
        for second in range(5):
            stream.write([(at(second), float(number))])
        hs.tools.sliding_sum(width="5s").execute([stream], f"sum{number}", (at(-1), at(5)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert hs[f"sum{number}"].window().last().value == 5.0 * number


def test_one_that_nobody_holds_closes_itself() -> None:
    stream = HyperStream().get_or_create_stream("power")
    gc.collect()
    assert stream.write([(at(0), 1.0)]) == 1  # a stream keeps it alive
    [thread] = [thread for thread in threading.enumerate() if thread.name == "hs-stream"]
    del stream
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_cell_that_runs_twice_closes_the_first(sqlite_url: str, opened: Opened) -> None:
    first = opened(sqlite_url)
    first.get_or_create_stream("power").write([(at(0), 1.0)])
    second = opened(sqlite_url)
    assert second["power"].window().values() == [1.0]
    with pytest.raises(ConfigurationError, match="closed"):
        first.streams()


SCRIPT = f"""\
import sys
from hs_stream import HyperStream
hs = HyperStream(sys.argv[1])
hs.tools.clock(every="1s").execute(sink="ticker", interval=({T0}, {T0 + 10_000}))
print("ready", flush=True)
sys.stdin.read()
"""


def script(url: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "connectors", ROOT / "tools")))
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, url],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_another_program_is_refused_and_may_read(sqlite_url: str, opened: Opened) -> None:
    with script(sqlite_url) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(ConfigurationError, match=r"is using this store.*read_only=True"):
            HyperStream(sqlite_url)
        looking = opened(sqlite_url, read_only=True)
        assert looking["ticker"].window().count() == 10
        assert looking["ticker"].status.tool.startswith("clock@1.")
        assert [str(stream) for stream in looking.streams()] == ["ticker"]
        assert looking.current_session is None
        assert looking.sessions[0].active
        for write in (
            lambda: looking["ticker"].window((at(0), at(60)), compute=True).items(),
            lambda: looking.get_or_create_stream("power").write([(at(0), 1.0)]),
            lambda: looking.tools.clock(every="1s").execute(sink="x", interval="-1m"),
            looking["ticker"].purge,
        ):
            with pytest.raises(ConfigurationError, match="only reads its store"):
                write()
        # It forgets to close: the end of the program does.
        _, errors = other.communicate("")
    assert (other.returncode, errors) == (0, "")
    hs = opened(sqlite_url)
    assert [session.active for session in hs.sessions] == [True, False]
    assert "only reads" in repr(looking)


# pymongo 4.20 leaves the socket of a refused connection open when it is closed at that moment.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for url, error, message in (
        ("streams.db", ConfigurationError, "names no store.*write memory://"),
        (f"sqlite:///{tmp_path}", StoreUnavailable, "SQLite"),
        ("mongodb://127.0.0.1:1/x?serverSelectionTimeoutMS=50", StoreUnavailable, "127.0.0.1:1"),
    ):
        with pytest.raises(error, match=message):
            HyperStream(url)
    with pytest.raises(StoreUnavailable, match="there is no SQLite database"):
        HyperStream(f"sqlite:///{tmp_path}/absent.db", read_only=True)
    with pytest.raises(ConfigurationError, match="nothing to read"):
        HyperStream(read_only=True)
    gc.collect()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what is to run in the background with interrupts ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_call_and_the_next_one_is_right(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(second), float(second)) for second in range(200)])
    begun = threading.Event()

    def slow(value: float) -> float:
        begun.set()
        time.sleep(0.005)
        return value + 1

    def interrupt() -> None:
        begun.wait()
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    tool, window = hs.tools.apply(slow), (at(-1), at(199))
    with pytest.raises(KeyboardInterrupt):
        tool.execute(["power"], "more", window)
    assert tool.execute(["power"], "more", window).window().values() == [float(second + 1) for second in range(200)]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_a_function_that_does_not_end(hs: HyperStream) -> None:
    """It runs on the thread that calls, so it is what the interrupt meets."""
    hs.get_or_create_stream("power").write([(at(0), 1.0)])

    def endless(value: float) -> float:
        _thread.interrupt_main()
        while True:
            time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        hs.tools.apply(endless).execute(["power"], "never", (at(-1), at(1)))
    assert hs.tools.apply(abs).execute(["power"], "same", (at(-1), at(1))).window().values() == [1.0]


def test_a_function_that_ends_the_program_ends_the_call(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(0), 1.0)])
    with pytest.raises(SystemExit):
        hs.tools.apply(lambda _: sys.exit(3)).execute(["power"], "never", (at(-1), at(1)))
    assert hs.tools.apply(abs).execute(["power"], "same", (at(-1), at(1))).window().values() == [1.0]


def test_a_tool_must_not_close_who_runs_it(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(0), 1.0)])
    with pytest.raises(ToolError, match="a tool asks the HyperStream that runs it"):
        hs.tools.apply(lambda _: hs.close()).execute(["power"], "same", (at(-1), at(1)))
    assert hs["power"].window().count() == 1


def test_a_tool_must_not_ask_who_runs_it(hs: HyperStream) -> None:
    hs.get_or_create_stream("power").write([(at(0), 1.0)])
    with pytest.raises(ToolError, match="a tool asks the HyperStream that runs it"):
        hs.tools.apply(lambda _: hs["power"].window().last().value).execute(["power"], "same", (at(-1), at(1)))


# --- channels ---


def test_memory_beside_a_store_of_its_own(sqlite_url: str, opened: Opened) -> None:
    hs = opened(sqlite_url)
    assert hs.sqlite is hs
    ticker = hs.tools.clock(every="1s").execute([], hs.memory.get_or_create_stream("ticker"), (at(0), at(10)))
    assert hs.memory["ticker"] == ticker != hs.get_or_create_stream("ticker")
    assert not hs.streams()
    assert hs.memory.history()[0].instances == 10
    with pytest.raises(ConfigurationError, match="ticker is in another store"):
        hs.tools.sliding_count("5s").execute([ticker], hs.get_or_create_stream("count"), (at(0), at(10)))
    assert hs.tools.sliding_count("5s").execute([ticker], hs.memory.get_or_create_stream("n"), (at(0), at(9))).window()
    with pytest.raises(ConfigurationError, match=r'is over sqlite.*HyperStream\("mongodb:'):
        _ = hs.mongo


def test_its_own_store_by_name(mongo_url: str, opened: Opened) -> None:
    assert opened().memory.get_or_create_stream("x").id == StreamId("x")
    hs = opened(mongo_url)
    assert hs.mongo is hs
    assert hs.memory is not hs


# --- tools ---


def test_tools_are_found_and_described(hs: HyperStream) -> None:
    assert {"clock", "sliding_mean", "expression"} <= set(dir(hs.tools))
    named = list(inspect.signature(hs.tools.sliding_mean).parameters)
    assert [*named[:3], named[-1]] == ["width", "every", "tz", "version"]
    assert (hs.tools.clock.__doc__ or "").startswith("Ticks on a grid")
    assert re.fullmatch(r"<tool clock@1\.\d\.0\(every='1m'\)>", repr(hs.tools.clock(every="1m")))
    assert repr(hs.tools.clock(every="1m", version="~1.0")) == "<tool clock@1.0.0(every='1m')>"
    assert repr(hs.tools.sliding_mean("5m", version="^1")).endswith("(width='5m')>")
    assert "(function=<function" in repr(hs.tools.apply(lambda value: value))
    assert "Ticks on a grid" in repr(hs.tools)
    assert not hasattr(hs.tools, "_ipython_display_")
    with pytest.raises(AttributeError, match="did you mean clock"):
        _ = hs.tools.clokc
    with pytest.raises(ConfigurationError, match=r"clock has no parameter 'stride' .its parameters are every"):
        hs.tools.clock(stride=1.0)
    with pytest.raises(ConfigurationError, match=r"no version of clock satisfies '\^7'"):
        hs.tools.clock(every="1s", version="^7")


def test_tools_of_a_folder(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "twice.py").write_text(TOOL, encoding="utf-8")
    hs = opened(tools=[tmp_path])
    hs.get_or_create_stream("power").write([(at(0), 2.0)])
    assert hs.tools.twice().execute(["power"], "more", (at(-1), at(0))).window().values() == [4.0]


def test_what_a_tool_cannot_be_executed_into_or_from(hs: HyperStream) -> None:
    window = (at(0), at(10))
    clock = hs.tools.clock(every="1s")
    clock.execute(sink="ticks", interval=window)
    count = hs.tools.sliding_count(width="5s")
    count.execute(["ticks"], "count", window)
    hs.get_or_create_stream("power").write([(at(0), 1.0)])
    with hs.create_workflow("w") as w:
        w.source("other").sliding_count("5s", name="mine")
    for sink, sources, message in (
        ("power", ["ticks"], "power holds readings"),
        ("mine", ["ticks"], "mine belongs to the workflow w"),
        ("ticks", ["count"], "streams form a circle: "),
        ("new", ["absent"], "there is no stream absent"),
        ("new", ["powr"], "did you mean power"),
        ("new", ["ticks", "power"], r"sliding_count takes 1 input\(s\), not 2"),
        ("not a name", ["ticks"], "is not a stream name"),
        ("", ["ticks"], "is not a stream"),
    ):
        with pytest.raises((ConfigurationError, NotFound), match=message):
            count.execute(sources, sink, window)
    anything: Any = 5
    with pytest.raises(ConfigurationError, match="5 is no stream"):
        count.execute(["ticks"], anything, window)
    with pytest.raises(ConfigurationError, match=r"splitter makes a stream for each value.*build a workflow"):
        hs.tools.splitter(element="room").execute(["power"], "rooms", window)
    with pytest.raises(ConfigurationError, match="count is computed"):
        hs["count"].write([(at(0), 1)])
    with pytest.raises(ConfigurationError, match="ticks was executed by hand already"), hs.create_workflow("x") as x:
        x.factor("clock", every="1s", name="ticks")
    with (
        pytest.raises(ConfigurationError, match="mine of workflow y is also defined by workflow w"),
        hs.create_workflow("y") as y,
    ):
        y.factor("clock", every="1s", name="mine")
    # Nothing of all that has left a trace.
    assert count.execute(["ticks"], "count", window).window().count() == 10
    assert [item.name for item in hs.workflows] == ["w"]


# --- workflows ---


def test_a_workflow_from_a_file(hs: HyperStream, tmp_path: Path) -> None:
    path = tmp_path / "comfort.yaml"
    path.write_text(YAML, encoding="utf-8")
    assert hs.add_workflow(path) == "comfort"
    with pytest.raises(ConfigurationError, match=r"climate is on room.*write to climate\[room=\.\.\.\]"):
        hs.get_or_create_stream("climate").write([(at(0), {"temperature": 1.0})])
    hs.get_or_create_stream("climate", room="hall").write([(at(0), {"temperature": 20.0})])
    assert hs["smooth[room=hall]"].window().items() == []  # `online` is for the service
    [temperature, smooth] = hs.execute_workflow("comfort", (at(-1), at(60)))
    assert temperature.window().values() == smooth.window().values() == [20.0]
    assert "comfort" in repr(hs.workflows)
    # What is made of a workflow's streams by hand rests on them.
    high = hs.tools.threshold(above=19).execute([smooth], "high", (at(-1), at(60)))
    assert str(high) == "high[room=hall]"
    assert high.window().values() == [True]
    path.write_text(YAML.replace("width: 1m", "width: 2m"), encoding="utf-8")
    hs.add_workflow(path)
    assert high.window((at(-1), at(60))).missing()
    hs.add_workflow(Workflow("empty"))
    path.write_text(YAML.replace("component", "componnt"), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"comfort.yaml:7: .*did you mean component"):
        hs.add_workflow(path)


def test_settings_of_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Opened) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comfort.yaml").write_text(YAML, encoding="utf-8")
    (tmp_path / "hs.toml").write_text(
        'workflows = ["comfort.yaml"]\n[store]\nurl = "sqlite:///data/x.db"\n', encoding="utf-8"
    )
    hs = opened(config="hs.toml")
    assert repr(hs).startswith("<HyperStream over sqlite:///data/x.db")
    hs.get_or_create_stream("climate", room="hall").write([(at(0), {"temperature": 20.0})])
    hs.execute_workflow("comfort", (at(-1), at(60)))
    # Stored as its author wrote it, for whoever opens the store without the settings.
    hs = opened("sqlite:///data/x.db")
    assert [item.online for item in hs.workflows] == [True]
    assert hs["smooth[room=hall]"].window((at(-1), at(70)), compute=True).count() == 1
    assert opened("sqlite:///other.db", config="hs.toml").workflows[0].name == "comfort"


def test_what_a_lambda_computes_is_not_known_in_the_next_session(sqlite_url: str, opened: Opened) -> None:
    with HyperStream(sqlite_url) as hs:
        hs.get_or_create_stream("power").write([(at(0), 2.0)])
        double = hs.tools.apply(lambda value: value * 2)
        double.execute(["power"], "double", (at(-1), at(0)))
        double.execute(["power"], "double", (at(-1), at(5)))
        assert [item.instances for item in hs.history(stream="double")] == [0, 1]  # the first is not done again
    hs = opened(sqlite_url)
    assert hs["double"].window().values() == [4.0]
    with pytest.raises(ConfigurationError, match="nothing is known of how double is computed: its workflow is not in"):
        hs["double"].window((at(-1), at(9)), compute=True).items()


def test_a_stored_workflow_that_does_not_load_is_left_alone(sqlite_url: str, opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(TOOL, encoding="utf-8")
    with HyperStream(sqlite_url, tools=[tmp_path]) as hs:
        hs.get_or_create_stream("power").write([(at(0), 2.0)])
        hs.tools.twice().execute(["power"], "double", (at(-1), at(5)))
    hs = opened(sqlite_url)
    assert hs["double"].window().values() == [4.0]
    with pytest.raises(ConfigurationError, match=r"nothing is known of how double is computed: .*no tool 'twice'"):
        hs["double"].compute((at(-1), at(9)))
    with pytest.warns(NotComputedWarning, match="executed-double reads power, and cannot be loaded"):
        hs["power"].write([(at(1), 3.0)])


async def test_a_service_finds_what_was_computed(sqlite_url: str, tmp_path: Path) -> None:
    """The definition is the service's, and so are the results: nothing is computed again, and nothing lost."""
    from hs_stream.engine.engine import Engine

    path = tmp_path / "comfort.yaml"
    path.write_text(YAML, encoding="utf-8")
    with HyperStream(sqlite_url) as hs:
        hs.add_workflow(path)
        hs.get_or_create_stream("climate", room="hall").write(
            [(at(second), {"temperature": float(second)}) for second in range(100)]
        )
        hs.execute_workflow("comfort", (at(-1), at(50)))
        definition = load_workflow(path, hs._workspace.registry)
    store = SqliteStore(Path(sqlite_url.removeprefix("sqlite:///")))
    engine = Engine(store)
    try:
        await engine.open([definition])
        await engine.settle()
        smooth = StreamId.parse("smooth[room=hall]")
        assert engine.statistics().results == 98  # 49 of each node
        assert len(await engine.read(smooth, T0 - 1, T0 + 100_000)) == 100
        assert [len(entry.changes) for entry in await store.outbox(0, 100)] == [51, 49]
    finally:
        await engine.close()


# --- books ---


def test_sessions_and_history(hs: HyperStream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    assert [session.id for session in hs.sessions] == [hs.current_session.id if hs.current_session else ""]
    hs.get_or_create_stream("power").write([(at(0), 1.0), (at(1), 2.0)])
    hs.tools.sliding_mean("1m").execute(["power"], "mean", (at(-1), at(5)))
    session = hs.current_session
    assert session is not None
    assert session.active
    assert session.counters["readings"] == 2
    assert session.counters["results"] == 2
    assert session.workflows == ["executed-mean"]
    pin = hs.tools.sliding_mean("1m").tool.pin
    assert session.versions["tools"] == [pin]
    [entry] = session.history
    assert (entry.stream, entry.tool, entry.instances, entry.session) == ("mean", pin, 2, session.id)
    assert pin in repr(session.history)
    assert hs.history(stream="power") == []
    assert hs.history(0) == []


def test_the_begin_of_a_clock_is_not_in_the_way(hs: HyperStream) -> None:
    hs.tools.clock(every="1s").execute(sink="ticker", interval=(at(0), at(1)))
    assert [str(stream) for stream in hs.streams()] == ["ticker"]
    assert hs["ticker.begin"].window().timestamps() == [at(0.001)]


def test_future_and_unknown(hs: HyperStream) -> None:
    ticker = hs.tools.clock(every="1h").execute(sink="ticker", interval=("-1h", "2099-01-01T00:00:00Z"))
    assert ticker.window().count() == 1
    with pytest.raises(NotFound, match=r"there is no stream tickr .did you mean ticker"):
        _ = hs["tickr"]
    with HyperStream() as empty, pytest.raises(NotFound, match="write readings to it, or execute a tool into it"):
        _ = empty["anything"]


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, hs_stream; print([m for m in sys.modules if m.startswith(('hs_stream.', 'numpy', 'pydantic'))])"
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "connectors", ROOT / "tools")))
    result = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_typos_in_attributes_are_errors() -> None:
    with HyperStream() as hs:
        anything: Any = hs
        with pytest.raises(AttributeError):
            anything.channel_manager  # noqa: B018
