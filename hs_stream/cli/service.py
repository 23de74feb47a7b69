"""``serve``, ``demo`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from hs_stream.cli.common import DEBUG, Config, guarded, run, say, settings_of, unlogged
from hs_stream.core.errors import ConfigurationError
from hs_stream.core.urls import redacted
from hs_stream.service.logs import LogFile, configure_logging
from hs_stream.service.settings import Settings
from hs_stream.service.settings_file import find_settings, load_settings
from hs_stream.service.workflows.catalog import saved_workflows
from hs_stream.service.workflows.loading import first_workflow, workflow_files

if TYPE_CHECKING:
    from hs_stream.service.http.api import Viewer  # the server, which most commands do without

__all__ = ["register"]

logger = structlog.get_logger(__name__)


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (demo, serve, doctor):
        app.command()(command)


def viewer_of(wanted: bool | str) -> Viewer | None:
    """What adds the viewer's pages, if it is ``wanted`` (``"auto"``: if it is installed)."""
    import hs_stream.viewer  # noqa: PLC0415 - an optional extra

    return hs_stream.viewer.mount if wanted is True or (wanted == "auto" and hs_stream.viewer.available()) else None


@guarded
def serve(
    empty: Annotated[bool, typer.Option("--empty", help="Begin also where there is no workflow yet.")] = False,
    config: Config = None,
) -> None:
    """Run the service: connectors, executor, outbox and HTTP. SIGTERM and SIGINT stop it in an orderly way.

    Where there is no settings file, no file matches the workflows and none is saved in the store, it does not begin,
    unless --empty. With a settings file it begins, says so, and waits for a workflow.
    """
    from hs_stream.service.app import run_service  # noqa: PLC0415 - only this command needs the server

    settings, file = load_settings(config), find_settings(config)
    logs = settings.logging
    configure_logging(
        "debug" if DEBUG.get() else logs.level,
        logs.format,
        levels=logs.levels,
        file=LogFile(logs.file, logs.file_max, logs.file_keep) if logs.file else None,
    )
    files = workflow_files(settings.workflows)
    if not files and settings.workflows and not empty:
        run(_has_saved(settings, file))
    logger.info(
        "settings",
        file=str(file) if file else "none, so all defaults",
        directory=str(Path.cwd()),
        workflows=f"{', '.join(settings.workflows) or 'none named'}: {len(files)} files",
    )
    run_service(settings, viewer_of(settings.http.viewer))


async def _has_saved(settings: Settings, file: Path | None) -> None:
    """Say it when no workflow is saved either: most likely this is another directory than was meant.

    `ConfigurationError` where there are no settings either, and so nothing that says that it is the right one.
    """
    if await saved_workflows(settings):
        return
    text = (
        f"there is no workflow to run: no file matches {', '.join(settings.workflows)} in {Path.cwd()}, and none is "
        f"saved in {redacted(settings.store.url)}; settings: {file or 'no file here, so all defaults'}"
    )
    hint = f"{first_workflow(settings)} writes a first workflow"
    if file is not None:
        logger.warning(text, hint=f"start it where your config directory is; {hint}, hs-stream workflow save runs one")
        return
    raise ConfigurationError(
        text,
        hint="start it where your config directory is, or name your settings with --config; "
        f"{hint}; --empty begins without one",
    )


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
        say(f"{mark} {finding.what}: {finding.text}")
        if finding.hint:
            say(f"     -> {finding.hint}")
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        raise typer.Exit(3 if any(finding.unreachable for finding in failed) else 1)
