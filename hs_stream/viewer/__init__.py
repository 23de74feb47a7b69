"""The viewer at ``/``: pages in the service's own loop, drawn from its memory and its store (``hs_stream[viewer]``).

Everything that a browser loads comes from this service. Charts get the new points only, and what a page reads is
bounded whatever is stored (`hs_stream.viewer.series`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hs_stream.core.errors import ConfigurationError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from hs_stream.service.http.context import ApiContext

__all__ = ["available", "mount"]


def available() -> bool:
    """Whether the packages of ``hs_stream[viewer]`` are installed."""
    from importlib.util import find_spec  # noqa: PLC0415 - not needed to import the package

    return find_spec("nicegui") is not None and find_spec("tsdownsample") is not None


def mount(app: FastAPI, context: ApiContext) -> None:
    """Add the viewer's pages to ``app``; once in a process. `ConfigurationError` when it is not installed."""
    if not available():
        raise ConfigurationError(
            "the viewer is not installed", hint="pip install 'hs_stream[viewer]', or set http.viewer = false"
        )
    from hs_stream.viewer.site import Site  # noqa: PLC0415 - needs the extra

    Site(context).mount(app)
