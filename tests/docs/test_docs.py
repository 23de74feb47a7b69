"""The texts are true where a program can tell: links, commands, code, workflows, settings, metrics, named tests."""

from __future__ import annotations

import importlib
import re
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hs_stream.core.errors import LawViolation
from hs_stream.core.registry import ToolRegistry
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.testing.check_tool import check_tool

ROOT = Path(__file__).resolve().parents[2]
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
CODE = [path for top in ("hs_stream", "connectors", "tools") for path in (ROOT / top).rglob("*.py")]
TESTS = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
GROUPS = {f"hs_stream.{kind}" for kind in ("tools", "stores", "connectors", "codecs", "sinks")}
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


def every(language: str, having: str = "") -> list[Any]:
    return [
        pytest.param(body, id=f"{path.relative_to(ROOT)}-{index}")
        for path in TEXTS
        for index, body in enumerate(blocks(path, language))
        if re.search(having, body, re.MULTILINE)
    ]


def anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def registry() -> ToolRegistry:
    return default_registry()


def load(text: str, registry: ToolRegistry, scratch: Path) -> WorkflowDefinition:
    path = scratch / "workflow.yaml"
    path.write_text(text, encoding="utf-8")
    return load_workflow(path, registry, checks_of(Settings()))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in LINK.findall(FENCE.sub("", path.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{path.name} links to {target}"


def test_files_named_in_the_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for line in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([\w/]+\.py)`", line):
            folder = name.rpartition("/")[0] or folder
            assert (ROOT / folder / name.rpartition("/")[2]).is_file(), name
    for path in [
        ROOT / "ARCHITECTURE.md",
        *(ROOT / "docs/specs").glob("*.md"),
        *(ROOT / "docs/decisions").glob("*.md"),
    ]:
        for name in re.findall(r"\w[\w/]*\.py\b", path.read_text(encoding="utf-8")):
            assert any(str(file).endswith(f"/{name}") for file in [*CODE, *TESTS]), f"{path.name}: {name}"


def test_modules_classes_and_their_members_named_in_backticks_exist() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (*TEXTS, *CODE) if path.name != "CHANGELOG.md"}
    classes: dict[str, str] = {}
    for path in CODE:
        for name in re.findall(r"^class (\w+)", texts[path], re.MULTILINE):
            classes[name] = classes.get(name, "") + re.sub(r"`[^`]*`", "", texts[path])

    def is_there(name: str) -> bool:
        """A module of this name is a file, and what follows in it is a word of that file."""
        parts = name.split(".")
        for count in range(len(parts), 0, -1):
            for top, end in product(("", "connectors", "tools"), (".py", "/__init__.py")):
                text = texts.get(ROOT / top / ("/".join(parts[:count]) + end))
                if text is not None:
                    return all(re.search(rf"\b{part}\b", text) for part in parts[count:])
        return False

    for path, text in texts.items():
        for name, member in re.findall(r"(?<!`)`([A-Z]\w+)\.(\w+)", text):
            assert re.search(rf"\b{member}\b", classes.get(name, member)), f"{path} names {name}.{member}"
        for name in re.findall(r"`(hs_stream(?:_connectors|_tools)?\.[\w.]+)`", text):
            assert is_there(name) or name in GROUPS, f"{path} names {name}"


@pytest.mark.parametrize("code", every("python"))
def test_python_compiles(code: str) -> None:
    compile(code, "text", "exec")


@pytest.mark.parametrize("text", every("yaml", r"^workflow:"))
def test_workflows_load(text: str, registry: ToolRegistry, tmp_path: Path) -> None:
    assert load(text, registry, tmp_path).nodes


def test_the_readme_shows_the_file_and_builds_the_same_in_python(registry: ToolRegistry, tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    shown = load(blocks(readme, "yaml")[0], registry, tmp_path)
    file = load_workflow(ROOT / "config/workflows/comfort.yaml", registry)
    names: dict[str, Any] = {}
    exec(blocks(readme, "python")[0], names)
    built = names["w"].definition
    for other in (shown, built):
        for field in ("name", "description", "online", "start", "plates", "order", "fingerprints", "meanings"):
            assert getattr(other, field) == getattr(file, field), field
        assert {name: source.plates for name, source in other.sources.items()} == {
            name: source.plates for name, source in file.sources.items()
        }
        assert {name: node.publish for name, node in other.nodes.items()} == {
            name: node.publish for name, node in file.nodes.items()
        }


def test_the_tool_of_the_guide_works_and_the_broken_one_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = blocks(ROOT / "docs/guides/write-a-tool.md", "python")
    good, _, broken, repaired = code
    for name, text in (("good", good), ("repaired", repaired)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "tool.py").write_text(text, encoding="utf-8")
        found = {tool.name: tool for tool in default_registry([folder])}
        check_tool(found["swing" if name == "good" else "running_total"], examples=10, seed=1)
    source = tmp_path / "broken_tool.py"
    source.write_text(broken, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("broken_tool")
    try:
        with pytest.raises(LawViolation, match="breaks the split law"):
            check_tool(module.RunningTotal, seed=1)
    finally:
        del sys.modules["broken_tool"]


def test_settings_named_in_the_texts_exist() -> None:
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    for path in TEXTS:
        for section, key in re.findall(r"`(\w+)\.(\w+)(?: = [^`]*)?`", path.read_text(encoding="utf-8")):
            model = sections.get(section)
            if model is not None and hasattr(model, "model_fields") and key not in ("py", "yaml", "db"):
                assert key in model.model_fields, f"{path.name}: there is no setting {section}.{key}"


def test_metrics_named_in_the_texts_exist() -> None:
    from hs_stream.engine.engine import EngineStatistics
    from hs_stream.service.metrics import ServiceTelemetry

    class Still:
        def statistics(self) -> EngineStatistics:
            return EngineStatistics(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, True, {"w": 0.0}, {"w": 0.0})

        def __getattr__(self, name: str) -> Any:
            if name == "memory":
                return dict
            return lambda: {"w": 0.0} if name in ("ignored", "missing", "remembered") else 0

    telemetry = ServiceTelemetry()
    telemetry.attach(Still())
    known = set(re.findall(r"^# TYPE (\w+)", telemetry.exposition().decode(), re.MULTILINE))
    for path in TEXTS:
        for name in re.findall(r"`(hs_\w+?)(?:\{[\w,]+\})?`", path.read_text(encoding="utf-8")):
            if not name.startswith(("hs_stream",)):
                assert name in known, f"{path.name} names the metric {name}"


def test_rules_are_numbered_without_gaps_and_name_tests_that_exist() -> None:
    for path in sorted((ROOT / "docs/specs").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        numbers = [int(number) for number in re.findall(r"^\*\*[A-Z]{2}-(\d+)\*\*", text, re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1)), path.name
        for rule in re.findall(r"^\| [A-Z]{2}-(\d+)", text, re.MULTILINE):
            assert int(rule) in numbers, f"{path.name}: there is no rule {rule}"
        named_tests(path)


def named_tests(path: Path) -> int:
    """How many tests a text names; each of them is there."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", path.read_text(encoding="utf-8"))
    for file, test in named:
        assert (ROOT / file).is_file(), f"{path.name} names {file}"
        code = (ROOT / file).read_text(encoding="utf-8")
        assert not test or re.search(rf"def {test}\(", code), f"{path.name} names {file}::{test}"
    return len(named)


def test_every_sentence_about_security_names_a_test_that_exists() -> None:
    path = ROOT / "SECURITY.md"
    _, _, worst = path.read_text(encoding="utf-8").partition("## What each can do at worst")
    rows = [row for row in re.findall(r"^\|.*\|$", worst, re.MULTILINE) if not row.startswith(("|---", "| sentence"))]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []
    assert named_tests(path) == len(rows)


def test_decisions_have_numbers_of_their_own() -> None:
    numbers = [path.name[:4] for path in (ROOT / "docs/decisions").glob("*.md")]
    assert all(re.fullmatch(r"\d{4}", number) for number in numbers)
    assert len(set(numbers)) == len(numbers), sorted(numbers)


def test_tools_named_in_the_texts_exist(registry: ToolRegistry) -> None:
    for path in TEXTS:
        for name in re.findall(r"tool: (\w+)@", path.read_text(encoding="utf-8")):
            assert name in registry or name == "swing", f"{path.name}: {name}"  # swing is the guide's own
