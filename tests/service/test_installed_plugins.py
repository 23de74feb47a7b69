"""A distribution that brings a store, a connector, a codec, a sink or a tool: used like ours; broken, it is named."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.core.errors import ConfigurationError, StoreUnavailable
from hs_stream.entry_points import CODECS, CONNECTORS, SINKS, STORES, Group, owner
from hs_stream.plugins import default_registry
from hs_stream.service.connectors import AllConnected, Connectors
from hs_stream.service.settings import Settings, StoreSettings
from hs_stream.service.settings_file import load_settings
from hs_stream.service.workflows.file import parse_workflow
from hs_stream.service.workflows.loading import checks_of
from hs_stream.store.open import open_store
from hs_stream_connectors.codecs import codec
from tests.service.conftest import ROOT

PLUGIN = '''
import asyncio
from dataclasses import dataclass
from pathlib import Path

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.tool import MapTool
from hs_stream.engine.ports import Delivery, Reading
from hs_stream.store.sqlite import SqliteStore


def store(url, options):
    made = SqliteStore(Path(url.removeprefix("kettle://")))
    made.name = "kettle"
    return made


class Connector:
    def __init__(self, settings):
        self.settings = settings

    def plates(self, source, options):
        if not isinstance(options["kettle"], int):
            raise ConfigurationError(f"source {source}: kettle is not a number", hint="write kettle: 3")
        return ("kettle",)

    def connect(self, sources):
        return Source(sources)


class Source:
    name = "kettle"

    def __init__(self, sources):
        self.sources = sources
        self.acknowledged = 0

    async def run(self, deliver, connected):
        connected(True)
        for name, options in self.sources.items():
            readings = [
                Reading(name, (("kettle", "red"),), 1_700_000_000_000 + second * 1000, float(second))
                for second in range(options["kettle"])
            ]
            await deliver(Delivery(readings, [], 1_700_000_000_000, self.ack))
        await asyncio.Event().wait()

    def ack(self):
        self.acknowledged += 1

    async def stop(self):
        pass


@dataclass(frozen=True, kw_only=True)
class Double(MapTool):
    """Twice the value."""

    name = "double"
    version = "1.0.0"
    takes = "number"

    def map(self, value):
        return 2 * value
'''
WORKFLOW = """\
workflow: kitchen
plates: {kettle: {}}
sources:
  water: {kettle: 3}
nodes:
  hot: {tool: double@^1, from: water}
"""
ENTRIES = {
    "hs_stream.stores": "kettle = hs_kettle:store",
    "hs_stream.connectors": "kettle = hs_kettle:Connector",
    "hs_stream.tools": "kettle = hs_kettle",
}
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution on the path: ``install("hs-kettle", code, {group: entry})`` returns its folder."""
    made = 0

    def put(
        name: str = "hs-kettle", code: str = PLUGIN, entries: dict[str, str] = ENTRIES, module: str = "hs_kettle"
    ) -> Path:
        nonlocal made
        made += 1
        folder = tmp_path / f"site-{made}"
        info = folder / f"{name.replace('-', '_')}-1.2.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(code, encoding="utf-8")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.0\n", encoding="utf-8")
        text = "\n".join(f"[{group}]\n{entry}\n" for group, entry in entries.items())
        (info / "entry_points.txt").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, module, raising=False)
        return folder

    return put


def run(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


# --- it works ---


@pytest.mark.usefixtures("in_site")
async def test_store_connector_and_tool_work_end_to_end(site: Any, install: Install) -> None:
    site.paths.append(install())
    site.write(store=f"kettle://{site.directory}/k.db")
    (site.directory / "comfort.yaml").write_text(WORKFLOW, encoding="utf-8")
    assert "fine" in (await asyncio.to_thread(run, "workflow", "check", "comfort.yaml")).stdout
    assert "Twice the value." in (await asyncio.to_thread(run, "tools", "show", "double")).stdout
    service = await site.start("serve")
    ready = await service.until("/readyz", lambda answer: answer["ready"])
    assert ready["parts"]["store"]["name"] == "kettle"
    path = "/api/streams?name=hot"
    await service.until(path, lambda answer: answer["streams"] and answer["streams"][0]["coverage"])
    service.process.terminate()
    code, errors = await service.end()
    assert code == 0, errors
    rows = json.loads((await asyncio.to_thread(run, "query", "hot[kettle=red]", "--format", "json")).stdout)
    assert [row["value"] for row in rows] == [0.0, 2.0, 4.0]
    assert "clean" in (await asyncio.to_thread(run, "verify", "kitchen")).stdout


def test_without_it_the_names_are_not_there() -> None:
    assert STORES.names() == ["memory", "mongodb", "mongodb+srv", "sqlite"]
    assert CONNECTORS.names() == ["csv", "mqtt"]
    with pytest.raises(ConfigurationError, match="install the plug-in"):
        load_settings(store={"url": "kettle://x"})


def test_ours_stand_in_the_same_table_as_others(install: Install) -> None:
    before = {name: owner(entry) for name, entry in CONNECTORS.table().items()}
    assert set(before.values()) == {"hs_stream"}
    install()
    assert CONNECTORS.owner("kettle") == STORES.owner("kettle") == "hs-kettle 1.2.0"
    assert load_settings(store={"url": "kettle://x"}).store.url == "kettle://x"
    assert open_store("kettle://x").name == "kettle"
    with pytest.raises(ConfigurationError) as caught:
        open_store("mysql://u:secret@x")
    assert "kettle://..." in caught.value.hint


def test_every_entry_of_ours_can_be_loaded() -> None:
    for group in (STORES, CONNECTORS, CODECS, SINKS):
        for entry in group.table().values():
            assert callable(entry.load())
    for url in ("memory://", "sqlite:///x.db", "mongodb://localhost/x"):
        open_store(url)
    connectors = Connectors(Settings())
    assert connectors.check("s", {"mqtt": "a/{b}"}) == ("b",)
    assert connectors.check("s", {"csv": "a/{b}.csv", "time": {"field": "t"}}) == ("b",)


GUIDE = ROOT / "docs" / "guides" / "write-a-sink.md"
JSONL = re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[0]
SINK = {"hs_stream.sinks": "jsonl = hs_jsonl:JsonLines"}
PUBLISHED = WORKFLOW + "publish:\n  hot: {jsonl: out/hot.jsonl}\n"


@pytest.mark.usefixtures("in_site")
async def test_a_sink_works_end_to_end_while_the_broker_is_away(site: Any, install: Install) -> None:
    site.paths += [install(), install("hs-jsonl", JSONL, SINK, "hs_jsonl")]
    site.write()
    (site.directory / "comfort.yaml").write_text(PUBLISHED, encoding="utf-8")
    service = await site.start("serve")
    file = site.directory / "out" / "hot.jsonl"
    async with asyncio.timeout(30):
        while not file.exists() or len(file.read_text(encoding="utf-8").splitlines()) < 3:
            await asyncio.sleep(0.05)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(line["stream"], line["value"], line["kind"]) for line in lines] == [
        ("hot[kettle=red]", value, "insert") for value in (0.0, 2.0, 4.0)
    ]
    ready = await service.until("/readyz", lambda answer: "parts" in answer)
    assert ready["parts"]["broker"]["connections"] == {"out": False}
    assert "sink jsonl" not in [one["what"] for one in ready["degraded"]]
    service.process.terminate()
    code, errors = await service.end()
    assert code == 0, errors


@pytest.mark.usefixtures("in_site")
async def test_a_sink_that_is_away_is_told_of(site: Any, install: Install) -> None:
    site.paths += [install(), install("hs-jsonl", JSONL, SINK, "hs_jsonl")]
    site.write()
    (site.directory / "out").touch()  # no directory
    (site.directory / "comfort.yaml").write_text(PUBLISHED, encoding="utf-8")
    service = await site.start("serve")
    ready = await service.until("/readyz", lambda answer: answer.get("degraded"))
    assert ready["degraded"] == [{"what": "sink jsonl", "error": "not connected; 3 results wait for it", "count": 1}]
    found = await asyncio.to_thread(run, "doctor", code=3)
    assert "the running service: sink jsonl" in found.stdout
    (site.directory / "out").unlink()
    await service.until("/readyz", lambda answer: not answer["degraded"])


def test_a_key_of_publish_belongs_to_one_sink(install: Install) -> None:
    install()
    with pytest.raises(ConfigurationError) as caught:
        parse(PUBLISHED)
    assert str(caught.value) == (
        "x.yaml:8: publish hot: there is no key 'jsonl' (the keys are retain, payload, homeassistant)"
    )
    install("hs-jsonl", JSONL, SINK, "hs_jsonl")
    assert parse(PUBLISHED).nodes["hot"].publish == {"jsonl": "out/hot.jsonl"}
    with pytest.raises(ConfigurationError, match=r"^x\.yaml:8: publish hot: jsonl is 7 \(write the path of a file"):
        parse(PUBLISHED.replace("out/hot.jsonl", "7"))
    install("hs-lines", JSONL, {"hs_stream.sinks": "lines = hs_lines:JsonLines"}, "hs_lines")
    with pytest.raises(ConfigurationError) as caught:
        parse(PUBLISHED)
    assert caught.value.message == (
        "the sinks jsonl of hs-jsonl 1.2.0 and lines of hs-lines 1.2.0 both know the key jsonl of publish"
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def JsonLines(settings): raise OSError('no disk')", "hs-jsonl 1.2.0 cannot be made: OSError: no disk"),
        (JSONL.replace("if not isinstance(value, str)", "if value['x']"), "jsonl of hs-jsonl 1.2.0 failed: TypeError"),
    ],
)
def test_a_broken_sink_is_named(install: Install, code: str, words: str) -> None:
    install()
    install("hs-jsonl", code, SINK, "hs_jsonl")
    with pytest.raises(ConfigurationError, match=words):
        parse(PUBLISHED)


@pytest.mark.usefixtures("in_site")
async def test_a_sink_that_raises_ends_the_service_with_its_name(site: Any, install: Install) -> None:
    code = JSONL.replace("        lines: dict", "        raise LookupError('no paper')\n        lines: dict")
    site.paths += [install(), install("hs-jsonl", code, SINK, "hs_jsonl")]
    site.write()
    (site.directory / "comfort.yaml").write_text(PUBLISHED, encoding="utf-8")
    service = await site.start("serve")
    code_, errors = await service.end()
    assert code_ == 2
    assert "the sink jsonl of hs-jsonl 1.2.0 failed: LookupError: no paper" in errors.splitlines()[-1]


CODEC = """
class Codec:
    name, plates, placing = "roman", (), None
    def __init__(self, options): self.options = options
"""


def test_a_codec_is_found_and_gets_its_options(install: Install) -> None:
    install("hs-roman", CODEC, {"hs_stream.codecs": "roman = hs_roman:Codec"}, "hs_roman")
    checks = checks_of(Settings())
    assert checks.source("s", {"mqtt": "a/{b}", "codec": "roman", "old": True}) == ("b",)
    made: Any = codec("roman", old=True)
    assert made.options == {"old": True}
    with pytest.raises(ConfigurationError, match=r"codec 'romn' is unknown \(write one of .*roman"):
        checks.source("s", {"mqtt": "a/{b}", "codec": "romn"})
    with pytest.raises(ConfigurationError, match="there is no key 'old'"):
        checks.source("s", {"mqtt": "a/{b}", "codec": "json", "old": True})


# --- it does not ---


def parse(text: str) -> Any:
    return parse_workflow(text, default_registry(), "x.yaml", checks_of(Settings()))


def test_a_mistake_in_its_options_names_the_line(install: Install) -> None:
    install()
    assert parse(WORKFLOW).node_plates["water"] == ("kettle",)
    with pytest.raises(
        ConfigurationError, match=r"^x\.yaml:4: source water: kettle is not a number \(write kettle: 3\)$"
    ):
        parse(WORKFLOW.replace("kettle: 3", "kettle: lots"))
    with pytest.raises(
        ConfigurationError, match=r"x\.yaml:4: source water: ketle without a connector .*did you mean kettle"
    ):
        parse(WORKFLOW.replace("kettle: 3", "ketle: 3"))
    with pytest.raises(ConfigurationError, match=r"x\.yaml:4: source water: kettle and mqtt exclude each other"):
        parse(WORKFLOW.replace("kettle: 3", "kettle: 3, mqtt: x"))
    with pytest.raises(ConfigurationError, match=r"x\.yaml:4: .*plates"):
        parse(WORKFLOW.replace("kettle: 3", "kettle: 3, plates: [kettle]"))


BROKEN = """
class Connector:
    def __init__(self, settings): ...
    def plates(self, source, options): return options["x"]
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("1 / 0", "connector kettle = 'hs_kettle:Connector' of hs-kettle 1.2.0 cannot be loaded: ZeroDivisionError"),
        ("", "cannot be loaded: AttributeError"),
        ("def Connector(settings): raise OSError('no port')", "hs-kettle 1.2.0 cannot be made: OSError: no port"),
        (BROKEN, "the connector kettle of hs-kettle 1.2.0 failed: KeyError: 'x'"),
    ],
)
def test_a_broken_connector_is_named(install: Install, code: str, words: str) -> None:
    install(code=code, entries={"hs_stream.connectors": ENTRIES["hs_stream.connectors"]})
    with pytest.raises(ConfigurationError) as caught:
        parse(WORKFLOW)
    assert words in str(caught.value)
    assert "hs-kettle 1.2.0" in str(caught.value)


def test_a_broken_store_is_named_and_keeps_the_password(install: Install) -> None:
    code = """
from hs_stream.core.errors import StoreUnavailable
def store(url, options):
    if "down" in url: raise StoreUnavailable("the kettle is down")
    raise ValueError(f"bad url {url}")
"""
    install(code=code, entries={"hs_stream.stores": ENTRIES["hs_stream.stores"]})
    with pytest.raises(
        ConfigurationError, match=r"store kettle of hs-kettle 1\.2\.0 cannot be made: ValueError"
    ) as caught:
        open_store("kettle://me:secret@stove")
    assert "secret" not in str(caught.value)
    with pytest.raises(StoreUnavailable, match="is down"):
        open_store("kettle://down")
    assert "secret" not in repr(StoreSettings(url="kettle://me:secret@stove"))


def test_a_name_that_is_taken_is_refused_with_both_names(install: Install) -> None:
    install("hs-fast", "", {"hs_stream.stores": "sqlite = hs_fast:store"}, "hs_fast")
    with pytest.raises(ConfigurationError, match=r"hs_stream and hs-fast 1\.2\.0 both bring a store sqlite"):
        STORES.names()
    install()
    install("hs-samovar", "", {"hs_stream.connectors": "kettle = hs_samovar:x"}, "hs_samovar")
    with pytest.raises(ConfigurationError, match=r"hs-(samovar|kettle) 1\.2\.0 and hs-(samovar|kettle) 1\.2\.0 both"):
        CONNECTORS.names()


TOTAL = """
from dataclasses import dataclass
from hs_stream.core.batch import Batch
from hs_stream.core.tool import *

@dataclass(frozen=True, kw_only=True)
class Total(Tool):
    "Sum so far, wrongly."
    name = "wrong_total"
    version = "1.0.0"
    takes = "number"
    def support(self, slot): return Pointwise()
    def drive(self): return FromInput(0)
    def evaluate(self, interval, sources):
        batch = sources[0].slice(interval.start, interval.end)
        return Batch.build(batch.times, batch.numbers().cumsum())
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (TOTAL, r"wrong_total@1\.0\.0 breaks a law"),
        (PLUGIN.replace('"double"', '"sliding_mean"'), r"sliding_mean@1\.0\.0 is both"),
    ],
)
def test_tools_that_break_a_law_or_take_a_name_are_named(install: Install, code: str, words: str) -> None:
    install(code=code, entries={"hs_stream.tools": ENTRIES["hs_stream.tools"]})
    with pytest.raises(ConfigurationError, match=rf"^the tools of hs-kettle 1\.2\.0: {words}"):
        default_registry()


async def test_a_source_that_raises_ends_the_service_with_its_name(site: Any, install: Install) -> None:
    code = PLUGIN.replace("        connected(True)\n", "        raise LookupError('no water')\n")
    site.paths.append(install(code=code))
    site.write()
    (site.directory / "comfort.yaml").write_text(WORKFLOW, encoding="utf-8")
    service = await site.start("serve")
    code_, errors = await service.end()
    assert code_ == 2
    assert "the connector kettle of hs-kettle 1.2.0 failed: LookupError: no water" in errors.splitlines()[-1]


# --- several sources ---


def test_silence_counts_while_all_are_connected() -> None:
    said: list[bool] = []
    together = AllConnected(["mqtt", "csv"], said.append)
    for name, up in (("mqtt", True), ("csv", True), ("mqtt", False), ("csv", False), ("csv", True), ("mqtt", True)):
        together.of(name)(up)
    assert said == [False, True, False, False, False, True]


def test_an_entry_of_a_group() -> None:
    group = Group("hs_stream.none", "thing", {"a": "math:sqrt"})
    assert group.make("a", 9.0) == 3.0
    assert group.table()["a"] == EntryPoint("a", "math:sqrt", "hs_stream.none")
    with pytest.raises(ConfigurationError, match="the thing a of hs_stream cannot be made: ValueError"):
        group.make("a", -1.0)
