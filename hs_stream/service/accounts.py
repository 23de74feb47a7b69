"""What came of each source since a generation began: readings, dead letters by reason, what was ignored; and its log.

1. The first dead letter of a source and reason is in the log at once, with its text. What follows is counted, and
   summed up every `PERIOD` seconds, one line per source.
2. It is said plainly where nothing of a source could be used: after its first `FEW` dead letters, and in each summary.
3. Whatever is sent, there are at most `LINES` lines of these two kinds, `SUMMED` lines per summary, `MAX_SOURCES`
   sources and `MAX_REASONS` reasons of each; the rest is counted under `OTHER`.
4. What a device sends is shown as its ``repr``, cut.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from hs_stream.core.time import format_duration, format_time
from hs_stream.engine.ports import DeadLetter

__all__ = ["FEW", "LINES", "MAX_REASONS", "MAX_SOURCES", "OTHER", "PERIOD", "SUMMED", "Accounts", "reasons", "shown"]

logger = structlog.get_logger(__name__)

PERIOD: Final = 300.0
FEW: Final = 10
LINES: Final = 100
SUMMED: Final = 20
MAX_SOURCES: Final = 200
MAX_REASONS: Final = 20
OTHER: Final = "other"
_SHOWN: Final = 240
_SEE: Final = "hs-stream dead-letters lists them"


def shown(text: str) -> str:
    """Text that a device may have chosen, fit for a line of a log: its ``repr``, cut."""
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _bare(text: str) -> str:
    """The same without quotes, for a field of a log record, which is quoted where it must be."""
    return shown(text)[1:-1]


def reasons(counts: Mapping[str, int]) -> str:
    """The most frequent reasons with their counts: ``time_invalid 300, json 12``."""
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(order) - 5} other reasons" if len(order) > 5 else ""
    return ", ".join(f"{reason} {count}" for reason, count in order[:5]) + more


def _cut(letter: DeadLetter) -> DeadLetter:
    texts = letter.source[:_SHOWN], letter.reason[:_SHOWN], letter.message[: _SHOWN + 1], letter.topic[: _SHOWN + 1]
    return DeadLetter(letter.time, *texts)


class _Account:
    __slots__ = ("dead", "newest", "readings", "told", "unsaid", "used")

    def __init__(self) -> None:
        self.readings = 0
        self.dead: dict[str, int] = {}
        self.newest: DeadLetter | None = None
        """Cut, and without its payload."""
        self.unsaid: dict[str, int] = {}
        """Dead letters that no line of the log has told of yet."""
        self.used = 0
        """Readings since the last summary."""
        self.told = False
        """Whether it was said that nothing of it could be used."""

    def count(self, reason: str, count: int) -> tuple[str, bool]:
        """The word under which ``reason`` is counted (rule 3), and whether it is the first of it."""
        word = reason if reason in self.dead or len(self.dead) < MAX_REASONS else OTHER
        before = self.dead.get(word, 0)
        self.dead[word] = before + count
        return word, not before


class Accounts:
    """See the module. ``now`` counts seconds. `news` is set where a source has a new kind of trouble."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.news = asyncio.Event()
        self._ignored: Callable[[], Mapping[str, int]] = dict
        self._accounts: dict[str, _Account] = {}
        self._lines = 0
        self._since = now()

    def begin(self, ignored: Callable[[], Mapping[str, int]]) -> None:
        """A new generation begins, perhaps with other sources: what was not said yet is said now, and all is forgotten.

        ``ignored``: messages of each source in this generation that were neither readings nor errors.
        """
        self.summarize()
        self._accounts.clear()
        self._ignored, self._lines = ignored, 0

    # --- counting ---

    def readings(self, source: str, count: int) -> None:
        """``count`` readings of ``source`` were stored."""
        account = self._account(source)
        account.readings += count
        account.used += count

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """These could not be used."""
        for whole in letters:
            account = self._account(whole.source)
            reason, first = account.count(whole.reason, whole.count)
            account.newest = letter = _cut(whole)
            if first:
                self.news.set()
            said = first and self._line(f"first dead letter of source {shown(letter.source)}", letter)
            if unsaid := whole.count - said:
                account.unsaid[reason] = account.unsaid.get(reason, 0) + unsaid
            if not account.readings and not account.told and (total := sum(account.dead.values())) >= FEW:
                account.told = self._line(
                    f"nothing of source {shown(letter.source)} could be used: all of its first {total} were dead "
                    f"letters ({reasons(account.dead)})",
                    letter,
                )

    def _account(self, source: str) -> _Account:
        if source not in self._accounts and len(self._accounts) >= MAX_SOURCES:
            source = OTHER
        return self._accounts.setdefault(source, _Account())

    # --- the log ---

    def _line(self, what: str, letter: DeadLetter) -> bool:
        """Say it, while there is room for lines of its kind."""
        if self._lines >= LINES:
            return False
        self._lines += 1
        text = f"{what}; {_SEE}"
        logger.warning(text, reason=letter.reason, topic=_bare(letter.topic), says=_bare(letter.message))
        return True

    async def run(self, period: float = PERIOD) -> None:
        """Sum up every ``period`` seconds, until cancelled."""
        while True:
            await asyncio.sleep(period)
            self.summarize()

    def summarize(self) -> None:
        """Say what was not said since the last time, at most `SUMMED` lines, the largest counts first."""
        span = format_duration(max(round(self._now() - self._since), 1) * 1000)
        self._since = self._now()
        due = sorted(
            ((sum(one.unsaid.values()), name) for name, one in self._accounts.items() if one.unsaid), reverse=True
        )
        for count, name in due[:SUMMED]:
            account = self._accounts[name]
            letter, what = account.newest, f"source {shown(name)}: {count} dead letters in the last {span}"
            if not account.used:
                what = f"nothing of source {shown(name)} could be used in the last {span}: {count} dead letters"
            newest = {} if letter is None else {"topic": _bare(letter.topic), "newest": _bare(letter.message)}
            what += f" ({reasons(account.unsaid)}); {_SEE}"
            logger.warning(what, **newest)
        if rest := due[SUMMED:]:
            total = sum(count for count, _ in rest)
            what = f"{len(rest)} other sources: {total} dead letters in the last {span}; {_SEE}"
            logger.warning(what)
        for account in self._accounts.values():
            account.unsaid.clear()
            account.used = 0

    # --- asked ---

    def documents(self) -> dict[str, dict[str, Any]]:
        """By source: ``readings``, ``dead_letters`` by reason, ``ignored``, and the ``newest`` dead letter's text."""
        ignored = self._ignored()
        found = {}
        for name in [*self._accounts, *(name for name in ignored if name not in self._accounts)][: MAX_SOURCES + 1]:
            account = self._accounts.get(name, _Account())
            document: dict[str, Any] = {
                "readings": account.readings,
                "dead_letters": dict(account.dead),
                "ignored": ignored.get(name, 0),
            }
            if account.newest is not None:
                letter = account.newest
                document["newest"] = {
                    "time": format_time(letter.time),
                    "reason": letter.reason,
                    "topic": letter.topic,
                    "message": letter.message,
                }
            found[name] = document
        return found
