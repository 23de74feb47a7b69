"""The store, connector, codec and sink of the guides work, and the commands of the guides are commands."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.core.errors import ConfigurationError, PayloadError
from hs_stream.engine.ports import Delivery
from hs_stream.service.settings import Settings
from hs_stream.service.sinks import SinkKind
from hs_stream.store.open import StoreOptions
from hs_stream_connectors.codecs import Codec

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
TEXT = (GUIDES / "plugins.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SHELL = [
    line
    for name in ("operate.md", "plugins.md", "write-a-tool.md")
    for block in re.findall(
        r"^```sh\n(.*?)^```$", (GUIDES / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    for line in block.splitlines()
    if "hs-stream " in line
]


def run_code(index: int) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(CODE[index], names)
    return names


async def test_the_store(tmp_path: Path) -> None:
    store = run_code(0)["store"](f"kettle://{tmp_path}/x.db", StoreOptions())
    await store.open()
    assert await store.streams() == []
    await store.close()


async def test_the_connector() -> None:
    connector = run_code(1)["Connector"](Settings())
    options = {"kettle": "red"}
    assert connector.plates("water", options) == ("kettle",)
    source = connector.connect({"water": options})
    first: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

    async def deliver(delivery: Delivery) -> None:
        first.set_result(delivery)

    task = asyncio.create_task(source.run(deliver, lambda _: None))
    delivery = await asyncio.wait_for(first, 5)
    task.cancel()
    assert [(reading.source, reading.meta, reading.value) for reading in delivery.readings] == [
        ("water", (("kettle", "red"),), 93.5)
    ]


def test_the_codec() -> None:
    names = run_code(2)
    codec: Codec = names["codec"]({"digits": 3, "earliest": 0, "max_payload": 100})
    assert codec.decode("t", b"0ff9", 5, retained=False) == [(None, 255)]
    with pytest.raises(PayloadError, match="not hexadecimal"):
        codec.decode("t", b"x", 5, retained=False)
    with pytest.raises(ConfigurationError, match="digits is not a number"):
        names["codec"]({"digits": "x"})


async def test_the_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and its test are two files."""
    text = (GUIDES / "write-a-sink.md").read_text(encoding="utf-8")
    module, test = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    made = ModuleType("hs_jsonl")
    exec(module, made.__dict__)
    monkeypatch.setitem(sys.modules, "hs_jsonl", made)
    names: dict[str, Any] = {}
    exec(test, names)
    kind: SinkKind = made.JsonLines(Settings())
    kind.check("jsonl", "a.jsonl")
    with pytest.raises(ConfigurationError, match="jsonl is 7"):
        kind.check("jsonl", 7)
    await names["test_the_sink"](tmp_path)


@pytest.mark.parametrize("line", SHELL)
def test_commands_are_commands(line: str) -> None:
    """Every word that names a command or an option is known."""
    words = shlex.split(line.partition("hs-stream ")[2], comments=True)
    command: Any = get_command(app)
    path: list[str] = []
    while hasattr(command, "commands"):
        path.append(words[0])
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0
