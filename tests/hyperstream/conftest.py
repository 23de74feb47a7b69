"""A HyperStream over each kind of store, and a look at what it leaves behind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hs_stream import HyperStream

T0 = 1_767_225_600_000
"""2026-01-01T00:00:00Z"""


def at(seconds: float) -> datetime:
    """So many seconds after `T0`."""
    return datetime.fromtimestamp(T0 / 1000 + seconds, UTC)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and "hs-stream" in thread.name]
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture(params=["memory", "sqlite", "mongo"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of this test's own."""
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'streams.db'}"
    return str(request.getfixturevalue("mongo_url"))


@pytest.fixture
def hs(url: str) -> Iterator[HyperStream]:
    """A HyperStream over it."""
    with HyperStream(url) as opened:
        yield opened


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An SQLite store: what is there in the next session."""
    return f"sqlite:///{tmp_path / 'streams.db'}"


@pytest.fixture
def opened() -> Iterator[Callable[..., HyperStream]]:
    """Opens HyperStreams that are closed after the test."""
    made: list[HyperStream] = []

    def make(*arguments: object, **options: object) -> HyperStream:
        made.append(HyperStream(*arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
