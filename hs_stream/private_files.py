"""Files and directories that only the user of this process may read, whatever the umask says.

What is stored says when who was at home. So databases, logs and exports are made with 0600 and directories with 0700,
and what an earlier version or another program left wider is narrowed. A directory that was there before and is not
known to be ours alone (the working directory, ``/tmp``, a home) is left as it is.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Final, TextIO

__all__ = ["make_private", "narrow", "open_private", "private_opener", "touch_private"]

_LOG: Final = logging.getLogger(__name__)

_OTHERS: Final = 0o077


def make_private(path: Path) -> None:
    """Make the directory and those above it that are missing, each 0700. Raises what ``mkdir`` raises."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in missing:
        one.chmod(0o700)


def private_opener(path: str, flags: int) -> int:
    """The ``opener`` of `open` for a file of 0600; one that is there already is narrowed."""
    number = os.open(path, flags, 0o600)
    try:
        narrow(Path(path))
    except BaseException:
        os.close(number)
        raise
    return number


def open_private(path: Path) -> TextIO:
    """A text file to write, 0600 and empty."""
    return open(path, "w", encoding="utf-8", newline="", opener=private_opener)


def touch_private(path: Path) -> None:
    """Make an empty file of 0600 where there is none; narrow the one that is there. Raises `OSError`."""
    os.close(private_opener(str(path), os.O_WRONLY | os.O_CREAT))


def narrow(*paths: Path) -> None:
    """Take from group and others what they may do with those of ``paths`` that are there; one log line if it was any.

    Whoever may not change that (it is another user's file) is told in the log, too, and goes on.
    """
    narrowed, refused = [], []
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if mode & _OTHERS:
            try:
                path.chmod(mode & ~_OTHERS)
                narrowed.append(str(path))
            except OSError:
                refused.append(str(path))
    if narrowed:
        _LOG.info("only this user may read from now on: %s", ", ".join(narrowed))
    if refused:
        _LOG.warning("others may read what this user cannot change: %s; chmod go= it", ", ".join(refused))
