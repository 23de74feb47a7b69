"""What every command shares: errors to exit codes, times, stores, finding streams and workflows."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextvars import ContextVar
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final, ParamSpec, TextIO, TypeVar

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hs_stream.core.errors import (
    BrokerUnavailable,
    ConfigurationError,
    Fenced,
    HsStreamError,
    LawViolation,
    NotFound,
    StoreUnavailable,
    ToolError,
    Unavailable,
    did_you_mean,
)
from hs_stream.core.stream import StreamId
from hs_stream.core.time import MAX_TIME, MIN_TIME, parse_time
from hs_stream.core.visible import visible
from hs_stream.core.workflow import WorkflowDefinition
from hs_stream.engine.engine import Engine
from hs_stream.engine.ports import Store, StreamRecord
from hs_stream.service.host import Host, reading_store
from hs_stream.service.lease import StoreInUse
from hs_stream.service.logs import configure_logging
from hs_stream.service.remote import Remote, service_at, service_of
from hs_stream.service.settings import Settings
from hs_stream.service.settings_file import load_settings
from hs_stream.service.side_tasks import first_error
from hs_stream.service.silence import suggest
from hs_stream.service.stores import has_store
from hs_stream.service.wiring import load_registry
from hs_stream.service.workflows.catalog import Catalog
from hs_stream.service.workflows.file import load_workflow
from hs_stream.service.workflows.loading import checks_of

__all__ = [
    "DEBUG",
    "Config",
    "Held",
    "catalog_of",
    "change_store",
    "find_record",
    "find_workflow",
    "guarded",
    "output",
    "parse_span",
    "reading_store",
    "run",
    "say",
    "say_error",
    "show_table",
    "unlogged",
    "wait_settled",
]

_WIDE: Final = 10_000
_SETTLE_SECONDS: Final = 10
_SETTLE_TRIES: Final = 30
P = ParamSpec("P")
R = TypeVar("R")

DEBUG: ContextVar[bool] = ContextVar("debug", default=False)
Config = Annotated[
    Path | None, typer.Option("--config", help="The settings file; see the documentation for the default.")
]

_CODES: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (ConfigurationError, 2),
    (NotFound, 2),
    (Fenced, 4),
    (StoreUnavailable, 3),
    (BrokerUnavailable, 3),
    (Unavailable, 3),
    (ToolError, 1),
    (LawViolation, 1),
    (HsStreamError, 1),
)


def say_error(message: str) -> None:
    """One line on stderr."""
    print(visible(f"hs-stream: {' '.join(message.split())}"), file=sys.stderr)


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print lines of text. What a device put into them reaches no terminal as a control character."""
    typer.echo(visible(str(text), lines=True), err=err, nl=nl)


class _Screen(StringIO):
    """Writes to a terminal what `visible` makes of it."""

    def write(self, text: str) -> int:
        return sys.stdout.write(visible(text, lines=True))


def output() -> TextIO:
    """Where data is printed: exactly as it is into a file or a pipe, and fit for the eyes on a terminal."""
    return _Screen() if sys.stdout.isatty() else sys.stdout


def exit_code(error: HsStreamError) -> int:
    """The exit code of an error by the law of the command line."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


@contextlib.contextmanager
def unlogged() -> Iterator[None]:
    """No log records meanwhile: what goes wrong is said by the command itself."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one line on stderr and an exit code; with ``--debug`` they are raised."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (HsStreamError, BaseExceptionGroup) as caught:
            error = first_error(caught) if isinstance(caught, BaseExceptionGroup) else caught
            if DEBUG.get() or not isinstance(error, HsStreamError):
                raise
            say_error(str(error))
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return wrapper


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    """Run it in a loop of its own."""
    return asyncio.run(coroutine)


def show_table(names: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Print a table. Where the output is no terminal, nothing is cut."""
    table = Table(*names, box=SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(escape(visible(cell)) for cell in row))
    for column in table.columns:
        column.overflow = "fold"
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    if title:
        # Not the table's own title, which is folded at the table's width.
        console.print(visible(title), markup=False, highlight=False, soft_wrap=True)
    console.print(table)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def parse_span(start: str | None, end: str | None, *, until_now: bool = False) -> tuple[int, int]:
    """``(start, end]`` from ``--from`` and ``--to``; open ends are infinite (``until_now``: the end is now)."""
    now = now_ms()
    bounds = []
    for option, text, default in (("--from", start, MIN_TIME), ("--to", end, now if until_now else MAX_TIME)):
        try:
            bounds.append(default if text is None else parse_time(text, now=now))
        except ValueError as error:
            raise ConfigurationError(f"{option}: {error}") from None
    if bounds[0] >= bounds[1]:
        raise ConfigurationError("--from is not before --to", hint="the start is excluded, the end included")
    return bounds[0], bounds[1]


# --- stores ---


def settings_of(config: Path | None) -> Settings:
    """The settings, with logging of warnings only: commands print results."""
    configure_logging("debug" if DEBUG.get() else "warning")
    return load_settings(config)


class Held:
    """The store, opened, and the right to write to it, for as long as a command changes it."""

    def __init__(self, settings: Settings, host: Host) -> None:
        self.settings, self.store, self._host = settings, host.store, host

    async def catalog(self) -> Catalog:
        """The workflows of the settings' files and those that are saved in the store."""
        catalog = Catalog(self.settings, load_registry(self.settings))
        await catalog.open(self.store)
        return catalog

    async def engine(self, workflows: Sequence[WorkflowDefinition]) -> Engine:
        """An engine over the store, opened."""
        engine = self._host.engine()
        await self._host.begin(engine, workflows)
        return engine


def change_store(
    settings: Settings, here: Callable[[Held], Coroutine[Any, Any, R]], through: Callable[[Remote], R]
) -> R:
    """How every command changes a store: ``here``, or where a service has the store, ``through`` that service.

    `Unavailable` where a service has it and does not answer.
    """
    if settings.store.url.startswith("memory://"):
        service = service_at(settings)
        if service is None:
            raise ConfigurationError("memory:// keeps nothing", hint="start the service first, or set store.url")
        return through(service)

    async def attempt() -> R:
        async with Host(settings, beside=True) as host:
            return await here(Held(settings, host))

    try:
        return run(attempt())
    except StoreInUse as taken:
        owner = taken.owner
    return through(run(service_of(settings, owner)))


def wait_settled(service: Remote) -> bool:
    """Wait until ``service`` has computed what follows from a change, but not for ever; whether it has.

    The change is made: that the service ends meanwhile is no error, its next run computes it.
    """
    try:
        tries = range(_SETTLE_TRIES)
        return any(service.ask("GET", f"/api/settled?seconds={_SETTLE_SECONDS}")["settled"] for _ in tries)
    except Unavailable:
        return False


# --- finding things ---


def parse_stream(text: str) -> StreamId:
    """A stream's name from the command line."""
    try:
        return StreamId.parse(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


async def find_record(store: Store, text: str) -> StreamRecord:
    """The stored stream ``text``. `NotFound` suggests others."""
    stream = parse_stream(text)
    records = {record.stream: record for record in await store.streams()}
    if stream in records:
        return records[stream]
    hint = await suggest(store, stream) or "see hs-stream streams for those there are"
    raise NotFound(f"there is no stream {stream}", hint=hint)


def catalog_of(settings: Settings) -> Catalog:
    """The workflows of the settings' files and those that are saved, where there is a store."""
    catalog = Catalog(settings, load_registry(settings))

    async def read() -> None:
        async with reading_store(settings) as store:
            await catalog.open(store)

    if has_store(settings):
        run(read())
    return catalog


def _is_same_file(name: str, path: str) -> bool:
    # The path of a saved workflow is that of no file.
    return Path(name).is_file() and Path(path).is_file() and Path(name).samefile(path)


def find_workflow(
    settings: Settings, name: str, workflows: list[WorkflowDefinition] | None = None
) -> tuple[WorkflowDefinition, list[WorkflowDefinition]]:
    """A workflow by its name or by its file, and all (``workflows``) that belong together with it."""
    workflows = catalog_of(settings).workflows if workflows is None else workflows
    for workflow in workflows:
        if name == workflow.name or _is_same_file(name, workflow.path):
            return workflow, workflows
    if Path(name).is_file():
        found = load_workflow(name, load_registry(settings), checks_of(settings))
        return found, [*(other for other in workflows if other.name != found.name), found]
    raise NotFound(
        f"there is no workflow {name!r}", hint=did_you_mean(name, [item.name for item in workflows]) or "name its file"
    )
