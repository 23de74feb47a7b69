"""The mongod of ``embedded://``: its files outlive it, and the port does not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from typer.testing import CliRunner

from hs_stream import HyperStream
from hs_stream.cli import app
from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod, running_mongod


@pytest.mark.skipif(find_mongod() is None, reason="no mongod runs on this machine")
@pytest.mark.parametrize("crash", [False, True])
async def test_another_process_goes_on_with_the_files_on_another_port(tmp_path: Path, crash: bool) -> None:
    ports = set()
    for number in range(3):
        mongod = EmbeddedMongod(tmp_path / "files", replica_set="hs")
        await mongod.start()
        try:
            ports.add(mongod.url)
            with MongoClient[dict[str, Any]](mongod.database_url("kept")) as client:
                things = client.get_default_database()["things"].with_options()
                assert things.count_documents({}) == number
                things.insert_one({"_id": number})
                client.admin.command("fsync")
        finally:
            await (mongod.kill() if crash else mongod.stop())
    assert len(ports) > 1


@pytest.mark.skipif(find_mongod() is None, reason="no mongod runs on this machine")
async def test_another_process_finds_the_mongod_of_these_files_only(tmp_path: Path) -> None:
    mongod = EmbeddedMongod(tmp_path / "files", replica_set="hs")
    (tmp_path / "other").mkdir()
    assert running_mongod(tmp_path / "files", "x") == ""
    await mongod.start()
    try:
        url = running_mongod(tmp_path / "files", "x")
        assert url.startswith("mongodb://127.0.0.1:")
        with MongoClient[dict[str, Any]](url) as client:
            assert client.get_default_database().name == "x"
        # A port that somebody else has by now.
        (tmp_path / "other" / "hs-stream.port").write_text((tmp_path / "files" / "hs-stream.port").read_text())
        assert running_mongod(tmp_path / "other", "x") == ""
    finally:
        await mongod.stop()
    assert running_mongod(tmp_path / "files", "x") == ""


@pytest.mark.skipif(find_mongod() is None, reason="no mongod runs on this machine")
@pytest.mark.timeout(180)
async def test_commands_work_beside_a_service_with_an_embedded_store(in_site: Any) -> None:
    in_site.write(store="embedded://")
    file = in_site.directory / "data.csv"
    file.write_text("t,temperature,humidity\n1767225600,20,1\n1767225610,30,1\n", encoding="utf-8")
    service = await in_site.start("serve")
    await service.until("/healthz", lambda answer: answer.get("ok"), 60)

    async def said(*arguments: str) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
        assert result.exit_code == 0, (arguments, result.output)
        return result.stdout

    stream = "climate[house=1,room=kitchen]"
    assert await said("import", "data.csv", "--stream", stream, "--time", "t") == f"2 readings to {stream}\n"
    assert "smooth[house=1,room=kitchen]" in await said("streams", "--format", "csv")
    window = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:10Z")
    assert await said("purge", stream, *window) == f"1 instances of {stream} removed\n"
    assert await said("query", "temperature[house=1,room=kitchen]", "--format", "csv") == (
        "time,value\n2026-01-01T00:00:00Z,20\n"
    )
    assert "clean" in await said("verify", "comfort")

    def looked() -> list[str]:
        with HyperStream(config="hs-stream.toml", read_only=True) as hs:
            return [str(stream) for stream in hs.streams("smooth")]

    assert await asyncio.to_thread(looked) == ["smooth[house=1,room=kitchen]"]
    service.process.terminate()
    assert (await service.end(30))[0] == 0
