"""Golden cases of the learners, against the libraries driven by hand, and their state codecs."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hs_stream.cli import app
from hs_stream.core.batch import Batch
from hs_stream.core.errors import ConfigurationError, MissingPackage
from hs_stream.core.time import TimeInterval
from hs_stream.core.tool import SKIP, FoldTool, Tool
from hs_stream.core.value import canonical, same
from hs_stream.plugins import default_registry

REGISTRY = default_registry()
NAN = float("nan")
CLASSES = ["attic", "bath", "hall"]


def build(name: str, **parameters: Any) -> Any:
    return REGISTRY.resolve(name).build(parameters)


def fold(tool: FoldTool, values: Sequence[Any]) -> list[Any]:
    """The output at each value; its state is stored as text after each."""
    state, results = tool.initial(), []
    for time, value in enumerate(values):
        state, result = tool.step(state, time, value)
        stored = json.loads(json.dumps(state))
        assert same(canonical(stored), state)
        state = stored
        results.append(result)
    return results


def house(count: int, seed: int = 4) -> list[dict[str, Any]]:
    """Rooms that differ in temperature and humidity, but not clearly."""
    rng = random.Random(seed)
    rooms = [(name, 18.0 + 2 * at, 40.0 + 15 * (at == 1)) for at, name in enumerate(CLASSES)]
    found = []
    for _ in range(count):
        room, t, h = rng.choice(rooms)
        found.append({"t": rng.gauss(t, 1), "h": rng.gauss(h, 6), "room": room})
    return found


def rows(items: Sequence[dict[str, Any]]) -> list[list[float]]:
    return [[item["t"], item["h"]] for item in items]


# --- classifiers ---


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("logistic", {"loss": "log_loss", "eta0": 0.05}),
        ("svm", {"loss": "hinge", "eta0": 0.05}),
        ("perceptron", {"loss": "perceptron", "eta0": 1.0, "penalty": None}),
        ("passive_aggressive", {"loss": "hinge", "eta0": 1.0, "penalty": None, "learning_rate": "pa1"}),
    ],
)
def test_linear_models_are_those_of_scikit_learn_over_running_standard_scores(
    model: str, options: dict[str, Any]
) -> None:
    from sklearn.linear_model import SGDClassifier

    items = house(200)
    found = fold(build("learn_classifier", features=["t", "h"], label="room", classes=CLASSES, model=model), items)
    ours = SGDClassifier(**{"learning_rate": "constant", "alpha": 0.0001, "shuffle": False} | options)
    data, right = np.array(rows(items)), 0
    for at, item in enumerate(items):
        if at:
            before = data[:at]
            # numpy's two-pass deviations are not river's running ones in the last bits.
            spread = np.where(before.std(axis=0) > 1e-12, before.std(axis=0), np.inf)
            said = ours.predict([(data[at] - before.mean(axis=0)) / spread])[0]
            assert found[at]["prediction"] == said
            right += said == item["room"]
            assert found[at]["accuracy"] == right / at
            assert (found[at]["probability"] is None) == (model != "logistic")
        upto = data[: at + 1]
        spread = np.where(upto.std(axis=0) > 1e-12, upto.std(axis=0), np.inf)
        ours.partial_fit([(data[at] - upto.mean(axis=0)) / spread], [item["room"]], classes=CLASSES)
    assert found[0] is SKIP
    assert found[-1]["accuracy"] > 0.6


def test_without_scaling_the_probability_is_scikit_learns_bit_for_bit() -> None:
    from sklearn.linear_model import SGDClassifier

    items = [{"t": item["t"] - 20, "on": item["room"] == "hall"} for item in house(100)]
    tool = build("learn_classifier", features=["t"], label="on", classes=[False, True], scale=False, rate=0.1)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1, shuffle=False)
    for at, (item, said) in enumerate(zip(items, fold(tool, items), strict=True)):
        if at:
            probabilities = model.predict_proba([[item["t"]]])[0]
            assert said["probability"] == probabilities.max()
            assert said["prediction"] is bool(probabilities.argmax())
        model.partial_fit([[item["t"]]], [item["on"]], classes=[False, True])


def test_naive_bayes_is_that_of_river_and_classifies_as_scikit_learns() -> None:
    from river.naive_bayes import GaussianNB
    from sklearn.naive_bayes import GaussianNB as Batchwise

    items, model = house(300), GaussianNB()
    tool = build("learn_classifier", features=["t", "h"], label="room", classes=CLASSES, model="naive_bayes")
    found = fold(tool, items)
    for at, item in enumerate(items):
        x = {"t": item["t"], "h": item["h"]}
        if at:
            probabilities = model.predict_proba_one(x)
            assert found[at]["probability"] == max(probabilities.values())
            assert probabilities[found[at]["prediction"]] == found[at]["probability"]
        model.learn_one(x, item["room"])
    whole = Batchwise().fit(rows(items[:-1]), [item["room"] for item in items[:-1]])
    assert found[-1]["prediction"] == whole.predict(rows(items[-1:]))[0]
    assert found[-1]["probability"] == pytest.approx(whole.predict_proba(rows(items[-1:])).max(), abs=1e-6)


def test_what_is_missing_is_not_learnt_and_what_has_no_label_is_only_told() -> None:
    items = house(40)
    tool = build("learn_classifier", features=["t", "h"], label="room", classes=CLASSES)
    gaps: list[Any] = [None, {"t": NAN, "h": 1.0, "room": "hall"}, {"h": 1.0, "room": "hall"}, {"t": None, "h": 1}]
    asked = {"t": 20.0, "h": 50.0}
    mixed = [*gaps, asked, *items[:20], *gaps, asked, asked | {"room": None}, asked | {"room": NAN}, *items[20:]]
    found = fold(tool, mixed)
    plain = fold(tool, items)
    assert found[:6] == [SKIP] * 6
    assert found[5:25] == plain[:20]
    assert found[25:29] == [SKIP] * 4
    assert found[29] == found[30] == found[31]
    assert found[29]["accuracy"] == plain[19]["accuracy"]
    assert found[32:] == plain[20:]


def test_a_minibatch_is_told_first_and_then_learnt() -> None:
    items = house(60)
    tool = build("learn_classifier", features=["t", "h"], label="room", classes=CLASSES, model="naive_bayes")
    batches: list[Any] = [items[:20], items[20:21], [], [None], items[21:]]
    found = fold(tool, batches)
    single = fold(tool, items)
    assert found[0] is SKIP
    assert found[1] == [single[20] | {"accuracy": found[1][0]["accuracy"]}]
    assert found[2:4] == [SKIP, SKIP]
    assert len(found[4]) == 39
    # all told by the model that has learnt 21, of which 1 was told before
    state, _ = tool.run(tool.initial(), Batch.of(enumerate(items[:21])))
    told = [tool.step(state, 0, {"t": item["t"], "h": item["h"]})[1]["prediction"] for item in items[21:]]
    assert [said["prediction"] for said in found[4]] == told


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"features": []}, "features must be at least one name"),
        ({"features": ["t", "t"]}, "features must be at least one name, each once"),
        ({"classes": ["hall"]}, "classes must be at least two that differ"),
        ({"classes": [1, True]}, "classes must be at least two that differ"),
        ({"label": "t"}, "label is t, which is one of the features"),
        ({"rate": 0}, "rate must be > 0"),
        ({"model": "random_forest"}, "'random_forest' is not one of 'logistic', 'svm', 'perceptron'"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build("learn_classifier", **{"features": ["t"], "label": "room", "classes": CLASSES} | parameters)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (5, TypeError, "learn_classifier needs objects, or lists of them, but got int 5"),
        ({"t": "warm"}, TypeError, "learn_classifier needs numbers, but got str 'warm' in t"),
        ({"t": math.inf}, ValueError, "learn_classifier: t is inf"),
        ({"t": 1, "room": "cellar"}, ValueError, "room is 'cellar', which is none of"),
        ([{"t": 1}, 5], TypeError, "but got int 5"),
    ],
)
def test_wrong_values_raise(value: Any, error: type[Exception], message: str) -> None:
    tool = build("learn_classifier", features=["t"], label="room", classes=CLASSES)
    with pytest.raises(error, match=message):
        tool.step(tool.initial(), 0, value)


# --- model and prediction ---


@pytest.mark.parametrize("model", ["logistic", "svm", "perceptron", "passive_aggressive", "naive_bayes"])
def test_predict_says_what_the_learner_would_have_said(model: str) -> None:
    items = house(50)
    parameters = {"features": ["t", "h"], "label": "room", "classes": CLASSES, "model": model}
    told = fold(build("learn_classifier", **parameters), items)
    models = [(2 * time, value) for time, value in enumerate(fold(build("learn_model", **parameters), items))]
    assert all(value is not SKIP for _, value in models)
    # Each object is asked for one step before it is learnt: the last model is that of the object before it.
    asked = Batch.of([(2 * time - 1, {"t": item["t"], "h": item["h"]}) for time, item in enumerate(items)])
    stored = Batch.of([(time, json.loads(json.dumps(value))) for time, value in models])
    found = dict(Predict().evaluate(TimeInterval(-9, 999), [asked, stored]))
    assert list(found) == [2 * time - 1 for time in range(1, 50)]
    for time in range(1, 50):
        assert found[2 * time - 1] == {key: told[time][key] for key in ("prediction", "probability")}


def Predict() -> Tool:  # noqa: N802 - stands for the class
    return build("predict")  # type: ignore[no-any-return]


def test_predict_counts_the_model_of_the_same_time_and_takes_lists() -> None:
    items = house(30)
    learn = build("learn_model", features=["t", "h"], label="room", classes=CLASSES, every=10)
    models = [(time, value) for time, value in enumerate(fold(learn, items)) if value is not SKIP]
    assert [time for time, _ in models] == [9, 19, 29]
    asked = Batch.of([(8, items[0]), (9, items[0]), (10, [items[0], None, items[1]]), (11, [None]), (12, {"t": 1})])
    found = dict(Predict().evaluate(TimeInterval(0, 99), [asked, Batch.of(models)]))
    assert list(found) == [9, 10]
    assert found[10][0] == found[9]
    assert len(found[10]) == 2


def test_predict_refuses_what_is_no_model() -> None:
    asked = Batch.of([(1, {"t": 1.0})])
    for other in ({"t": 1.0}, 5.0, {"model": "logistic"}):
        with pytest.raises(ValueError, match="predict needs a model of learn_model as its second input"):
            Predict().evaluate(TimeInterval(0, 9), [asked, Batch.of([(0, other)])])


# --- anomalies ---


def test_gaussian_score_is_the_chi_squared_of_the_mahalanobis_distance() -> None:
    from scipy.stats import chi2

    items = house(80)
    found = fold(build("anomaly_score", features=["t", "h"]), items)
    data = np.array(rows(items))
    assert found[:3] == [SKIP, SKIP, SKIP]
    for at in range(3, 80):
        covariance = np.cov(data[:at], rowvar=False)
        away = data[at] - data[:at].mean(axis=0)
        assert found[at] == pytest.approx(chi2.cdf(away @ np.linalg.inv(covariance) @ away, 2), abs=1e-9)


def test_gaussian_score_knows_constant_and_dependent_features() -> None:
    rng = random.Random(3)
    lines = [{"t": x, "h": 3 * x + 1, "c": 5.0} for x in (rng.gauss(20, 2) for _ in range(50))]
    tool = build("anomaly_score", features=["t", "h", "c"])
    state, _ = tool.run(tool.initial(), Batch.of(enumerate(lines)))

    def score(t: float, h: float, c: float) -> Any:
        return tool.step(state, 99, {"t": t, "h": h, "c": c})[1]

    assert score(20.0, 61.0, 5.0) < 0.5
    assert score(60.0, 181.0, 5.0) > 0.999
    assert score(20.0, 62.0, 5.0) == 1.0
    assert score(20.0, 61.0, 5.1) == 1.0
    assert fold(build("anomaly_score", features=["c"]), [{"c": 5.0}] * 4 + [{"c": 6.0}]) == [SKIP, SKIP, 0.0, 0.0, 1.0]


def test_half_space_trees_are_those_of_river() -> None:
    from river.anomaly import HalfSpaceTrees

    items = house(120)
    parameters = {"model": "half_space_trees", "trees": 4, "height": 4, "window": 25, "seed": 11}
    found = fold(build("anomaly_score", features=["t", "h"], **parameters), items)
    model = HalfSpaceTrees(n_trees=4, height=4, window_size=25, seed=11)

    def scaled(at: int, upto: int) -> dict[int, float]:
        low, high = np.min(rows(items[:upto]), axis=0), np.max(rows(items[:upto]), axis=0)
        return {
            column: float((rows(items)[at][column] - low[column]) / (high[column] - low[column]))
            if low[column] < high[column]
            else 0.0
            for column in (0, 1)
        }

    for at in range(120):
        assert found[at] == (SKIP if at < 25 else model.score_one(scaled(at, at)))
        model.learn_one(scaled(at, at + 1))
    assert len(set(found)) > 20
    assert found != fold(build("anomaly_score", features=["t", "h"], **parameters | {"seed": 12}), items)


# --- clusters ---


def test_centers_are_the_means_of_what_they_were_given() -> None:
    items = house(150)
    found = fold(build("cluster", features=["t", "h"], clusters=3), [items[0], items[0], *items[1:]])
    assert found[:4] == [SKIP] * 4
    centers = [np.array(row) for row in rows(items[:3])]
    given: list[list[np.ndarray]] = [[], [], [np.array(rows(items)[2])]]
    for at in range(3, 150):
        point = np.array(rows(items)[at])
        distances = [float(np.linalg.norm(center - point)) for center in centers]
        best = distances.index(min(distances))
        assert found[at + 1]["cluster"] == best
        assert found[at + 1]["distance"] == pytest.approx(distances[best], abs=1e-9)
        given[best].append(point)
        centers[best] = np.mean(given[best], axis=0)
    assert {said["cluster"] for said in found[4:]} == {0, 1, 2}


# --- data ---


def test_minibatches_by_count_and_by_time() -> None:
    values = [1, None, "x", {"a": 1}, NAN]
    found = fold(build("minibatch", size=2), values)
    assert found == [SKIP, [1, None], SKIP, ["x", {"a": 1}], SKIP]
    batch = Batch.of([(1_000, 1), (9_999, 2), (10_000, 3), (10_001, 4), (35_000, 5)])
    by_time = build("minibatch_by_time", width="10s")
    assert list(by_time.evaluate(TimeInterval(-1, 99_000), [batch])) == [
        (10_000, [1, 2, 3]),
        (20_000, [4]),
        (40_000, [5]),
    ]
    for name, parameters in (("minibatch", {"size": 0}), ("minibatch_by_time", {"width": 0})):
        with pytest.raises(ConfigurationError, match="must be"):
            build(name, **parameters)


def test_a_dataset_comes_whole_in_each_epoch_in_another_order() -> None:
    from sklearn.datasets import load_iris

    iris = load_iris()
    whole = sorted((*row.tolist(), iris.target_names[at]) for row, at in zip(iris.data, iris.target, strict=True))
    found = build("dataset", dataset="iris", epochs=2).evaluate(TimeInterval(-1, 1 << 50), [])
    assert found.times.tolist() == [60_000 * turn for turn in range(1, 301)]
    epochs = [tuple(tuple(row.values()) for row in found.plain()[at : at + 150]) for at in (0, 150)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == whole
    assert epochs[0] != epochs[1]
    assert list(found.plain()[0]) == [*iris.feature_names, "label"]
    parts = [build("dataset", dataset="iris", part=part) for part in ("train", "test")]
    halves = [[tuple(row.values()) for row in part.evaluate(TimeInterval(0, 1 << 50), []).plain()] for part in parts]
    assert sorted(itertools.chain(*halves)) == whole
    assert [sum(row[-1] == "virginica" for row in half) for half in halves] == [25, 25]


def test_iris_is_learnt() -> None:
    flowers = build("dataset", dataset="iris", epochs=3).evaluate(TimeInterval(0, 1 << 50), []).plain()
    features, classes = [name for name in flowers[0] if name != "label"], ["setosa", "versicolor", "virginica"]
    for model, least in (("logistic", 0.8), ("naive_bayes", 0.9)):
        tool = build("learn_classifier", features=features, label="label", classes=classes, model=model)
        _, found = tool.run(tool.initial(), Batch.of(enumerate(flowers)))
        assert found.plain()[-1]["accuracy"] > least


def test_the_example_of_the_guide_runs(capsys: pytest.CaptureFixture[str]) -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "guides" / "learning.md"
    (code,) = re.findall(r"^```python\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert capsys.readouterr().out.startswith("449 {'prediction': ")
    assert names["said"].plain()[-1]["accuracy"] > 0.9


# --- without the libraries ---


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec

    def gone(name: str, package: str | None = None) -> Any:
        return None if name in ("sklearn", "river", "scipy") else there(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", gone)
    runner = CliRunner()
    listed = runner.invoke(app, ["tools", "list"])
    assert listed.exit_code == 0
    assert "learn_classifier" in listed.output
    for name in ("learn_classifier", "learn_model", "predict", "anomaly_score", "cluster", "dataset"):
        with pytest.raises(MissingPackage, match=r"which is not installed \(pip install 'hs_stream\[learning\]'\)"):
            build(name, **REGISTRY.resolve(name).samples[0])
        checked = runner.invoke(app, ["tools", "check", name, "--examples", "1"])
        assert checked.exit_code == 0, checked.output
        assert f"skip {name}@1.0.0" in checked.output
    checked = runner.invoke(app, ["tools", "check", "minibatch", "--examples", "1"])
    assert "ok   minibatch" in checked.output
