"""From the settings to parts that many need: the registry, the engine's settings; and which version this is."""

from __future__ import annotations

import importlib.metadata

from hs_stream.core.registry import ToolRegistry
from hs_stream.engine.engine import EngineSettings
from hs_stream.plugins import default_registry
from hs_stream.service.settings import Settings

__all__ = ["engine_settings", "load_registry", "version"]


def version() -> str:
    """The version of the installed distribution; ``0+checkout`` when it runs from a checkout."""
    try:
        return importlib.metadata.version("hs_stream")
    except importlib.metadata.PackageNotFoundError:
        return "0+checkout"


def load_registry(settings: Settings) -> ToolRegistry:
    """Every tool that workflows may name."""
    return default_registry(settings.tools.paths, settings.tools.allow_development_tools)


def engine_settings(settings: Settings) -> EngineSettings:
    """The engine's part of the settings."""
    return EngineSettings(
        lateness=settings.watermark.lateness,
        idle=settings.watermark.idle,
        max_future=settings.watermark.max_future,
        backdate=settings.watermark.backdate,
        max_in_flight=settings.executor.max_in_flight,
        recompute_on=settings.tools.recompute_on,
        tails=settings.memory.tails,
        in_flight=settings.memory.in_flight,
    )
