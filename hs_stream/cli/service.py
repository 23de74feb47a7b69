"""``serve``, ``demo`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hs_stream.cli.common import DEBUG, Config, guarded, run, settings_of, unlogged
from hs_stream.service.api import Viewer
from hs_stream.service.logs import LogFile, configure_logging
from hs_stream.service.settings import load_settings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (demo, serve, doctor):
        app.command()(command)


def viewer_of(wanted: bool | str) -> Viewer | None:
    """What adds the viewer's pages, if it is ``wanted`` (``"auto"``: if it is installed)."""
    import hs_stream.viewer  # noqa: PLC0415 - an optional extra

    return hs_stream.viewer.mount if wanted is True or (wanted == "auto" and hs_stream.viewer.available()) else None


@guarded
def serve(config: Config = None) -> None:
    """Run the service: connectors, executor, outbox and HTTP. SIGTERM and SIGINT stop it in an orderly way."""
    from hs_stream.service.app import run_service  # noqa: PLC0415 - only this command needs the server

    settings = load_settings(config)
    logs = settings.logging
    configure_logging(
        "debug" if DEBUG.get() else logs.level,
        logs.format,
        levels=logs.levels,
        file=LogFile(logs.file, logs.file_max, logs.file_keep) if logs.file else None,
    )
    run_service(settings, viewer_of(settings.http.viewer))


@guarded
def demo(
    seconds: Annotated[float | None, typer.Option("--for", min=1, help="Stop after so many seconds.")] = None,
    port: Annotated[
        int | None, typer.Option(help="Of the HTTP API; default: 8080, or a free one.", min=0, max=65535)
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where to keep the data; default: a temporary directory.")] = None,
) -> None:
    """Everything embedded, nothing installed: broker, store, a simulated house and the service, then a summary."""
    from hs_stream.service.demo import run_demo  # noqa: PLC0415 - only this command needs the simulator

    raise typer.Exit(run_demo(seconds, port, data, debug=DEBUG.get(), viewer=viewer_of("auto")))


@guarded
def doctor(config: Config = None) -> None:
    """Check settings, workflows, broker, store, versions and the clock, and say what to do about each failure."""
    from hs_stream.service.doctor import examine  # noqa: PLC0415 - only this command needs it

    settings = settings_of(config)
    with unlogged():
        findings = run(examine(settings))
    for finding in findings:
        mark = "ok  " if finding.ok else "FAIL"
        typer.echo(f"{mark} {finding.what}: {finding.text}")
        if finding.hint:
            typer.echo(f"     -> {finding.hint}")
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        raise typer.Exit(3 if any(finding.unreachable for finding in failed) else 1)
