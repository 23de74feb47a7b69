"""Streams of a smart home, recomputed incrementally by workflows of versioned tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hs_stream.builder import Workflow
    from hs_stream.hyperstream import HyperStream

__all__ = ["HyperStream", "Workflow"]


def __getattr__(name: str) -> Any:
    # Importing hs_stream.core must not load the YAML reader and every tool.
    if name == "Workflow":
        from hs_stream.builder import Workflow  # noqa: PLC0415

        return Workflow
    if name == "HyperStream":
        from hs_stream.hyperstream import HyperStream  # noqa: PLC0415

        return HyperStream
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
