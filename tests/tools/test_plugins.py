"""Tools from installed modules and from folders of the user's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hs_stream.core.errors import ConfigurationError
from hs_stream.plugins import default_registry, keeps_law

HEAD = """from __future__ import annotations
from collections.abc import Sequence
from dataclasses import dataclass
from hs_stream.core.batch import Batch
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import *
"""
HALF = """
@dataclass(frozen=True, kw_only=True)
class Half(MapTool):
    '''Half of each value.'''
    name = "half"
    version = "{version}"
    takes = "number"
    by: Duration = Duration(2000)
    def map(self, value):
        return value / 2
"""
COUNTER = """
@dataclass(frozen=True, kw_only=True)
class Counter(Tool):
    '''How many instances there were so far.'''
    name = "counter"
    version = "1.0.0"
    def support(self, slot): return {support}
    def drive(self): return FromInput(0)
    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        source = sources[0]
        return Batch.of([(t, len(source.slice(-10**18, t))) for t, _ in source.slice(interval.start, interval.end)])
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(HEAD + text)
    return path


def test_library_is_there() -> None:
    registry = default_registry()
    assert {"clock", "component", "sliding_mean", "threshold"} <= set(registry.names())
    assert [tool.version for tool in registry.versions("sliding_mean")] == ["1.0.0", "2.0.0"]
    assert set(default_registry().names()) == set(registry.names())


def test_folder_of_plugins(tmp_path: Path) -> None:
    write(tmp_path, "half.py", HALF.format(version="1.0.0"))
    write(tmp_path, "half_new.py", HALF.format(version="1.1.0"))
    for name in ("_ignored.py", "test_half.py", "conftest.py"):
        write(tmp_path, name, "1 / 0")
    registry = default_registry([tmp_path])
    assert [tool.version for tool in registry.versions("half")] == ["1.0.0", "1.1.0"]
    tool = registry.resolve("half").build({"by": "1m"})
    assert tool.parameters() == {"by": "1m"}
    assert default_registry([str(tmp_path)]).resolve("half").version == "1.1.0"


def test_two_folders_may_hold_files_of_one_name(tmp_path: Path) -> None:
    for folder, version in (("a", "1.0.0"), ("b", "2.0.0")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "half.py", HALF.format(version=version))
    registry = default_registry([tmp_path / "a", tmp_path / "b"])
    assert [tool.version for tool in registry.versions("half")] == ["1.0.0", "2.0.0"]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n1 / 0\n", 8, "ZeroDivisionError: division by zero"),
        ("\nimport nosuchmodule\n", 8, "ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("\ndef f(:\n", 8, "SyntaxError: invalid syntax"),
        ("\ndef f():\n    return nosuch\n\nf()\n", 9, "NameError: name 'nosuch' is not defined"),
    ],
)
def test_broken_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = write(tmp_path, "broken.py", text)
    with pytest.raises(ConfigurationError) as caught:
        default_registry([tmp_path])
    assert str(caught.value).startswith(f"{path}:{line}: {message}")


def test_general_tool_must_keep_the_laws(tmp_path: Path) -> None:
    path = write(tmp_path, "counter.py", COUNTER.format(support="Window(5000)"))
    with pytest.raises(ConfigurationError) as caught:
        default_registry([tmp_path])
    text = str(caught.value)
    assert text.startswith(f"{path}:8: counter@1.0.0 breaks a law of tools: ")
    assert "first difference at" in text
    write(tmp_path, "counter.py", COUNTER.format(support="Prefix()"))
    assert default_registry([tmp_path]).resolve("counter").version == "1.0.0"


def test_version_taken_by_the_library(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.py", HALF.format(version="1.0.0").replace('"half"', '"sliding_mean"'))
    with pytest.raises(ConfigurationError, match=f"^{path}: sliding_mean@1.0.0 is both"):
        default_registry([tmp_path])


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tools\.paths: .*nosuch is not a folder"):
        default_registry([tmp_path / "nosuch"])


def test_who_keeps_the_law_by_construction() -> None:
    registry = default_registry()
    assert keeps_law(registry.resolve("threshold@^1"))
    assert not keeps_law(registry.resolve("sliding_mean"))
    assert not keeps_law(registry.resolve("clock"))
