"""Errors out of task groups."""

from __future__ import annotations

from hs_stream.core.errors import HsStreamError

__all__ = ["first_error"]


def first_error(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error to report: ours before others, whichever came first."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop(0)
        if isinstance(error, BaseExceptionGroup):
            stack[:0] = error.exceptions
        else:
            flat.append(error)
    return next((error for error in flat if isinstance(error, HsStreamError)), flat[0])
