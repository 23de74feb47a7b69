"""What is stored says when who was at home: nobody else on this machine may read it, whatever the umask says."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from hs_stream.engine.ports import Append, DeadLetter
from hs_stream.private_files import make_private, open_private
from hs_stream.service.embedded.broker import EmbeddedBroker
from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod
from hs_stream.service.logs import LogFile, configure_logging
from hs_stream.service.settings_file import load_settings
from hs_stream.service.stores import EmbeddedStore
from hs_stream.store.open import StoreOptions, open_store
from hs_stream.store.sqlite import SqliteStore

LETTER = Append(1, dead_letters=[DeadLetter(9, "climate", "json", "no JSON")])


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def wide(directory: Path) -> list[str]:
    """What others may read or enter below ``directory``; sockets and links have no mode of their own."""
    return [str(path) for path in directory.rglob("*") if path.stat().st_mode & 0o077]


async def test_an_sqlite_database_is_for_its_user_alone(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/var/lib/hs.db", StoreOptions())
    await store.open()
    await store.append(LETTER)
    assert sorted(path.name for path in (tmp_path / "var/lib").iterdir()) == ["hs.db", "hs.db-shm", "hs.db-wal"]
    assert wide(tmp_path) == []
    await store.close()


async def test_a_database_of_an_earlier_version_is_narrowed_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path / "hs.db")
    await store.open()
    await store.append(LETTER)
    await store.abandon()
    for name in ("hs.db", "hs.db-wal", "hs.db-shm"):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o644)
    with caplog.at_level(logging.INFO, "hs_stream.private_files"):
        await store.open()
        assert wide(tmp_path) == []
        assert len(await store.dead_letters(9)) == 1
        await store.close()
        said = [record.message for record in caplog.records]
        assert any("only this user may read" in line and "hs.db" in line for line in said)
        caplog.clear()
        await store.open()
        await store.close()
        assert not caplog.records


def test_a_directory_that_is_not_ours_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o755)
    make_private(tmp_path / "shared" / "ours" / "deep")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("shared", "shared/ours", "shared/ours/deep")]
    assert modes == [0o755, 0o700, 0o700]


def test_a_log_file_and_those_before_it(tmp_path: Path) -> None:
    for name in ("hs.log", "hs.log.1"):
        (tmp_path / name).write_text("before\n", encoding="utf-8")
        (tmp_path / name).chmod(0o644)
    configure_logging(file=LogFile(str(tmp_path / "hs.log"), max_bytes=200, keep=3))
    try:
        for _ in range(10):
            logging.getLogger("test").warning("x" * 50)
    finally:
        configure_logging()
    assert len(list(tmp_path.iterdir())) == 4
    assert wide(tmp_path) == []


def test_a_file_that_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("long before", encoding="utf-8")
    (tmp_path / "there").chmod(0o666)
    for name in ("there", "new"):
        with open_private(tmp_path / name) as out:
            out.write("x")
        assert (tmp_path / name).read_text(encoding="utf-8") == "x"
    assert wide(tmp_path) == []


async def test_the_embedded_broker(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path / "broker", persistence=True, password="x" * 12, kind="mosquitto"):
        pass
    assert wide(tmp_path) == []


@pytest.mark.skipif(find_mongod() is None, reason="no mongod runs on this machine")
async def test_the_embedded_mongod_is_locked_and_opens_what_the_last_version_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HS_STREAM__STORE__URL", "embedded://")
    monkeypatch.setenv("HS_STREAM__STORE__DATA_DIR", str(tmp_path / "var"))
    before = EmbeddedMongod(tmp_path / "var" / "mongod", replica_set="hs")  # as the last version started it
    await before.start()
    try:
        store = open_store(before.database_url("hs_stream"), StoreOptions())
        await store.open()
        await store.append(LETTER)
        await store.close()
    finally:
        await before.stop()
    (tmp_path / "var" / "mongod").chmod(0o755)

    for _ in range(2):
        embedded = EmbeddedStore(load_settings())
        store = await embedded.open()
        try:
            assert embedded._mongod is not None
            url = embedded._mongod.url
            await store.open()
            assert len(await store.dead_letters(9)) == 1
            address = url.rpartition("@")[2].partition("/")[0]
            key = (tmp_path / "var" / "mongod" / "key").read_text(encoding="ascii").strip()
            assert len(key) == 64
            assert key not in embedded.shown
            with MongoClient[dict[str, Any]](f"mongodb://{address}/?directConnection=true") as stranger:
                for attempt in (
                    stranger["hs_stream"]["streams"].find_one,
                    lambda: stranger["hs_stream"]["instances"].insert_one({}),
                    stranger.list_database_names,
                    lambda: stranger["admin"].command("createUser", "me", pwd="me", roles=["root"]),
                    lambda: stranger["admin"].command("shutdown"),
                ):
                    with pytest.raises(PyMongoError, match=r"requires authentication|not authorized"):
                        attempt()
            assert wide(tmp_path / "var" / "mongod") == []
            assert (tmp_path / "var" / "mongod").stat().st_mode & 0o077 == 0
        finally:
            await store.close()
            await embedded.close()
