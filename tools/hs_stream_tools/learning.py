"""Online learning: classifiers, anomaly scores and clusters that learn from every instance, and tell before they do.

These tools need ``pip install 'hs_stream[learning]'`` (scikit-learn and river). What holds for all of them:

1. An instance is an object with a number in each of ``features``, or a list of such objects (a minibatch). Other
   fields do not matter. An object in which a feature is missing (``None``, NaN, not there) is left out: nothing is
   learnt from it, and there is no output for it. ``TypeError`` for a feature that is no number, ``ValueError`` for one
   that is infinite.
2. **Test, then train**: the output at t is what the model says that has learnt from all instances before t. The objects
   of a minibatch are all told first, then learnt in their order; the output is a list of what each of them gives.
3. The model is the state of a fold: it is stored as snapshots, a late or corrected instance goes back to the last
   one before it and learns anew from there, and the result is that of having learnt in order of event time.
4. Nothing depends on threads, clocks or sequential random numbers. The same version of the libraries on the same kind
   of machine gives the same bits.
"""

from __future__ import annotations

import contextlib
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

from hs_stream.core.batch import Batch
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import SKIP, Drive, FoldTool, FromInput, Pointwise, Previous, Support, Tool
from hs_stream.core.value import Value
from hs_stream_tools._models import (
    CLASSIFIERS,
    Classifier,
    Gaussian,
    HalfSpaces,
    KMeans,
    Linear,
    NaiveBayes,
    Row,
    Scorer,
    need,
)
from hs_stream_tools._values import number, wrong

__all__ = ["AnomalyScore", "Cluster", "LearnClassifier", "LearnModel", "Predict"]

Label = str | int | float | bool
ClassifierName = Literal["logistic", "svm", "perceptron", "passive_aggressive", "naive_bayes"]


def row_of(tool: str, features: Sequence[str], value: Value) -> Row | None:
    """The features of one object as floats, or ``None`` where one is missing. Rule 1."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong(tool, "objects, or lists of them", value)
    row = []
    for name in features:
        feature = number(tool, value.get(name), f" in {name}")
        if feature is None:
            return None
        if math.isinf(feature):
            raise ValueError(f"{tool}: {name} is {feature}, which no model can learn from")
        row.append(feature)
    return row


def check_features(features: Sequence[str]) -> None:
    """``ValueError`` unless there is at least one, and each once."""
    if not features or len(set(features)) != len(features):
        raise ValueError(f"features must be at least one name, each once, but are {', '.join(features) or 'none'}")


def _objects(names: Sequence[str], count: int) -> list[dict[str, Value]]:
    """Some objects with numbers under ``names``, for the checker: around 0, far away, ints, with gaps."""
    shapes: list[dict[str, Value]] = []
    for at in range(count):
        numbers = [math.sin(1.7 * at + 2.3 * column) * (10 if at % 5 == 0 else 1) for column in range(len(names))]
        shapes.append({name: round(x) if at % 3 == 0 else x for name, x in zip(names, numbers, strict=True)})
    shapes[-1][names[0]] = float("nan")
    shapes[-2][names[-1]] = None
    return shapes


def _finite(state: Value) -> bool:
    if isinstance(state, float):
        return math.isfinite(state)
    if isinstance(state, dict):
        return all(map(_finite, state.values()))
    return not isinstance(state, list) or all(map(_finite, state))


class Learner(FoldTool):
    """A fold whose state is that of a model, which is made once for a run of instances."""

    takes = "examples"
    packages: ClassVar[tuple[str, ...]] = ("sklearn", "river")
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        check_features(self.features)
        need(self.name, *self.packages)

    @abstractmethod
    def load(self, state: Value) -> Any:
        """What goes through the instances, from the state."""

    @abstractmethod
    def dump(self, learner: Any) -> Value:
        """The state again, as a canonical value."""

    @abstractmethod
    def take(self, learner: Any, rows: Sequence[tuple[Row, dict[str, Value]]]) -> list[Value]:
        """What the model says of each of ``rows``, at least one, or `SKIP`; then learn them. Changes ``learner``."""

    def initial(self) -> Value:
        """Nothing learnt."""
        return None

    def step(self, state: Value, time: int, value: Value) -> tuple[Value, Value]:
        """`run` for one instance."""
        state, result = self.run(state, Batch.build([time], [value]))
        return state, result.plain()[0] if result else SKIP

    def run(self, state: Value, batch: Batch) -> tuple[Value, Batch]:
        """`load` once, `take` each instance, `dump` once. ``ValueError`` for what leaves the model without numbers."""
        learner = self.load(state)
        times, results = [], []
        for time, value in batch:
            result = self.result_of(learner, value)
            if result is not SKIP:
                times.append(time)
                results.append(result)
        after = self.dump(learner)
        if not _finite(after):
            # It would fail at all that comes later. It never has finite numbers again, so one look is enough.
            raise ValueError(
                f"{self.name}: these numbers are too large for the model: what it learnt would be infinite"
            )
        return after, Batch.build(times, results)

    def result_of(self, learner: Any, value: Value) -> Value:
        """The output for one instance, or `SKIP`. Changes ``learner``."""
        objects = value if isinstance(value, list) else [value]
        found = [(row, item) for item in objects if (row := row_of(self.name, self.features, item)) is not None]
        results = self.take(learner, found) if found else []
        kept = [result for result in results if result is not SKIP]
        if not kept:
            return SKIP
        return kept if isinstance(value, list) else kept[0]

    def examples(self, slot: int) -> Sequence[Value]:
        """Objects and minibatches."""
        objects = _objects(self.features, 16)
        return [*objects, objects[:3], objects[-4:], []]


# --- classifiers ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Learnt:
    model: Classifier
    told: int
    right: int
    learnt: bool


def _classifier(parameters: Mapping[str, Any], state: Value) -> Classifier:
    width, classes = len(parameters["features"]), len(parameters["classes"])
    if parameters["model"] == "naive_bayes":
        return NaiveBayes(width, state)
    return Linear(
        parameters["model"],
        width,
        classes,
        parameters["alpha"],
        parameters["rate"],
        scale=parameters["scale"],
        state=state,
    )


def _said(model: Classifier, classes: Sequence[Label], row: Row) -> dict[str, Value]:
    at, probability = model.predict(row)
    return {"prediction": classes[at], "probability": probability}


@dataclass(frozen=True, kw_only=True)
class LearnClassifier(Learner):
    """Learns to classify objects, and says of each what it would have said before it learnt from it.

    ``features``: the fields that it looks at. ``label``: the field that holds the class. ``classes``: all classes that
    there can be, at least two (texts, numbers or booleans; 1, 1.0 and true are one class); ``ValueError`` for another
    label. An object without a label (``None``, or not there) is classified and not learnt from.

    ``model``:

    - ``logistic`` (default), ``svm``, ``perceptron``, ``passive_aggressive``: scikit-learn's ``SGDClassifier`` with
      logistic loss, hinge loss, perceptron loss, and hinge loss with steps of type PA-I (Crammer et al. 2006). Several
      classes: one against the rest. ``rate``: the constant size of a step, by default 0.05, 0.05, 1, and for
      ``passive_aggressive`` its aggressiveness, 1. ``alpha``: L2 regularisation of the first two. ``scale``: features
      in standard deviations from their mean so far (river's ``StandardScaler``); ``false`` takes them as they are.
    - ``naive_bayes``: river's ``GaussianNB``. It takes features as they are.

    Output, at each instance once a label was learnt: ``prediction``, a class; ``probability`` of it (``None`` for
    models that know none: ``svm``, ``perceptron``, ``passive_aggressive``); ``accuracy``: which share of the labelled
    objects that it classified so far, this one included, it got right (``None`` while there are none). For the model
    itself see ``learn_model``.

    >>> tool = LearnClassifier(features=("light",), label="there", classes=(False, True))
    >>> state = tool.initial()
    >>> for time in range(40):
    ...     there = time % 3 == 0
    ...     state, said = tool.step(state, time, {"light": 400.0 if there else 20.0 + time, "there": there})
    >>> tool.step(state, 40, {"light": 380.0})[1]["prediction"]
    True
    """

    name = "learn_classifier"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"features": ["t", "h"], "label": "room", "classes": ["hall", "bath", "attic"]},
        {"features": ["t"], "label": "on", "classes": [0, 1], "model": "svm", "rate": 0.1, "alpha": 0.01},
        {"features": ["t", "h"], "label": "on", "classes": [0, 1], "model": "passive_aggressive", "scale": False},
        {"features": ["t", "h"], "label": "room", "classes": ["hall", "bath", "attic"], "model": "naive_bayes"},
    )
    features: tuple[str, ...]
    label: str
    classes: tuple[Label, ...]
    model: ClassifierName = "logistic"
    alpha: float = 0.0001
    rate: float | None = None
    scale: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label in self.features:
            raise ValueError(f"label is {self.label}, which is one of the features: the model would learn nothing else")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be at least two that differ, but are {list(self.classes)}")
        if self.alpha < 0 or (self.rate is not None and self.rate <= 0):
            raise ValueError(f"alpha must not be negative and rate must be > 0, but are {self.alpha} and {self.rate}")

    def load(self, state: Value) -> _Learnt:
        """From the model's own state and the counts of its successes."""
        told, right, inner = (0, 0, None) if state is None else (state["told"], state["right"], state["model"])
        return _Learnt(_classifier(vars(self), inner), told, right, inner is not None)

    def dump(self, learner: _Learnt) -> Value:
        """``None`` while nothing was learnt: it cannot have told anything either."""
        if not learner.learnt:
            return None
        return {"told": learner.told, "right": learner.right, "model": learner.model.dump()}

    def take(self, learner: _Learnt, rows: Sequence[tuple[Row, dict[str, Value]]]) -> list[Value]:
        """Tell all, then learn those with a label."""
        results: list[Value] = []
        labels = [self._class_of(item) for _, item in rows]
        for (row, _), label in zip(rows, labels, strict=True):
            results.append(self._tell(learner, row, label))
        labelled = [(row, label) for (row, _), label in zip(rows, labels, strict=True) if label is not None]
        if labelled:
            learner.model.learn([row for row, _ in labelled], [label for _, label in labelled])
            learner.learnt = True
        return results

    def _tell(self, learner: _Learnt, row: Row, label: int | None) -> Value:
        if not learner.learnt:
            return SKIP
        said = _said(learner.model, self.classes, row)
        if label is not None:
            learner.told += 1
            learner.right += said["prediction"] == self.classes[label]
        return said | {"accuracy": learner.right / learner.told if learner.told else None}

    def _class_of(self, item: dict[str, Value]) -> int | None:
        label = item.get(self.label)
        if label is None or label != label:
            return None
        if label not in self.classes:
            raise ValueError(f"{self.name}: {self.label} is {label!r}, which is none of {list(self.classes)}")
        return self.classes.index(label)

    def examples(self, slot: int) -> Sequence[Value]:
        """Objects with and without a label, and minibatches of them."""
        objects = _objects(self.features, 24)
        for at, item in enumerate(objects):
            if at % 4:
                item[self.label] = self.classes[at % len(self.classes)]
        return [*objects, objects[:3], objects[-5:], objects[8:9], []]


@dataclass(frozen=True, kw_only=True)
class LearnModel(LearnClassifier):
    """Learns to classify objects, and gives out the model itself, for ``predict``.

    Parameters as of ``learn_classifier``, and ``every``: a model is given out at each instance at which the number of
    learnt instances with a label reaches a multiple of it (default 1: at each of them).

    Output: an object that ``predict`` understands: model, features, classes, parameters and state, plain numbers all.
    The model at t has learnt from the instance at t.

    >>> tool = LearnModel(features=("light",), label="there", classes=(False, True), every=2)
    >>> state, found = tool.initial(), []
    >>> for time in range(4):
    ...     state, model = tool.step(state, time, {"light": 100.0 * (time % 2), "there": time % 2 == 1})
    ...     found.append(model if model is SKIP else sorted(model))
    >>> found[:2]
    [SKIP, ['alpha', 'classes', 'features', 'model', 'rate', 'scale', 'state']]
    """

    name = "learn_model"
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"features": ["t", "h"], "label": "on", "classes": [0, 1]},
        {"features": ["t"], "label": "room", "classes": ["hall", "bath"], "model": "naive_bayes", "every": 3},
    )
    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every < 1:
            raise ValueError(f"every must be at least 1, not {self.every}")

    def result_of(self, learner: _Learnt, value: Value) -> Value:
        """Learn, tell nothing; ``told`` counts the instances that were learnt."""
        objects = value if isinstance(value, list) else [value]
        rows = [
            (row, label)
            for item in objects
            if (row := row_of(self.name, self.features, item)) is not None
            and (label := self._class_of(item)) is not None
        ]
        if not rows:
            return SKIP
        learner.model.learn([row for row, _ in rows], [label for _, label in rows])
        learner.learnt = True
        learner.told += 1
        return SKIP if learner.told % self.every else self.snapshot(learner.model)

    def snapshot(self, model: Classifier) -> dict[str, Value]:
        """What ``predict`` needs of ``model``."""
        return {
            "model": self.model,
            "features": list(self.features),
            "classes": list(self.classes),
            "alpha": self.alpha,
            "rate": self.rate,
            "scale": self.scale,
            "state": model.dump(),
        }


_NO_MODEL: Final = "predict needs a model of learn_model as its second input, and got something else"


@contextlib.contextmanager
def _model_needed() -> Iterator[None]:
    """Whatever a model raises that is none, such as one with a part of a wrong type, as ``ValueError``."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{_NO_MODEL}: {type(error).__name__}: {error}") from error


_SNAPSHOT: Final = frozenset({"model", "features", "classes", "alpha", "rate", "scale", "state"})


@dataclass(frozen=True, kw_only=True)
class Predict(Tool):
    """Classifies each object of input 0 with the last model of input 1 at that time.

    Input 0: objects, or lists of them, as of ``learn_classifier``, without a label or with one that is not looked at.
    Input 1: the output of ``learn_model``, whose features and classes it takes.

    Output: ``prediction`` and ``probability`` as of ``learn_classifier``; a list of such objects for a list. No output
    before the first model, and where a feature is missing. The model at t itself counts: what it learns from at the
    same time is known to it. ``ValueError`` when input 1 holds no model.

    >>> learn = LearnModel(features=("light",), label="there", classes=(False, True), model="naive_bayes")
    >>> state, models = learn.initial(), []
    >>> for time, light in enumerate([400.0, 20.0, 380.0, 10.0]):
    ...     state, model = learn.step(state, time, {"light": light, "there": light > 100})
    ...     models.append((time, model))
    >>> said = Predict().evaluate(TimeInterval(5, 9), [Batch.of([(7, {"light": 390.0})]), Batch.of(models)])
    >>> said.plain()[0]["prediction"]
    True
    """

    name = "predict"
    version = "1.0.0"
    kind = "merge"
    output_kind = "same"
    output_unit = "none"
    arity = 2
    takes = "examples"

    def __post_init__(self) -> None:
        need(self.name, "sklearn", "river")

    def support(self, slot: int) -> Support:
        """The object at t, the last model."""
        return Pointwise() if slot == 0 else Previous(1)

    def drive(self) -> Drive:
        """The objects' times."""
        return FromInput(0)

    def evaluate(self, interval: TimeInterval, sources: Sequence[Batch]) -> Batch:
        """Each model is made once."""
        objects, models = sources[0].slice(interval.start, interval.end), sources[1]
        positions = models.times.searchsorted(objects.times, "right") - 1
        made, at = None, -1
        times, results = [], []
        for (time, value), position in zip(objects, positions.tolist(), strict=True):
            if position < 0:
                continue
            if position != at:
                made, at = self._made(models.values[position]), position
            result = SKIP if made is None else self._told(*made, value)
            if result is not SKIP:
                times.append(time)
                results.append(result)
        return Batch.build(times, results)

    def _made(self, snapshot: Value) -> tuple[Classifier, dict[str, Value]] | None:
        if snapshot is None:
            return None
        if not isinstance(snapshot, dict) or not snapshot.keys() >= _SNAPSHOT:
            raise ValueError(_NO_MODEL)
        with _model_needed():
            features = snapshot["features"]
            named = isinstance(features, list) and all(isinstance(name, str) for name in features)
            if snapshot["model"] in CLASSIFIERS and named:
                return _classifier(snapshot, snapshot["state"]), snapshot
        raise ValueError(_NO_MODEL)

    def _told(self, model: Classifier, snapshot: dict[str, Value], value: Value) -> Value:
        objects = value if isinstance(value, list) else [value]
        rows = [row for item in objects if (row := row_of(self.name, snapshot["features"], item)) is not None]
        with _model_needed():
            results = [_said(model, snapshot["classes"], row) for row in rows]
        if not results:
            return SKIP
        return results if isinstance(value, list) else results[0]

    def examples(self, slot: int) -> Sequence[Value]:
        """Objects, and models of two kinds at two ages."""
        objects = _objects(("t", "h"), 12)
        if slot == 0:
            return [*objects, objects[:4], []]
        found = []
        models: tuple[ClassifierName, ...] = ("logistic", "naive_bayes")
        for model in models:
            learn = LearnModel(features=("t", "h"), label="on", classes=(False, True), model=model)
            state = learn.initial()
            for time, item in enumerate(objects):
                state, snapshot = learn.step(state, time, item | {"on": time % 2 == 0})
                if time in (1, 7):
                    found.append(snapshot)
        return found


# --- without labels ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AnomalyScore(Learner):
    """How unusual each object is, measured by all before it.

    ``features``: the fields that it looks at. ``model``:

    - ``gaussian`` (default): one normal distribution of all features together. The score is the probability that a draw
      from it lies nearer to its mean (Mahalanobis distance): of usual objects, one in 100 scores above 0.99; 1 where a
      feature changes that never did. No output before there were more objects than features.
    - ``half_space_trees``: river's ``HalfSpaceTrees`` (Tan, Ting and Liu 2011), over features scaled to between their
      least and greatest so far. It knows what the last ``window`` objects looked like, so it forgets. ``trees``,
      ``height`` (each tree has 2^(height+1) - 1 nodes), ``seed`` (of the trees). No output before the first window is
      full. Its state is large (with the defaults about 2500 numbers), and takes milliseconds to load.

    Output: a float from 0 (as usual) to 1.

    >>> tool = AnomalyScore(features=("w",))
    >>> state = tool.initial()
    >>> for time in range(50):
    ...     state, score = tool.step(state, time, {"w": 100.0 + time % 7})
    >>> tool.step(state, 50, {"w": 103.0})[1] < 0.1, tool.step(state, 50, {"w": 160.0})[1] > 0.999
    (True, True)
    """

    name = "anomaly_score"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"
    packages = ("scipy", "river")
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"features": ["t"]},
        {"features": ["t", "h"]},
        {"features": ["t", "h"], "model": "half_space_trees", "trees": 2, "height": 3, "window": 6, "seed": 5},
    )
    features: tuple[str, ...]
    model: Literal["gaussian", "half_space_trees"] = "gaussian"
    trees: int = 10
    height: int = 6
    window: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (1 <= self.trees <= 100 and 1 <= self.height <= 12 and self.window >= 1):
            raise ValueError(
                f"trees must be 1 to 100, height 1 to 12 and window at least 1, "
                f"but are {self.trees}, {self.height} and {self.window}"
            )

    def load(self, state: Value) -> Scorer:
        """The model from its state."""
        if self.model == "gaussian":
            return Gaussian(len(self.features), state)
        return HalfSpaces(len(self.features), self.trees, self.height, self.window, self.seed, state)

    def dump(self, learner: Scorer) -> Value:
        """The model's state."""
        return learner.dump()

    def take(self, learner: Scorer, rows: Sequence[tuple[Row, dict[str, Value]]]) -> list[Value]:
        """Score all, then learn all."""
        scores = [learner.score(row) for row, _ in rows]
        for row, _ in rows:
            learner.learn(row)
        return [SKIP if score is None else score for score in scores]


@dataclass(frozen=True, kw_only=True)
class Cluster(Learner):
    """Which of some clusters each object belongs to; the clusters follow the objects.

    scikit-learn's ``MiniBatchKMeans``. ``features``: the fields that it looks at, which should be of like magnitude.
    ``clusters``: how many there are, at least 2. The first objects that differ are their first centers; each center is
    the mean of the objects that were given to it since.

    Output: ``cluster``, from 0, and ``distance`` to its center (Euclidean, in the unit of the features), before the
    object has moved it. None before there were ``clusters`` objects that differ.

    >>> tool = Cluster(features=("w",), clusters=2)
    >>> state, found = tool.initial(), []
    >>> for time, watts in enumerate([3.0, 1500.0, 5.0, 1490.0, 4.0]):
    ...     state, result = tool.step(state, time, {"w": watts})
    ...     found.append(result)
    >>> found
    [SKIP, SKIP, {'cluster': 0, 'distance': 2.0}, {'cluster': 1, 'distance': 10.0}, {'cluster': 0, 'distance': 1.0}]
    """

    name = "cluster"
    version = "1.0.0"
    output_kind = "same"
    output_unit = "none"
    packages = ("sklearn",)
    samples: ClassVar[Sequence[Mapping[str, Any]]] = (
        {"features": ["t"], "clusters": 2},
        {"features": ["t", "h"], "clusters": 3},
    )
    features: tuple[str, ...]
    clusters: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 2:
            raise ValueError(f"clusters must be at least 2, not {self.clusters}")

    def load(self, state: Value) -> KMeans:
        """The model from its state."""
        return KMeans(self.clusters, state)

    def dump(self, learner: KMeans) -> Value:
        """The model's state."""
        return learner.dump()

    def take(self, learner: KMeans, rows: Sequence[tuple[Row, dict[str, Value]]]) -> list[Value]:
        """Find the nearest center of all, then learn all."""
        found = [learner.nearest(row) for row, _ in rows]
        learner.learn([row for row, _ in rows])
        return [SKIP if near is None else {"cluster": near[0], "distance": near[1]} for near in found]
