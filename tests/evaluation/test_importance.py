"""What raw columns are worth: scikit-learn's figure, by the shuffles that are named, with an interval that holds."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.inspection import permutation_importance
from sklearn.metrics import log_loss

from mlspark.engines import trees
from mlspark.engines.trees import Trees
from mlspark.evaluation import importance
from mlspark.evaluation.importance import ImportanceError, Rows
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.as_is import AsIs
from mlspark.features.kinds.hash import Hashed
from mlspark.features.raw_columns import groups, inputs_of
from mlspark.models import trees as tree_models
from mlspark.models.trees import TreesSettings

from .test_attribution import BINARY, COLUMNS, rows

NAMES = ("age", "hours", "job", "town")
SIZES = {"age": 0, "hours": 0, "job": 5, "town": 7}
ENCODER = Encoder(
    pipeline="example",
    rows=1,
    inputs=dict.fromkeys(NAMES, "int"),
    features=tuple(AsIs(name=name, column=name, ids=ids) for name, ids in SIZES.items()),
)


def some_rows(count: int, seed: int) -> Rows:
    tensors, random = rows(COLUMNS, count, seed), np.random.default_rng(seed)
    logits = 2.0 * tensors["dense"][:, 0] + (tensors["ids"][:, 0] == 2) * 1.5 + 0.5 * tensors["dense"][:, 1]
    return Rows(tensors, (random.logistic(size=count) < logits).astype(np.float32))


@pytest.fixture(scope="module")
def grown() -> Trees:
    learnt = some_rows(1500, 1)
    settings = TreesSettings(num_rounds=15, early_stopping_rounds=0, threads=1, max_depth=3)
    train = tree_models.Rows(learnt.tensors, learnt.target)
    booster = tree_models.grow(settings, BINARY, COLUMNS, train=train, validation=None, seed=1)
    return trees.load(trees.pack(settings, COLUMNS, 1, booster))


class OfMatrix:
    """The trees as scikit-learn asks for a classifier: columns of numbers in, probabilities out."""

    _estimator_type = "classifier"
    classes_ = np.array([0, 1])

    def __init__(self, model: Trees) -> None:
        self.model = model

    def fit(self, *_: Any) -> "OfMatrix":
        return self

    def predict_proba(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        tensors = {"dense": matrix[:, :2].astype(np.float32), "ids": matrix[:, 2:].astype(np.int64)}
        chance = 1 / (1 + np.exp(-self.model.run(tensors)[:, 0].astype(np.float64)))
        return np.stack([1 - chance, chance], axis=1)


def scored(estimator: OfMatrix, matrix: NDArray[np.float64], target: NDArray[Any]) -> float:
    return -float(log_loss(target, estimator.predict_proba(matrix)))


def test_importances_are_those_of_scikit_learn(grown: Trees) -> None:
    held_out = some_rows(800, 2)
    value, found = importance.importances(BINARY, grown.run, ENCODER, COLUMNS, held_out, metric="log_loss", repeats=20)
    matrix = np.concatenate([held_out.tensors["dense"], held_out.tensors["ids"]], axis=1).astype(np.float64)
    assert value == pytest.approx(-scored(OfMatrix(grown), matrix, held_out.target))
    theirs = permutation_importance(
        OfMatrix(grown), matrix, held_out.target, scoring=scored, n_repeats=20, random_state=0
    )
    ours = {each.columns[0]: each for each in found}
    assert [each.value for each in found] == sorted((each.value for each in found), reverse=True)
    for place, name in enumerate(NAMES):
        error = np.hypot(np.std(ours[name].repeats), theirs.importances_std[place]) / np.sqrt(20)
        assert abs(ours[name].value - theirs.importances_mean[place]) <= 4 * error
    assert ours["age"].value > ours["job"].value > ours["town"].value
    assert ours["age"].interval[0] > 0
    assert ours["town"].interval[0] < 0.002


def test_each_repeat_is_the_metric_of_the_shuffle_that_is_named(grown: Trees) -> None:
    held_out = some_rows(200, 3)
    value, found = importance.importances(
        BINARY, grown.run, ENCODER, COLUMNS, held_out, metric="accuracy", repeats=2, seed=7
    )
    job = next(each for each in found if each.columns == ("job",))
    assert job.value == pytest.approx(np.mean(job.repeats))
    for repeat, drop in enumerate(job.repeats):
        order = importance.shuffled(200, seed=7, group=NAMES.index("job"), repeat=repeat)
        assert sorted(order) == list(range(200))
        ids = held_out.tensors["ids"].copy()
        ids[:, 0] = ids[order, 0]
        right = (grown.run({**held_out.tensors, "ids": ids})[:, 0] >= 0) == (held_out.target > 0.5)
        assert drop == pytest.approx(value - right.mean())
    assert importance.importances(
        BINARY, grown.run, ENCODER, COLUMNS, held_out, metric="accuracy", repeats=2, seed=7
    ) == (value, found)


def test_the_interval_is_as_wide_as_that_of_the_rows_differences(grown: Trees) -> None:
    held_out = some_rows(2000, 4)
    _, found = importance.importances(BINARY, grown.run, ENCODER, COLUMNS, held_out, metric="log_loss", repeats=1)
    age = next(each for each in found if each.columns == ("age",))
    dense = held_out.tensors["dense"].copy()
    dense[:, 0] = dense[importance.shuffled(2000, seed=0, group=0, repeat=0), 0]

    def losses(tensors: dict[str, Any]) -> NDArray[np.float64]:
        logits = grown.run(tensors)[:, 0].astype(np.float64)
        return np.logaddexp(0, np.where(held_out.target > 0.5, -logits, logits))

    differences = losses({**held_out.tensors, "dense": dense}) - losses(dict(held_out.tensors))
    assert age.value == pytest.approx(differences.mean())
    half = (age.interval[1] - age.interval[0]) / 2
    assert 0.5 < half / (2.09 * differences.std() / np.sqrt(2000)) < 2.0


def test_columns_of_one_feature_are_shuffled_together() -> None:
    crossed = Hashed(name="both", columns=("job", "age"), cross=True, buckets=4, into="id", signed=False)
    encoder = ENCODER.model_copy(update={"features": (*ENCODER.features, crossed)})
    tensors = encoder.tensors(BINARY)
    inputs = inputs_of(encoder, tensors)
    assert groups(encoder, inputs) == (("age", "job"), ("hours",), ("town",))
    held_out = some_rows(60, 5)
    whole = {**held_out.tensors, "ids": np.concatenate([held_out.tensors["ids"], np.arange(60)[:, None] % 5], axis=1)}
    seen: list[dict[str, Any]] = []

    def run(given: Any) -> NDArray[Any]:
        seen.append(given)
        return given["dense"][:, :1]  # type: ignore[no-any-return]

    importance.importances(
        BINARY, run, encoder, tensors, Rows(whole, held_out.target), metric="log_loss", repeats=1, seed=1
    )
    order = importance.shuffled(60, seed=1, group=0, repeat=0)
    first = seen[1]
    np.testing.assert_array_equal(first["dense"][:, 0], whole["dense"][order, 0])
    np.testing.assert_array_equal(first["dense"][:, 1], whole["dense"][:, 1])
    np.testing.assert_array_equal(first["ids"][:, [0, 2]], whole["ids"][order][:, [0, 2]])
    np.testing.assert_array_equal(first["ids"][:, 1], whole["ids"][:, 1])


def test_too_few_rows_and_a_metric_that_is_not_defined_are_refused_by_name(grown: Trees) -> None:
    arguments: Any = (BINARY, grown.run, ENCODER, COLUMNS)
    with pytest.raises(ImportanceError, match="39 rows: too few to tell what columns are worth; 40 at least"):
        importance.importances(*arguments, some_rows(39, 1), metric="log_loss")
    one_class = Rows(some_rows(40, 1).tensors, np.zeros(40, np.float32))
    with pytest.raises(ImportanceError, match="roc_auc is not defined on these 40 rows; choose another metric"):
        importance.importances(*arguments, one_class, metric="roc_auc")
