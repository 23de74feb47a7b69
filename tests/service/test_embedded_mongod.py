"""The mongod of ``embedded://``: its files outlive it, and the port does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from hs_stream.service.embedded_mongod import EmbeddedMongod, find_mongod


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
