"""Logging of the service: structlog and the standard library through one formatter, to stderr and perhaps to a file.

The third way, over MQTT, needs a running service: see `hs_stream.service.mqtt_log`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO, TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal, TextIO, cast

import structlog

from hs_stream.core.errors import ConfigurationError
from hs_stream.core.visible import visible
from hs_stream.private_files import make_private, narrow, private_opener

__all__ = ["LogFile", "configure_logging", "json_formatter"]

_QUIET = ("pymongo", "asyncio", "uvicorn.error", "uvicorn.access", "httpx")
_OF_LINES = ("exception", "stack")
_EVERY = 60.0
"""Seconds between two lines about the same nonsense of HTTP clients, which need no token to send it."""
_KINDS = 20
_levels_set: set[str] = set()
"""Loggers that the last `configure_logging` gave a level of their own."""

_shared: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


@dataclass(frozen=True, slots=True)
class LogFile:
    """Where to log besides stderr. Beyond ``max_bytes`` it is renamed to ``.1``, and so on; ``keep`` old ones stay."""

    path: str
    max_bytes: int = 10_000_000
    keep: int = 5


def json_formatter(*processors: structlog.typing.Processor) -> logging.Formatter:
    """One JSON object a line; ``processors`` go over the event, tracebacks included, before it is written."""
    return _formatter([structlog.processors.format_exc_info, *processors, structlog.processors.JSONRenderer()])


def _formatter(renderer: list[structlog.typing.Processor]) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )


def _formatter_of(form: Literal["console", "json"], *, colors: bool) -> logging.Formatter:
    if form == "json":
        return json_formatter()
    # rich's tracebacks, the default, show the values of local variables, passwords among them.
    console = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=0, exception_formatter=_traceback)
    return _formatter([_seen, console])


def _seen(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """What a device chose reaches no terminal as a control character; JSON has escapes of its own."""
    return {
        visible(key): visible(value, lines=key in _OF_LINES) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(visible(text.getvalue(), lines=True))


class _Seldom(logging.Filter):
    """Lets a warning through once in `_EVERY` seconds, with how often it came meanwhile. Errors always."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.WARNING:
            return True
        said = str(record.msg)
        if said not in self._seen and len(self._seen) >= _KINDS:
            said = ""
        now = self._clock()
        since, more = self._seen.get(said, (now - _EVERY, 0))
        if now - since < _EVERY:
            self._seen[said] = since, more + 1
            return False
        self._seen[said] = now, 0
        if more:
            record.msg = f"{record.msg} ({more} more since the last time)"
        return True


def configure_logging(
    level: str = "info",
    form: Literal["console", "json"] = "console",
    *,
    levels: Mapping[str, str] | None = None,
    file: LogFile | None = None,
) -> None:
    """Everything at ``level`` and above, one line per event. Idempotent.

    Libraries are kept to warnings. ``levels``: of loggers by name (and those below it), instead of ``level``.
    `ConfigurationError` when ``file`` cannot be written.
    """
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(_formatter_of(form, colors=sys.stderr.isatty()))
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, RotatingFileHandler):
            old.close()
    root.handlers = [stderr]
    root.setLevel(level.upper())
    for name in _levels_set:
        logging.getLogger(name).setLevel(logging.NOTSET)
    _levels_set.clear()
    for name, of_its_own in {**dict.fromkeys(_QUIET, "warning"), **(levels or {})}.items():
        logging.getLogger(name).setLevel(of_its_own.upper())
        _levels_set.add(name)
    logging.getLogger("uvicorn.error").filters = [_Seldom()]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    if file is not None:
        root.addHandler(_file_handler(file, form))  # last: it says what it has narrowed


class _PrivateFileHandler(RotatingFileHandler):
    """Its files are 0600; those that it has rotated before, too."""

    def _open(self) -> TextIOWrapper:
        made = open(  # noqa: SIM115 - the handler closes it; Path.open takes no opener
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=private_opener
        )
        return cast(TextIOWrapper, made)


def _file_handler(file: LogFile, form: Literal["console", "json"]) -> logging.Handler:
    path = Path(file.path)
    try:
        make_private(path.parent)
        handler = _PrivateFileHandler(path, maxBytes=file.max_bytes, backupCount=file.keep, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"logging.file: cannot write {path}: {error.strerror}", hint="name a file that the service's user may write"
        ) from None
    narrow(*(path.with_name(f"{path.name}.{number}") for number in range(1, file.keep + 1)))
    handler.setFormatter(_formatter_of(form, colors=False))
    return handler
