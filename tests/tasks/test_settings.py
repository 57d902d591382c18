import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from mlspark.errors import ConfigError
from mlspark.tasks.kinds import KINDS, from_json, from_settings
from mlspark.tasks.metrics import title
from mlspark.tasks.task import Seen


@dataclass(frozen=True)
class Column:
    """A contract's column."""

    name: str = "income"
    type: str = "string"
    nullable: bool = False
    min: float | str | None = None
    max: float | str | None = None
    allowed: tuple[str, ...] | None = None


BINARY: dict[str, Any] = {"kind": "binary", "target": "income", "classes": ["no", "yes"]}
SEVERAL: dict[str, Any] = {"kind": "multiclass", "target": "income", "classes": ["low", "mid", "high"]}
NUMBER: dict[str, Any] = {"kind": "regression", "target": "income"}


@pytest.mark.parametrize(
    "settings",
    [
        BINARY,
        {**BINARY, "event": "no", "threshold": 0.3, "aliases": {"yes.": "yes"}, "weight": "share"},
        {**BINARY, "classes": [False, True], "event": False},
        {**BINARY, "classes": [0, 1], "event": 0, "aliases": {2: 1}},
        {**BINARY, "classes": [0.0, 1.0], "loss": {"kind": "focal", "gamma": 1.5, "class_weights": {1.0: 3}}},
        {**BINARY, "classes": ["1", "1.0"]},
        {**BINARY, "loss": {"kind": "custom", "function": "package.module:function"}},
        {**SEVERAL, "ordered": True, "probabilities": "array"},
        {"kind": "multiclass", "target": "income"},
        NUMBER,
        {**NUMBER, "transform": "log1p", "center": 1.5, "scale": 2.0, "loss": {"kind": "quantile"}},
    ],
)
def test_survives_json_with_the_types_of_its_classes(settings: dict[str, Any]) -> None:
    task = from_settings(settings)
    again = from_json(task.to_json())
    assert again == task
    assert again.to_json() == task.to_json()
    for value, other in zip(getattr(again, "classes", ()), settings.get("classes", ()), strict=True):
        assert (type(value), value) == (type(other), other)
    # As a YAML file is read: by way of JSON, whose keys are texts.
    assert from_json(json.dumps(settings)) == task


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**SEVERAL, "threshold": 0.5}, "multiclass.threshold: Extra inputs are not permitted"),
        ({**NUMBER, "classes": ["a", "b"]}, "regression.classes: Extra inputs are not permitted"),
        ({"kind": "ranking", "target": "income"}, "kind: must be one of 'binary', 'multiclass', 'regression'"),
        ({**BINARY, "event": "maybe"}, "event: 'maybe' is none of the classes 'no', 'yes'"),
        ({**BINARY, "classes": [0, 1], "event": True}, "event: True is none of the classes 0, 1"),
        ({**BINARY, "classes": [0.0, 1.0], "event": 1}, "event: 1 is none of the classes 0.0, 1.0"),
        ({**BINARY, "classes": ["yes"]}, "classes: 'yes' is one class; name at least two, or leave classes out"),
        (
            {**BINARY, "classes": ["a", "b", "c"]},
            r"binary has two, got 3 .*; name other spellings in aliases, or choose",
        ),
        ({**SEVERAL, "classes": ["a", "b", "a"]}, "classes: a: named twice"),
        ({**SEVERAL, "classes": ["a", 1]}, r"are of different types \(integers, texts\); write all of them alike"),
        ({**SEVERAL, "classes": [0, True]}, r"different types \(booleans, integers\)"),
        ({**SEVERAL, "classes": [0.5, float("nan")]}, "classes.1.float: Input should be a finite number"),
        ({**SEVERAL, "classes": [0, 2**63]}, "does not fit in a bigint"),
        ({**SEVERAL, "classes": ["a", None]}, "classes"),
        ({**BINARY, "aliases": {"yes.": "y"}}, r"aliases: yes\.: 'y' is none of the classes 'no', 'yes'"),
        ({**BINARY, "aliases": {"no": "yes"}}, "aliases: no is a class itself; take it out of aliases or of classes"),
        ({**BINARY, "classes": [0, 1], "aliases": {"two": 1}}, "aliases: 'two' is not written like the integers"),
        (
            {**BINARY, "loss": {"kind": "cross_entropy", "class_weights": {"maybe": 2.0}}},
            r"loss\.class_weights: maybe is none of the classes 'no', 'yes'",
        ),
        ({**BINARY, "loss": {"kind": "focal", "class_weights": {"yes": 0.0}}}, "class_weights.yes: .*greater than 0"),
        ({**BINARY, "loss": {"kind": "mse"}}, "expected tags: 'cross_entropy', 'focal', 'custom'"),
        ({**BINARY, "loss": {"kind": "custom", "function": "loss"}}, "loss.custom.function"),
        ({**BINARY, "loss": {"kind": "cross_entropy", "label_smoothing": 1.0}}, "label_smoothing.*less than 1"),
        ({**BINARY, "threshold": 1.0}, "threshold"),
        (
            {**SEVERAL, "classes": ["a b", "a_b"]},
            r"column probability_a_b; rename a class, or set task",
        ),
        ({**SEVERAL, "classes": ["A", "a"]}, "column probability_a; rename"),
        ({**SEVERAL, "classes": [-1, 1, 0.5]}, "different types"),
        ({**NUMBER, "loss": {"kind": "quantile", "quantiles": [0.9, 0.5]}}, "quantiles: .*must ascend, got 0.9, 0.5"),
        ({**NUMBER, "loss": {"kind": "quantile", "quantiles": [0.1, 0.9]}}, "must contain 0.5, the prediction itself"),
        ({**NUMBER, "loss": {"kind": "quantile", "quantiles": [0.0, 0.5]}}, "quantiles.0: .*greater than 0"),
        ({**NUMBER, "loss": {"kind": "huber", "delta": 0.0}}, "delta"),
        ({**NUMBER, "scale": 0.0}, "scale"),
        ({**NUMBER, "standardise": False, "center": 1.0}, "center and scale need standardise: true"),
        ({**NUMBER, "transform": "sqrt"}, "transform"),
        ({**NUMBER, "target": "a`b"}, "target"),
        ({"kind": "binary", "target": "y", "classes": ["a"]}, "^task: binary: classes: 'a' is one class"),
        ({"target": "y"}, "^task: kind: must be one of 'binary', 'multiclass', 'regression'$"),
    ],
)
def test_wrong_settings_say_what_to_change(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_settings(settings)


def test_classes_are_those_of_the_training_rows_in_order() -> None:
    task = from_settings({"kind": "multiclass", "target": "income", "aliases": {"hi": "high"}})
    assert not task.is_resolved
    resolved = task.resolved(Seen(values=["mid", "hi", None, "high", "low"]))
    assert resolved.is_resolved
    assert resolved == from_settings({**SEVERAL, "classes": ["high", "low", "mid"], "aliases": {"hi": "high"}})
    assert from_json(resolved.to_json()) == resolved


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([True, False], (False, True)),
        ([10, 9], (9, 10)),
        ([2.5, -1.0, float("nan")], (-1.0, 2.5)),
        ([Decimal("1.50"), Decimal("0.25")], (0.25, 1.5)),
    ],
)
def test_the_event_is_the_last_class_unless_set(values: list[Any], classes: tuple[Any, ...]) -> None:
    resolved = from_settings({"kind": "binary", "target": "income"}).resolved(Seen(values=values))
    assert resolved.model_dump()["classes"] == classes
    assert resolved.model_dump()["event"] == classes[-1]
    first = from_settings({"kind": "binary", "target": "income", "event": classes[0]}).resolved(Seen(values=values))
    assert first.model_dump()["event"] == classes[0]


@pytest.mark.parametrize(
    ("settings", "seen", "message"),
    [
        (
            {"kind": "binary"},
            Seen(values=["a", "b", "c"]),
            "as seen in the training rows: classes: binary has two, got 3",
        ),
        ({"kind": "binary"}, Seen(values=["a", None]), r"has 1 different values in the training rows \('a'\)"),
        ({"kind": "binary"}, Seen(), r"has 0 different values in the training rows \(all missing\)"),
        ({"kind": "binary", "event": "z"}, Seen(values=["a", "b"]), "event: 'z' is none of the classes 'a', 'b'"),
        ({"kind": "multiclass"}, Seen(values=range(10_001)), "more than 10,000 different values.*kind: regression"),
        ({"kind": "multiclass"}, Seen(values=["a b", "a_b"]), "task.probabilities: array"),
        (
            {"kind": "multiclass", "loss": {"kind": "cross_entropy", "class_weights": {"z": 2.0}}},
            Seen(values=["a", "b"]),
            "class_weights: z is none of the classes",
        ),
        ({"kind": "regression"}, Seen(), "no training row has a value; the target must be there, finite"),
        ({"kind": "regression"}, Seen(mean=float("inf"), deviation=1.0), "too large to standardise"),
    ],
)
def test_training_rows_that_do_not_fit_are_refused(settings: dict[str, Any], seen: Seen, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_settings({"target": "income", **settings}).resolved(seen)


def test_center_and_scale_are_those_of_the_training_rows_in_7_digits() -> None:
    task = from_settings({**NUMBER, "transform": "log1p"})
    resolved = task.resolved(Seen(mean=1.23456789123, deviation=1234.56789))
    assert (resolved.model_dump()["center"], resolved.model_dump()["scale"]) == (1.234568, 1234.568)
    assert resolved.resolved(Seen(mean=9.0, deviation=9.0)) == resolved
    assert task.resolved(Seen(mean=3.0, deviation=0.0)).model_dump()["scale"] == 1.0


def test_what_is_not_known_yet_is_named() -> None:
    with pytest.raises(ConfigError, match=r"task\.classes: not known before the training rows of income were read"):
        _ = from_settings({"kind": "multiclass", "target": "income"}).num_outputs
    with pytest.raises(ConfigError, match=r"task\.center, task\.scale: not known before"):
        from_settings(NUMBER).predictions([[1.0]])


@pytest.mark.parametrize(
    ("settings", "column", "message"),
    [
        (BINARY, Column(type="date"), "task.target income: type date, expected string, boolean or a number"),
        (SEVERAL, Column(type="array<float>"), "type array<float>, expected string"),
        (BINARY, Column(type="int"), "task.classes 'no', 'yes' are texts, but .* type is int; write them as integers"),
        (
            {**BINARY, "classes": [0, 1]},
            Column(),
            "are integers, but the contract's type is string; write them as texts",
        ),
        ({**BINARY, "classes": [0.5, 1.5]}, Column(type="bigint"), "are floats, but .* write them as integers"),
        ({**BINARY, "classes": [0, 1]}, Column(type="boolean"), "write them as booleans"),
        (BINARY, Column(), "must allow no other values than task.classes and task.aliases, it allows any"),
        (BINARY, Column(allowed=("no", "yes", "yes.")), "it allows no, yes, yes."),
        ({"kind": "binary", "target": "income", "aliases": {"9": 1}}, Column(), "task.aliases 1 are integers, but"),
        (NUMBER, Column(), "type string, regression needs a number; choose another column, or kind: binary or multi"),
        (NUMBER, Column(type="boolean"), "type boolean, regression needs a number"),
    ],
)
def test_contracts_that_cannot_give_labels_are_refused(settings: dict[str, Any], column: Column, message: str) -> None:
    problems = from_settings(settings).check(column)
    assert len(problems) == 1
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(problems[0])


@pytest.mark.parametrize(
    ("settings", "column", "is_closed"),
    [
        (BINARY, Column(allowed=("no", "yes")), True),
        (BINARY, Column(allowed=("no", "yes"), nullable=True), False),
        ({**BINARY, "aliases": {"yes.": "yes"}}, Column(allowed=("no", "yes", "yes.")), True),
        ({"kind": "binary", "target": "income"}, Column(allowed=("no", "yes")), False),
        ({**BINARY, "classes": [False, True]}, Column(type="boolean"), True),
        ({**BINARY, "classes": [0, 1]}, Column(type="int"), False),
        ({**BINARY, "classes": [0, 1]}, Column(type="int", min=0, max=1), True),
        ({**BINARY, "classes": [0, 1]}, Column(type="int", min=0, max=2), False),
        ({**BINARY, "classes": [0, 1], "aliases": {2: 1}}, Column(type="bigint", min=0, max=2), True),
        ({**BINARY, "classes": [0.0, 1.0]}, Column(type="double", min=0, max=1), False),
        (NUMBER, Column(type="int"), True),
        (NUMBER, Column(type="int", nullable=True), False),
        (NUMBER, Column(type="double"), False),
        (NUMBER, Column(type="double", min=0, max=9), True),
        ({**NUMBER, "transform": "log1p"}, Column(type="int"), False),
        ({**NUMBER, "transform": "log1p"}, Column(type="int", min=0), True),
    ],
)
def test_contracts_that_close_the_set_need_no_counting(
    settings: dict[str, Any], column: Column, is_closed: bool
) -> None:
    task = from_settings(settings)
    assert task.check(column) == []
    assert task.is_closed_by(column) is is_closed


def test_rows_without_a_label_are_refused_by_value() -> None:
    message = from_settings(BINARY).refusal({"maybe": 1200, None: 3, "a": 1, "b": 1, "c": 1, "d": 1})
    assert message.startswith("task.target income: no label can be made of 'maybe' (1,200 rows), None (3 rows), 'a'")
    assert "and 1 other values; the classes are 'no', 'yes': name it in task.classes or task.aliases" in message
    assert "above -1 (task.transform: log1p)" in from_settings({**NUMBER, "transform": "log1p"}).refusal({-3.0: 1})


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column("share", "string"), "weight share: type string, expected a number"),
        (Column("share", "double", nullable=True, min=0), "may be missing; the contract must say nullable: false"),
        (Column("share", "double"), "may be below 0; the contract must give it min: 0 or more"),
    ],
)
def test_columns_that_are_no_weight_are_refused(column: Column, message: str) -> None:
    (problem,) = from_settings({**BINARY, "weight": "share"}).check_weight(column)
    assert message in problem
    assert from_settings({**BINARY, "weight": "share"}).check_weight(Column("share", "int", min=0)) == []


def test_binary_predictions_begin_at_the_threshold() -> None:
    task = from_settings({**BINARY, "threshold": 0.8})
    predictions = task.predictions(np.array([[0.0], [1.3], [1.5]], np.float32))
    assert list(predictions) == list(task.prediction_types) == ["probability", "prediction"]
    np.testing.assert_allclose(predictions["probability"], [0.5, 0.785835, 0.817574], atol=1e-6)
    assert predictions["prediction"].tolist() == ["no", "no", "yes"]


@pytest.mark.parametrize(
    ("classes", "event", "kind", "predicted"),
    [
        ([0, 1], None, "bigint", [0, 1]),
        ([0, 1], 0, "bigint", [1, 0]),
        ([False, True], None, "boolean", [False, True]),
        (["<=50K", ">50K"], None, "string", ["<=50K", ">50K"]),
        ([0.0, 1.0], None, "double", [0.0, 1.0]),
    ],
)
def test_binary_predictions_are_values_of_the_label(
    classes: list[Any], event: Any, kind: str, predicted: list[Any]
) -> None:
    task = from_settings({**BINARY, "classes": classes, **({} if event is None else {"event": event})})
    assert task.prediction_types == {"probability": "double", "prediction": kind}
    assert task.predictions([[-1.0], [1.0]])["prediction"].tolist() == predicted


@pytest.mark.parametrize(
    ("classes", "names", "kind", "predicted"),
    [
        (["<=50K", "größer", "x y"], ["__50K", "größer", "x_y"], "string", ["größer", "<=50K"]),
        ([-1, 5, 10], ["_1", "5", "10"], "bigint", [5, -1]),
        ([0.5, 1.5, 2.0], ["0_5", "1_5", "2_0"], "double", [1.5, 0.5]),
        (["a_interval", "b", "c"], ["a_interval_", "b", "c"], "string", ["b", "a_interval"]),
    ],
)
def test_multiclass_predictions_have_the_class_and_a_probability_of_each(
    classes: list[Any], names: list[str], kind: str, predicted: list[Any]
) -> None:
    task = from_settings({**SEVERAL, "classes": classes})
    outputs = np.log(np.array([[1, 2, 1], [3, 1, 1]], np.float64))
    predictions = task.predictions(outputs)
    assert task.prediction_types == {"prediction": kind, **{f"probability_{name}": "double" for name in names}}
    assert list(predictions) == list(task.prediction_types)
    assert predictions["prediction"].tolist() == predicted
    np.testing.assert_allclose(predictions[f"probability_{names[0]}"], [0.25, 0.6])
    array = from_settings({**SEVERAL, "classes": classes, "probabilities": "array"})
    assert array.prediction_types == {"prediction": kind, "probabilities": "array<double>"}
    np.testing.assert_allclose(array.predictions(outputs)["probabilities"], [[0.25, 0.5, 0.25], [0.6, 0.2, 0.2]])


def test_classes_that_share_a_name_are_told_apart_by_id_where_an_array_holds_them() -> None:
    task = from_settings({**SEVERAL, "classes": ["a b", "a_b", "A B"], "probabilities": "array"})
    assert {"recall_0", "recall_1", "recall_2"} <= set(task.metric_names)


def test_a_row_is_predicted_the_same_alone_and_among_others() -> None:
    outputs = np.random.default_rng(0).normal(size=(257, 3)).astype(np.float32) * 5
    for task in (from_settings(SEVERAL), from_settings({**SEVERAL, "probabilities": "array"})):
        together = task.predictions(np.asfortranarray(outputs))
        for place in (0, 100, 256):
            for name, values in task.predictions(outputs[place : place + 1]).items():
                np.testing.assert_array_equal(values[0], together[name][place])


def test_regression_predictions_are_in_the_targets_own_unit() -> None:
    task = from_settings({**NUMBER, "transform": "log1p", "center": 2.0, "scale": 0.5})
    predictions = task.predictions([[0.0], [2.0], [1e6]])
    assert task.prediction_types == {"prediction": "double"}
    np.testing.assert_allclose(predictions["prediction"][:2], [np.e**2 - 1, np.e**3 - 1])
    assert np.isfinite(predictions["prediction"]).all()


def test_quantiles_give_limits_which_never_cross() -> None:
    task = from_settings({**NUMBER, "standardise": False, "loss": {"kind": "quantile"}})
    predictions = task.predictions([[1.0, 2.0, 3.0], [9.0, 2.0, 3.0]])
    assert {name: values.tolist() for name, values in predictions.items()} == {
        "prediction": [2.0, 3.0],
        "prediction_low": [1.0, 2.0],
        "prediction_high": [3.0, 9.0],
    }
    upper = from_settings({**NUMBER, "loss": {"kind": "quantile", "quantiles": [0.5, 0.9]}})
    assert list(upper.prediction_types) == ["prediction", "prediction_high"]
    assert "coverage" not in upper.metric_names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log_loss", "log loss"),
        ("roc_auc", "ROC AUC"),
        ("rmse", "RMSE"),
        ("top_2_accuracy", "top 2 accuracy"),
        ("macro_precision", "macro precision"),
        ("f1_some_class", "F1 of some_class"),
        ("recall_0", "recall of 0"),
    ],
)
def test_metrics_have_titles_for_people(name: str, text: str) -> None:
    assert title(name) == text


def test_metric_is_the_default_or_one_of_the_task() -> None:
    task = from_settings(SEVERAL)
    assert task.metric("", setting="--metric") == "log_loss"
    assert task.metric("accuracy", setting="--metric") == "accuracy"
    with pytest.raises(
        ConfigError, match="--metric=r2: a multiclass task has no such metric; choose one of accuracy, "
    ):
        task.metric("r2", setting="--metric")


def test_metrics_of_single_classes_are_open_until_the_classes_are_known() -> None:
    several = {"kind": "multiclass", "target": "label"}
    assert from_settings(several).has_metric("f1_some")
    assert not from_settings(several).has_metric("rmse")
    assert not from_settings({**several, "classes": ["a", "b", "c"]}).has_metric("f1_some")
    assert from_settings({**several, "classes": ["a", "b", "c"]}).has_metric("f1_a")


def test_default_metrics_are_what_the_loss_aims_at() -> None:
    losses = {"mse": "rmse", "huber": "rmse", "mae": "mae", "quantile": "pinball"}
    for kind, metric in losses.items():
        assert from_settings({**NUMBER, "loss": {"kind": kind}}).default_metric == metric
    assert from_settings(BINARY).default_metric == from_settings(SEVERAL).default_metric == "log_loss"
    assert not from_settings(BINARY).lower_is_better("roc_auc")
    assert from_settings(NUMBER).lower_is_better("rmse")


def test_every_kind_is_named_as_its_class_says() -> None:
    for kind, task in KINDS.items():
        assert task.model_fields["kind"].annotation is not None
        assert from_settings({"kind": kind, "target": "a"}).kind == kind


def test_a_task_takes_from_its_table_what_the_training_rows_decided() -> None:
    open_task = from_settings({"kind": "binary", "target": "y", "threshold": 0.3})
    of_table = from_settings({"kind": "binary", "target": "y", "classes": ["a", "b"], "event": "b"})
    task = open_task.on_table(of_table, "tables/y_features")
    assert json.loads(task.to_json()) == json.loads(of_table.to_json()) | {"threshold": 0.3}
    number = from_settings({"kind": "regression", "target": "y", "loss": {"kind": "mae"}})
    scaled = from_settings({"kind": "regression", "target": "y", "center": 2.0, "scale": 3.0})
    assert json.loads(number.on_table(scaled, "t").to_json())["center"] == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event": "a"}, r"t: prepared for another task \(task\.event was 'b', is 'a'\); prepare it anew"),
        ({"classes": ["a", "c"], "event": "c"}, r"task\.classes was \['a', 'b'\], is \['a', 'c'\]"),
        ({"target": "z"}, r"task\.target was 'y', is 'z'"),
        ({"kind": "multiclass"}, r"task\.kind was 'binary', is 'multiclass'"),
    ],
)
def test_a_task_of_other_labels_than_its_table_is_refused(changes: dict[str, Any], message: str) -> None:
    of_table = {"kind": "binary", "target": "y", "classes": ["a", "b"], "event": "b"}
    other = of_table | changes
    if other["kind"] == "multiclass":
        del other["event"]
    with pytest.raises(ConfigError, match=message):
        from_settings(other).on_table(from_settings(of_table), "t")
