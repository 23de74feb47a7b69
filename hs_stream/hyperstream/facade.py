"""`HyperStream`: a store, a thread that works on it, and everything that a notebook asks for."""

from __future__ import annotations

import atexit
import importlib
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.urls import redacted
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.hyperstream.background import Background
from hs_stream.hyperstream.channel import Channel
from hs_stream.hyperstream.tools import Tools
from hs_stream.hyperstream.workspace import Workspace
from hs_stream.service.settings import Settings
from hs_stream.service.settings_file import load_settings
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.loading import load_workflows

__all__ = ["HyperStream"]

_MEMORY: Final = "memory://"

_open: weakref.WeakSet[HyperStream] = weakref.WeakSet()


class HyperStream(Channel):
    """Streams, tools and workflows over one store, for notebooks and scripts. Every call blocks until it is done.

    ``store``: ``"memory://"`` (the default), ``"sqlite:///file.db"`` or ``"mongodb://host:port/database"``. ``config``:
    a settings file of the service, for its store, its tools and its workflows. ``tools``: folders of tools of your own.
    ``read_only``: only look, beside a service that is running.

    Close it with `close` or ``with``; it closes itself when nobody uses it any more, at the end of the program, and
    when this program opens the same store again (a cell that is run twice). `ConfigurationError` while a running
    service or another program has the store.
    """

    def __init__(
        self,
        store: str = "",
        *,
        config: str | Path | None = None,
        tools: Iterable[str | Path] = (),
        read_only: bool = False,
    ) -> None:
        settings, workflows = Settings.model_construct(), list[WorkflowDefinition]()
        paths = [str(path) for path in tools]
        if config is not None:
            settings = load_settings(config)
            paths = [*settings.tools.paths, *paths]
        url = store or (settings.store.url if config is not None else _MEMORY)
        changes = {
            "store": settings.store.model_copy(update={"url": url}),
            "tools": settings.tools.model_copy(update={"paths": tuple(paths)}),
        }
        self._settings = settings = settings.model_copy(update=changes)
        registry = load_registry(settings)
        if config is not None:
            workflows = load_workflows(settings, registry)
        self._url = url
        if not read_only:
            for other in [item for item in _open if item._owns(url)]:
                other.close()
        background = Background()
        super().__init__(background, Workspace(settings, registry, workflows, read_only=read_only))
        try:
            self._run(self._workspace.open())
        except BaseException:
            background.close()
            raise
        self._channels: dict[str, Channel] = {url.partition("://")[0]: self}
        self._parts = [self._workspace]
        self._closer = weakref.finalize(self, _close_elsewhere, background, self._parts)
        self._closer.atexit = False  # too late: see `_close_all`
        self.tools = Tools(self, registry)
        _open.add(self)

    def _owns(self, url: str) -> bool:
        return self._url == url != _MEMORY and not self._workspace.read_only

    def close(self) -> None:
        """End the session, and let go of store and thread. Idempotent; after it every other call is refused."""
        self._closer.detach()
        _open.discard(self)
        _close(self._background, self._parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- channels ---

    @property
    def memory(self) -> Channel:
        """Streams in the memory of this program, beside its own store."""
        if "memory" not in self._channels:
            store = self._settings.store.model_copy(update={"url": _MEMORY})
            workspace = Workspace(self._settings.model_copy(update={"store": store}), self._workspace.registry)
            self._run(workspace.open())
            self._parts.append(workspace)
            self._channels["memory"] = Channel(self._background, workspace, self)
        return self._channels["memory"]

    @property
    def mongo(self) -> Channel:
        """Its own store, if that is in MongoDB."""
        return self._own("mongodb", "mongodb://localhost:27017/hs_stream")

    @property
    def sqlite(self) -> Channel:
        """Its own store, if that is an SQLite file."""
        return self._own("sqlite", "sqlite:///streams.db")

    def _own(self, scheme: str, example: str) -> Channel:
        found = self._channels.get(scheme) or self._channels.get(f"{scheme}+srv")
        if found is None:
            raise ConfigurationError(
                f"this HyperStream is over {redacted(self._url)}", hint=f'say HyperStream("{example}")'
            )
        return found

    def __repr__(self) -> str:
        state = "closed" if self._background.closed else f"session {self._workspace.session or 'only reads'}"
        return f"<HyperStream over {redacted(self._url)}: {state}>"


def _close(background: Background, workspaces: Iterable[Workspace]) -> None:
    if background.closed:
        return
    try:
        for workspace in workspaces:
            background.run(workspace.close())
    finally:
        background.close()


def _close_elsewhere(background: Background, workspaces: Iterable[Workspace]) -> None:
    """For one that nobody holds: the garbage is collected in any thread, also in one that must not wait."""
    threading.Thread(target=_close, args=(background, workspaces), name="hs-stream closing").start()


def _close_all() -> None:
    for found in list(_open):
        found.close()


# Before `atexit` calls anybody, Python has ended the thread pools, which SQLite needs to close in order. Their end is
# in this register too, which is gone through from the last to the first: they must be in it before us.
importlib.import_module("concurrent.futures.thread")
getattr(threading, "_register_atexit", atexit.register)(_close_all)
