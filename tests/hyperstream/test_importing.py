"""A module may compute while it is imported: no other thread ever imports code of the user's."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 50
"""An import that takes longer hangs."""

HEAD = """\
import os
from hs_stream import HyperStream
INTERVAL = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:03Z")
hs = HyperStream(os.environ["STORE"])
ticks = hs.tools.clock(every="1s").execute([], "ticks", INTERVAL)
seconds = hs.tools.expression(expression="time.second").execute([ticks], "seconds", INTERVAL)
def shown(function, sink="out", **parameters):
    made = hs.tools.apply(function=function, **parameters).execute([seconds], sink, INTERVAL)
    print(made.window(INTERVAL).values(), end=" ")
"""

MODULES = {
    "a function": """\
        def double(x):
            return 2 * x
        shown(double)
        shown(f"{__name__}:double", "again")
    """,
    "a lambda, a function inside of one, a method, a builtin": """\
        def make():
            def double(x):
                return 2 * x
            return double
        class Doubling:
            @staticmethod
            def of(x):
                return 2 * x
        shown(lambda x: 2 * x)
        shown(make())
        shown(Doubling.of)
        shown(float)
    """,
    "what imports its own module while it computes": """\
        FACTOR = 2
        def double(x):
            import flow
            from flow import FACTOR
            return FACTOR * x
        shown(double)
    """,
    "what imports a module that is not there yet": """\
        def double(x):
            from later import FACTOR
            return FACTOR * x
        shown(double)
    """,
    "every tool that takes a function": """\
        import math
        def total(values):
            return sum(values)
        def of_field(name, values):
            return [name, sum(values)]
        def drawn(rng, time):
            return rng.random() < 2
        shown(math.sqrt)
        windows = hs.tools.aligning_window(lower="-2s").execute([ticks], "windows", INTERVAL)
        made = hs.tools.sliding_apply(function=total, max_width="2s").execute([windows, seconds], "sums", INTERVAL)
        lists = hs.tools.sliding_listify(max_width="2s").execute([windows, seconds], "lists", INTERVAL)
        hs.tools.relative_apply(function=total).execute([lists], "totals", INTERVAL)
        hs.tools.custom(function=drawn).execute([ticks], "drawn", INTERVAL)
        print(made.window(INTERVAL).values())
    """,
    "a workflow": """\
        def double(x):
            return 2 * x
        with hs.create_workflow("w") as w:
            source = w.source("raw")
            source.apply(function=double, name="doubled")
        hs.get_or_create_stream("raw").write([("2026-01-01T00:00:01Z", 4)])
        w.execute(INTERVAL)
        print(hs["doubled"].window(INTERVAL).values())
    """,
    "a look, a reading and a purge": """\
        def double(x):
            return 2 * x
        raw = hs.get_or_create_stream("raw")
        raw.write([("2026-01-01T00:00:01Z", 4)])
        doubled = hs.tools.apply(function=double).execute([raw], "doubled", INTERVAL)
        raw.write([("2026-01-01T00:00:02Z", 5)])
        print(doubled.window(INTERVAL, compute=True).values())
        doubled.purge()
        print(doubled.window(INTERVAL, compute=True).values())
        print(hs.history(), hs.sessions, doubled)
    """,
}

FINDER = '''\
import sys, threading, os
class Finder:
    """Tells of each module of this folder on which thread it was asked for."""
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is not threading.main_thread() and name.partition(".")[0] in OURS:
            sys.stderr.write(f"{name} was asked for on {threading.current_thread().name}\\n")
            os._exit(9)
OURS = {"flow", "later", "package", "stores"}
sys.meta_path.insert(0, Finder())
'''
"""Modules that are there already are not asked for: those are what may hang."""


@pytest.fixture(params=["memory://", "sqlite:///streams.db"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(folder: Path, store: str, code: str = "import flow") -> str:
    """What ``code`` prints in a fresh Python in ``folder``."""
    environment = {**os.environ, "STORE": store, "PYTHONPATH": str(folder)}
    (folder / "finder.py").write_text(FINDER)
    done = subprocess.run(
        [sys.executable, "-c", f"import finder\n{code}"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + textwrap.dedent(body))


@pytest.mark.parametrize("body", MODULES.values(), ids=MODULES)
def test_a_module_computes_while_it_is_imported(tmp_path: Path, store: str, body: str) -> None:
    write(tmp_path, "flow.py", body)
    (tmp_path / "later.py").write_text("FACTOR = 2\n")
    first = run(tmp_path, store)
    assert first
    # In the next session what the first one stored is loaded, by the same module, which is not finished again.
    if store != "memory://" and "history" not in body:
        assert run(tmp_path, store) == first


def test_what_it_prints(tmp_path: Path, store: str) -> None:
    write(tmp_path, "flow.py", MODULES["a function"])
    assert run(tmp_path, store) == "[2, 4, 6] [2, 4, 6] "


def test_a_package_whose_parts_import_each_other(tmp_path: Path, store: str) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("FACTOR = 2\nfrom package import work\nLATE = 1\n")
    (tmp_path / "package" / "numbers_of_ours.py").write_text("from package import FACTOR\nSUM = FACTOR + 1\n")
    body = """\
        def triple(x):
            from package import numbers_of_ours
            from . import work
            return numbers_of_ours.SUM * x
        shown(triple)
    """
    write(tmp_path, "package/work.py", body)
    for _ in range(2):
        assert run(tmp_path, store, "import package") == "[3, 6, 9] "


def test_a_thread_of_the_users_imports_it(tmp_path: Path, store: str) -> None:
    """The thread that calls is not always the main one."""
    write(tmp_path, "flow.py", MODULES["what imports its own module while it computes"])
    code = """\
import sys, threading
sys.meta_path.pop(0)
thread = threading.Thread(target=__import__, args=("flow",))
thread.start()
thread.join()"""
    assert run(tmp_path, store, code) == "[2, 4, 6] "


def test_a_running_loop_imports_it(tmp_path: Path, store: str) -> None:
    """As in a notebook."""
    write(tmp_path, "flow.py", MODULES["what imports its own module while it computes"])
    code = "import asyncio\nasync def cell():\n    import flow\nasyncio.run(cell())"
    assert run(tmp_path, store, code) == "[2, 4, 6] "


def test_a_name_that_comes_further_down_is_said(tmp_path: Path, store: str) -> None:
    body = """\
        try:
            shown(f"{__name__}:double")
        except Exception as error:
            print(error)
        def double(x):
            return 2 * x
    """
    write(tmp_path, "flow.py", body)
    said = run(tmp_path, store)
    assert "'flow:double' cannot be loaded" in said
    assert "define double above the line that computes with it" in said


def test_stored_functions_are_imported_by_who_opens_the_store(tmp_path: Path) -> None:
    """Also where the module that is imported then opens that store itself: that is refused, and nothing hangs."""
    store = "sqlite:///streams.db"
    write(tmp_path, "flow.py", MODULES["what imports a module that is not there yet"])
    (tmp_path / "later.py").write_text("FACTOR = 2\n")
    run(tmp_path, store)
    code = """\
import os
from hs_stream import HyperStream
with HyperStream(os.environ["STORE"]) as hs:
    print(hs._workspace.unloaded["executed-out"].reason)
(now := __import__("pathlib").Path("flow.py")).write_text("def double(x):\\n    return 3 * x\\n")
with HyperStream(os.environ["STORE"]) as hs:
    out = hs["out"]
    out.purge()
    print(out.window(("2026-01-01T00:00:00Z", "2026-01-01T00:00:03Z"), compute=True).values())"""
    said = run(tmp_path, store, code)
    assert "'flow:double' cannot be loaded: StoreInUse: " in said
    assert said.endswith("[3, 6, 9]\n")


def test_a_stored_function_whose_module_breaks_says_so(tmp_path: Path) -> None:
    store = "sqlite:///streams.db"
    write(tmp_path, "flow.py", MODULES["a function"])
    run(tmp_path, store)
    code = """\
import os
from hs_stream import HyperStream
with HyperStream(os.environ["STORE"]) as hs:
    print(hs._workspace.unloaded["executed-out"].reason)"""
    for body, said in (("1 / 0", "ZeroDivisionError: division by zero"), ("exit(3)", "SystemExit: 3")):
        (tmp_path / "flow.py").write_text(body)
        assert f"'flow:double' cannot be loaded: {said}" in run(tmp_path, store, code)


def test_a_plug_in_brings_the_store_and_computes_while_it_is_imported(tmp_path: Path) -> None:
    """The factory is looked up by the thread that calls, which holds the import lock of its module."""
    info = tmp_path / "ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hs_stream.stores]\nours = stores:make\n")
    before = """\
from hs_stream.store.memory import MemoryStore
def make(url, options):
    return MemoryStore()
"""
    write(tmp_path, "stores.py", MODULES["a function"])
    path = tmp_path / "stores.py"
    path.write_text(before + path.read_text())
    assert run(tmp_path, "ours://x", "import stores") == "[2, 4, 6] [2, 4, 6] "
    assert importlib.metadata.version("hs_stream")


def test_tools_of_a_folder_import_where_they_are_called(tmp_path: Path, store: str) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "later.py").write_text("FACTOR = 2\n")
    (tmp_path / "tools" / "of_ours.py").write_text(
        textwrap.dedent('''\
            import threading
            from dataclasses import dataclass
            from hs_stream.core.tool import FoldTool, MapTool

            @dataclass(frozen=True, kw_only=True)
            class Late(MapTool):
                """Twice the number."""

                name = "late"
                version = "1.0.0"
                takes = "number"

                def map(self, value):
                    from flow import FACTOR
                    from later import FACTOR
                    return FACTOR * value

            @dataclass(frozen=True, kw_only=True)
            class Where(FoldTool):
                """The threads on which it works."""

                name = "where"
                version = "1.0.0"

                def initial(self):
                    return threading.current_thread().name

                def step(self, state, time, value):
                    from flow import FACTOR
                    return state, [state, threading.current_thread().name]
        ''')
    )
    body = """\
        FACTOR = 2
        other = HyperStream(tools=["tools"])
        raw = other.get_or_create_stream("raw")
        raw.write([("2026-01-01T00:00:01Z", 4)])
        print(other.tools.late().execute([raw], "out", INTERVAL).window(INTERVAL).values())
        print(other.tools.where().execute([raw], "where", INTERVAL).window(INTERVAL).values())
    """
    write(tmp_path, "flow.py", body)
    assert run(tmp_path, store) == "[8]\n[['MainThread', 'MainThread']]\n"
