"""Models of scikit-learn and river whose state is plain numbers: what a fold can keep, and a store give back.

1. A model is made of parameters and a state, ``None`` before it has learnt. `dump` returns the whole state as a
   canonical value; a model loaded from it goes on bit for bit as the one that was dumped. No pickle.
2. Nothing in a model depends on a clock, on threads or on what came before the state: random choices come from a seed.
3. A class is an index from 0 here; a row is a list of finite floats, as long as there are features.
4. The libraries are imported when a model is made: see `library`.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np

from hs_stream.core.errors import MissingPackage
from hs_stream.core.value import Value

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "Gaussian",
    "HalfSpaces",
    "KMeans",
    "Linear",
    "NaiveBayes",
    "Row",
    "Scorer",
    "library",
    "need",
]

Row = list[float]

_DISTRIBUTIONS: Final = {"sklearn": "scikit-learn", "scipy": "scipy", "river": "river"}


def need(tool: str, *packages: str) -> None:
    """`MissingPackage`, which says what to install, unless ``packages`` (not imported by this) are installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingPackage(
                f"{tool} needs {_DISTRIBUTIONS[package]}, which is not installed",
                hint="pip install 'hs_stream[learning]'",
            )


def library(module: str) -> Any:
    """A module of scikit-learn, scipy or river. They take a second to import, and are typed poorly or not at all."""
    return importlib.import_module(module)


# --- classifiers ---------------------------------------------------------------------------------------------------


class Classifier(Protocol):
    """Learns rows with their classes."""

    def learn(self, rows: Sequence[Row], labels: Sequence[int]) -> None:
        """Learn ``rows``, at least one, in their order."""

    def predict(self, row: Row) -> tuple[int, float | None]:
        """The class of ``row`` and how probable it is, ``None`` for a model that does not know. Not before `learn`."""

    def dump(self) -> Value:
        """The state, ``None`` before `learn`."""


class Standard:
    """river's ``StandardScaler``: less the mean, over the standard deviation, of what it has learnt so far."""

    def __init__(self, width: int, state: Value) -> None:
        self._scaler = library("river.preprocessing").StandardScaler()
        self._width = width
        if state is not None:
            self._scaler.counts.update(dict.fromkeys(range(width), state["count"]))
            self._scaler.means.update(enumerate(state["means"]))
            self._scaler.vars.update(enumerate(state["variances"]))

    def learn(self, row: Row) -> None:
        """Count ``row`` in."""
        self._scaler.learn_one(dict(enumerate(row)))

    def scaled(self, row: Row) -> Row:
        """``row`` in standard deviations from the mean; 0 in a feature that was always the same."""
        return list(self._scaler.transform_one(dict(enumerate(row))).values())

    def dump(self) -> Value:
        """Count, means and variances."""
        scaler, columns = self._scaler, range(self._width)
        return {
            "count": scaler.counts[0],
            "means": [float(scaler.means[column]) for column in columns],
            "variances": [float(scaler.vars[column]) for column in columns],
        }


class Linear:
    """scikit-learn's ``SGDClassifier``, one class against the rest, with a constant step.

    Its state is its weights: without shuffling there is no random choice, and with a constant step it does not matter
    how much was learnt before (``t_`` only counts).
    """

    LOSSES: Final = {"logistic": "log_loss", "svm": "hinge", "perceptron": "perceptron", "passive_aggressive": "hinge"}
    RATES: Final = {"logistic": 0.05, "svm": 0.05, "perceptron": 1.0, "passive_aggressive": 1.0}

    def __init__(
        self, kind: str, width: int, classes: int, alpha: float, rate: float | None, *, scale: bool, state: Value
    ) -> None:
        aggressive, lazy = kind == "passive_aggressive", kind in ("perceptron", "passive_aggressive")
        self._model = library("sklearn.linear_model").SGDClassifier(
            loss=self.LOSSES[kind],
            penalty=None if lazy else "l2",
            alpha=alpha,
            learning_rate="pa1" if aggressive else "constant",
            eta0=self.RATES[kind] if rate is None else rate,
            shuffle=False,
        )
        self._quietly = library("sklearn").config_context
        self._classes = np.arange(classes)
        self._probable = kind == "logistic"
        self._learnt = state is not None
        self._scaler = Standard(width, None if state is None else state["scaler"]) if scale else None
        if state is not None:
            self._model.classes_ = self._classes
            self._model.coef_ = np.array(state["weights"], np.float64)
            self._model.intercept_ = np.array(state["intercepts"], np.float64)
            self._model.n_features_in_ = width

    def learn(self, rows: Sequence[Row], labels: Sequence[int]) -> None:
        """One pass over ``rows``; each is scaled by itself and what came before it."""
        scaled = []
        for row in rows:
            if self._scaler is not None:
                self._scaler.learn(row)
            scaled.append(self._scaled(row))
        with self._quietly(skip_parameter_validation=True):
            self._model.partial_fit(np.array(scaled), np.array(labels), classes=self._classes)
        self._learnt = True

    def predict(self, row: Row) -> tuple[int, float | None]:
        """The class with the largest margin; its probability if the loss is logistic."""
        given = np.array([self._scaled(row)])
        if not self._probable:
            return int(self._model.predict(given)[0]), None
        probabilities = self._model.predict_proba(given)[0]
        best = int(probabilities.argmax())
        return best, float(probabilities[best])

    def dump(self) -> Value:
        """Weights, intercepts, scaler."""
        if not self._learnt:
            return None
        return {
            "weights": self._model.coef_.tolist(),
            "intercepts": self._model.intercept_.tolist(),
            "scaler": None if self._scaler is None else self._scaler.dump(),
        }

    def _scaled(self, row: Row) -> Row:
        return row if self._scaler is None else self._scaler.scaled(row)


class NaiveBayes:
    """river's ``GaussianNB``: per class and feature a normal distribution."""

    def __init__(self, width: int, state: Value) -> None:
        self._model = library("river.naive_bayes").GaussianNB()
        self._width = width
        # A list in the order of appearance: sums over classes are taken in that order.
        for label, count, features in state or []:
            self._model.class_counts[label] = count
            for column, (mean, squares) in enumerate(features):
                variance = self._model.gaussians[label][column]._var
                variance.mean.n, variance.mean._mean, variance._S = float(count), mean, squares

    def learn(self, rows: Sequence[Row], labels: Sequence[int]) -> None:
        """One after the other."""
        for row, label in zip(rows, labels, strict=True):
            self._model.learn_one(dict(enumerate(row)), label)

    def predict(self, row: Row) -> tuple[int, float | None]:
        """The most probable class."""
        probabilities = self._model.predict_proba_one(dict(enumerate(row)))
        best = max(probabilities, key=probabilities.__getitem__)
        return best, float(probabilities[best])

    def dump(self) -> Value:
        """Per class its count, and mean and sum of squared deviations of each feature."""
        found = []
        for label, count in self._model.class_counts.items():
            of = self._model.gaussians[label]
            features = [[float(of[at]._var.mean._mean), float(of[at]._var._S)] for at in range(self._width)]
            found.append([label, count, features])
        return found or None


CLASSIFIERS: Final = (*Linear.LOSSES, "naive_bayes")


# --- anomalies -----------------------------------------------------------------------------------------------------

_FLAT: Final = 1e-12
"""A direction has no variance where it has less than this, in a correlation matrix: what rounding leaves there."""


class Scorer(Protocol):
    """Learns rows, and says how unlike them another one is."""

    def learn(self, row: Row) -> None:
        """Count ``row`` in."""

    def score(self, row: Row) -> float | None:
        """From 0 (as usual) to 1; ``None`` while too little was learnt."""

    def dump(self) -> Value:
        """The state, ``None`` before `learn`."""


class Gaussian:
    """A normal distribution of all features together; mean and covariance by Welford's method.

    The score is the probability that a draw lies nearer to the mean, in Mahalanobis distance: the chi-squared
    distribution of as many degrees of freedom as there are directions that vary. What leaves the mean in a direction
    that never varied (a feature that was constant, or always followed from others) is as unusual as can be.
    """

    def __init__(self, width: int, state: Value) -> None:
        self._count = 0 if state is None else state["count"]
        self._mean = np.zeros(width) if state is None else np.array(state["mean"], np.float64)
        self._scatter = np.zeros((width, width)) if state is None else np.array(state["scatter"], np.float64)

    def learn(self, row: Row) -> None:
        """B. P. Welford (1962), in its form for several variables."""
        self._count += 1
        before = np.array(row) - self._mean
        self._mean += before / self._count
        self._scatter += np.outer(before, before) * ((self._count - 1) / self._count)

    def score(self, row: Row) -> float | None:
        """``None`` before there is one row more than features."""
        if self._count <= len(row):
            return None
        away = np.array(row) - self._mean
        deviations = np.sqrt(self._scatter.diagonal() / (self._count - 1))
        varies = deviations > 0
        if away[~varies].any():
            return 1.0
        if not varies.any():
            return 0.0
        scale = deviations[varies]
        correlation = self._scatter[np.ix_(varies, varies)] / (self._count - 1) / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(correlation)
        along = (away[varies] / scale) @ vectors
        there = values > _FLAT
        if (np.abs(along[~there]) > math.sqrt(_FLAT)).any():
            return 1.0
        squared = float((along[there] ** 2 / values[there]).sum())
        return float(library("scipy.special").gammainc(there.sum() / 2, squared / 2))

    def dump(self) -> Value:
        """Count, mean, sums of products of deviations."""
        if not self._count:
            return None
        return {"count": self._count, "mean": self._mean.tolist(), "scatter": self._scatter.tolist()}


class HalfSpaces:
    """river's ``HalfSpaceTrees`` over features scaled to between their least and greatest so far.

    The trees are drawn from the seed and the number of features only, so that the state is the masses of their nodes,
    in depth-first order.
    """

    def __init__(self, width: int, trees: int, height: int, window: int, seed: int, state: Value) -> None:
        self._model = library("river.anomaly").HalfSpaceTrees(trees, height, window, seed=seed)
        self._low = [] if state is None else list(state["low"])
        self._high = [] if state is None else list(state["high"])
        if state is not None:
            self._model.learn_one(dict.fromkeys(range(width), 0.0))  # draws the trees
            self._model.counter, self._model._first_window = state["counter"], state["first"]
            for nodes, left, right in zip(self._model._tree_nodes, state["latest"], state["reference"], strict=True):
                for node, latest, reference in zip(nodes, left, right, strict=True):
                    node.l_mass, node.r_mass = latest, reference

    def learn(self, row: Row) -> None:
        """Count ``row`` in, as it looks within the bounds that include it."""
        self._low = list(map(min, self._low or row, row))
        self._high = list(map(max, self._high or row, row))
        self._model.learn_one(self._scaled(row))

    def score(self, row: Row) -> float | None:
        """``None`` before the first window is full."""
        return None if self._model._first_window else float(self._model.score_one(self._scaled(row)))

    def dump(self) -> Value:
        """Bounds, masses of the window under way and of the one before it."""
        if not self._low:
            return None
        trees = self._model._tree_nodes
        return {
            "low": self._low,
            "high": self._high,
            "counter": self._model.counter,
            "first": self._model._first_window,
            "latest": [[node.l_mass for node in nodes] for nodes in trees],
            "reference": [[node.r_mass for node in nodes] for nodes in trees],
        }

    def _scaled(self, row: Row) -> dict[int, float]:
        bounds = zip(row, self._low, self._high, strict=True)
        return {at: (x - low) / (high - low) if low < high else 0.0 for at, (x, low, high) in enumerate(bounds)}


# --- clusters ------------------------------------------------------------------------------------------------------


class KMeans:
    """scikit-learn's ``MiniBatchKMeans``, beginning with the first rows that differ, without random reassignments."""

    def __init__(self, clusters: int, state: Value) -> None:
        self._clusters = clusters
        self._first: list[Row] = [] if state is None else [list(row) for row in state["first"]]
        self._model: Any = None
        if state is not None and state["centers"]:
            self._model = self._made(state["centers"])
            self._model._counts = np.array(state["counts"], np.float64)

    def _made(self, centers: Sequence[Row]) -> Any:
        model = library("sklearn.cluster").MiniBatchKMeans(
            self._clusters, init=np.array(centers), n_init=1, compute_labels=False, reassignment_ratio=0.0
        )
        # What a first partial_fit sets, besides learning its rows. One thread: small batches gain nothing by more.
        model.cluster_centers_ = np.array(centers, np.float64)
        model._counts = np.zeros(self._clusters)
        model._batch_size, model._n_since_last_reassign, model._n_threads = 1, 0, 1
        model.n_features_in_ = len(centers[0])
        return model

    def learn(self, rows: Sequence[Row]) -> None:
        """Move the nearest centers towards ``rows``."""
        for row in rows:
            if self._model is None and row not in self._first:
                self._first.append(row)
                if len(self._first) == self._clusters:
                    self._model, self._first = self._made(self._first), []
        if self._model is not None:
            with library("sklearn").config_context(skip_parameter_validation=True):
                self._model.partial_fit(np.array(rows))

    def nearest(self, row: Row) -> tuple[int, float] | None:
        """The nearest center and the distance to it; ``None`` while there are too few rows that differ."""
        if self._model is None:
            return None
        distances = np.linalg.norm(self._model.cluster_centers_ - np.array(row), axis=1)
        best = int(distances.argmin())
        return best, float(distances[best])

    def dump(self) -> Value:
        """The rows before there are centers, then centers and how many rows each has taken."""
        if self._model is None:
            return {"first": self._first, "centers": [], "counts": []} if self._first else None
        return {"first": [], "centers": self._model.cluster_centers_.tolist(), "counts": self._model._counts.tolist()}
