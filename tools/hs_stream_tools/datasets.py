"""Data to learn from: minibatches of a stream, and the well-known sets of scikit-learn as streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from hs_stream.core.batch import NOTHING, Batch
from hs_stream.core.errors import ToolError
from hs_stream.core.time import Grid, TimeInterval, format_duration
from hs_stream.core.tool import SKIP, Drive, Duration, FoldTool, OnGrid, Support, Tool, WindowTool
from hs_stream.core.value import Value
from hs_stream_tools._models import library, need
from hs_stream_tools._values import instant

__all__ = ["Dataset", "Minibatch", "MinibatchByTime"]


@dataclass(frozen=True, kw_only=True)
class Minibatch(FoldTool):
    """Every so many instances, a list of them.

    ``size``: how many, at least 1. Output: at each instance whose number, counted from the first of all, is a multiple
    of ``size``, the list of the last ``size`` values, oldest first. Values of any type; ``None`` and NaN count. A late
    instance moves the bounds of all later batches; ``minibatch_by_time`` has bounds that nothing moves.

    >>> tool = Minibatch(size=2)
    >>> state, found = tool.initial(), []
    >>> for time, value in enumerate("abcd"):
    ...     state, result = tool.step(state, time, value)
    ...     found.append(result)
    >>> found
    [SKIP, ['a', 'b'], SKIP, ['c', 'd']]
    """

    name = "minibatch"
    version = "1.0.0"
    samples = ({"size": 1}, {"size": 3})
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")

    def initial(self) -> Value:
        """An empty list."""
        return []

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """The state is the batch under way."""
        batch = [*state, value]
        return (batch, SKIP) if len(batch) < self.size else ([], batch)


@dataclass(frozen=True, kw_only=True)
class MinibatchByTime(WindowTool):
    """The values of each span of time, as a list.

    ``width``: how long; ``every`` (default: ``width``, so that each instance is in one batch) and ``tz`` as of the
    sliding tools. Output at each t of the grid: the values in ``(t - width, t]``, oldest first, of any type; none where
    there is none.

    >>> batch = Batch.of([(1000, "a"), (60_000, "b"), (60_001, "c")])
    >>> list(MinibatchByTime(width=60_000).evaluate(TimeInterval(0, 120_000), [batch]))
    [(60000, ['a', 'b']), (120000, ['c'])]
    """

    name = "minibatch_by_time"
    version = "1.0.0"
    samples = ({"width": "10s"}, {"width": "1h", "every": "20m"}, {"width": "1d", "tz": "Europe/Brussels"})

    def __post_init__(self) -> None:
        if self.every is None:
            object.__setattr__(self, "every", self.width)
        super().__post_init__()

    def reduce(self, window: Batch, time: int) -> Value:
        """All values."""
        return window.plain()


DatasetName = Literal["iris", "wine", "breast_cancer", "digits"]
Part = Literal["all", "train", "test"]


@lru_cache(maxsize=16)
def _rows(dataset: DatasetName, part: Part, seed: int) -> tuple[tuple[str, ...], list[list[float]], list[str]]:
    """Names of the features, rows, and the class of each row."""
    found = library("sklearn.datasets").__dict__[f"load_{dataset}"]()
    names = [str(found.target_names[target]) for target in found.target]
    rows = list(range(len(names)))
    if part != "all":
        split = library("sklearn.model_selection").train_test_split
        rows = split(rows, train_size=0.5, stratify=names, random_state=seed)[("train", "test").index(part)]
    features = tuple(str(name) for name in found.feature_names)
    return features, [[float(x) for x in found.data[at]] for at in rows], [names[at] for at in rows]


@dataclass(frozen=True, kw_only=True)
class Dataset(Tool):
    """A well-known set of labelled rows as a stream, to try a learner with.

    ``dataset``: ``iris``, ``wine``, ``breast_cancer`` or ``digits``, as they come with scikit-learn. ``part``: ``all``
    rows, or one half of each class, ``train`` or ``test``. ``every``: time between two rows, ``first``: the time of the
    first one (ISO 8601 with an offset). ``shuffle``: in another order in each epoch (default), or in that of the set.
    ``epochs``: how often the set comes. ``seed``: of the halves and the orders.

    Output: an object with a number for each feature, by its name in the set, and ``label``, the name of the class.

    >>> rows = Dataset(dataset="iris", shuffle=False).evaluate(TimeInterval(0, 120_000), [])
    >>> rows.times.tolist(), rows.plain()[0]["petal width (cm)"], rows.plain()[0]["label"]
    ([60000, 120000], 0.2, 'setosa')
    """

    name = "dataset"
    version = "1.0.0"
    kind = "generator"
    arity = 0
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"dataset": "iris", "epochs": 2},
        {"dataset": "wine", "part": "test", "every": "1s", "first": "2015-02-04T17:51:00Z", "seed": 3},
        {"dataset": "iris", "part": "train", "shuffle": False},
    )
    dataset: DatasetName
    part: Part = "all"
    every: Duration = Duration(60_000)
    first: str = "1970-01-01T00:01:00Z"
    shuffle: bool = True
    epochs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError(f"every must be longer than 0, not {format_duration(self.every)}")
        if self.epochs < 1 or self.seed < 0:
            raise ValueError(f"epochs must be at least 1 and seed at least 0, but are {self.epochs} and {self.seed}")
        instant("first", self.first)
        need(self.name, "sklearn")

    def support(self, slot: int) -> Support:
        """Never asked: there is no input."""
        raise ToolError(f"dataset has no inputs, so there is no input {slot}")

    def drive(self) -> Drive:
        """The grid that ``first`` lies on."""
        return OnGrid(Grid(self.every, None, instant("first", self.first) % self.every))

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """The rows whose turn is in ``interval``. Which one it is depends on the time alone."""
        names, rows, labels = _rows(self.dataset, self.part, self.seed)
        first = instant("first", self.first)
        last = first + self.every * (self.epochs * len(rows) - 1)
        start, end = max(interval.start, first - 1), min(interval.end, last)
        if start >= end:
            return NOTHING
        turns = range((start - first) // self.every + 1, (end - first) // self.every + 1)
        times, values, order, shown = [], [], range(len(rows)), -1
        for turn in turns:
            epoch, at = divmod(turn, len(rows))
            if self.shuffle and epoch != shown:
                random = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
                order, shown = random.permutation(len(rows)).tolist(), epoch
            times.append(first + turn * self.every)
            values.append(dict(zip(names, rows[order[at]], strict=True)) | {"label": labels[order[at]]})
        return Batch.build(times, values)
