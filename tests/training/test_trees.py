"""Boosted trees: the rows of the same feature table, without ranks."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from mlspark.commands import interruption
from mlspark.engines import engine
from mlspark.errors import ConfigError, RegistryError
from mlspark.evaluation import predictions
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import trees
from mlspark.models.trees import TreesSettings
from mlspark.streaming import delta_files
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training import learner, trees_learner
from mlspark.training.events import Event, Grown
from mlspark.training.learned_model import LearnedModel
from mlspark.training.spec import Functions, TrainingSpec

from .conftest import ROWS, TASK, binary_task, columns, write_snapshot
from .test_tasks import MULTICLASS, REGRESSION, of_classes, of_numbers, run_of, weighted

FAST = TreesSettings(num_rounds=200, learning_rate=0.1, max_depth=3, early_stopping_rounds=10)
ON_SPARK = FAST.model_copy(update={"memory_bytes": 0})
NO_SPARK: Any = None


def spec_of(
    folder: Path, snapshot: Snapshot, task: Any = TASK, model: TreesSettings = FAST, **options: Any
) -> TrainingSpec:
    return dataclasses.replace(run_of(folder, snapshot, task, **options), model=model)


def learn(spec: TrainingSpec, on_event: Any = lambda event: None) -> LearnedModel:
    return learner.learn(NO_SPARK, spec, on_event)


def inputs(split: str) -> dict[str, Any]:
    table = columns(split)
    dense = np.stack([table["age"], table["hours"]], axis=1)
    return {"dense": dense, "ids": table["job"].astype(np.int64)[:, None]}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> TrainingSpec:
    return spec_of(tmp_path_factory.mktemp("trees"), snapshot)


@pytest.fixture(scope="module")
def learned(spec: TrainingSpec) -> LearnedModel:
    return learn(spec)


def test_growing_ends_when_the_handler_of_events_raises(
    tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a search does whose user presses Ctrl-C: the trial in its thread does not grow to its end."""
    monkeypatch.setattr(trees_learner, "_PROGRESS_SECONDS", 0.0)
    rounds: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, Grown):
            rounds.append(event.rounds)
            if event.rounds == 3:
                raise InterruptedError

    with pytest.raises(InterruptedError):
        learn(spec_of(tmp_path, snapshot), stop)
    assert rounds == [1, 2, 3]


def test_interrupted_trees_say_that_they_begin_anew(
    tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees_learner, "_PROGRESS_SECONDS", 0.0)

    def interrupt(event: Event) -> None:
        if isinstance(event, Grown):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        learn(spec_of(tmp_path, snapshot), interrupt)
    assert interruption.line(raised.value) == "interrupted after round 1; the same command grows the trees anew"


def test_trees_learn_stop_early_and_say_how_they_came_about(learned: LearnedModel) -> None:
    auc = learned.metrics["test"]["roc_auc"]
    assert auc is not None
    assert auc > 0.85
    assert 10 < learned.report["rounds"] < 200  # it stopped early
    assert (learned.engine, learned.report["world_size"]) == ("trees", 1)
    assert sorted(learned.files) == ["model.json", "model.ubj"]


def test_outputs_of_the_engine_are_those_that_were_evaluated(spec: TrainingSpec, learned: LearnedModel) -> None:
    model = engine.load(learned.files)
    for split in ("validation", "test"):
        kept = predictions.read(learned.predictions[split])
        outputs = model.run(inputs(split))
        assert outputs.shape == (ROWS[split], 1)
        order = np.argsort(columns(split)["row_id"])
        np.testing.assert_array_equal(outputs[order].astype(np.float64), kept.outputs)
        assert kept.metrics(spec.task) == learned.metrics[split]


def test_row_alone_has_the_bits_of_the_row_among_others(learned: LearnedModel) -> None:
    model, rows = engine.load(learned.files), inputs("test")
    together = model.run(rows)
    alone = [model.run({name: values[row : row + 1] for name, values in rows.items()}) for row in range(50)]
    np.testing.assert_array_equal(np.concatenate(alone), together[:50])
    assert model.run({name: values[:0] for name, values in rows.items()}).shape == (0, 1)


def test_same_rows_and_seed_give_the_same_bytes(tmp_path: Path, snapshot: Snapshot, learned: LearnedModel) -> None:
    assert learn(spec_of(tmp_path / "again", snapshot)).files == learned.files
    assert learn(spec_of(tmp_path / "other", snapshot, seed=1)).files != learned.files


def test_unseen_category_is_missing(learned: LearnedModel) -> None:
    rows = {"dense": np.zeros((2, 2), np.float32), "ids": np.array([[trees.UNSEEN_ID], [3]])}
    assert np.isnan(trees.features(rows)[:, 2]).tolist() == [True, False]
    assert np.isfinite(engine.load(learned.files).run(rows)).all()


@pytest.mark.parametrize(
    ("task", "loss", "change", "metric", "least"),
    [
        (MULTICLASS, {"kind": "cross_entropy"}, of_classes, "accuracy", 0.9),
        (REGRESSION, {"kind": "mse"}, of_numbers, "r2", 0.9),
        (REGRESSION, {"kind": "mae"}, of_numbers, "r2", 0.9),
        (REGRESSION, {"kind": "quantile", "quantiles": [0.1, 0.5, 0.9]}, of_numbers, "coverage", 0.6),
    ],
)
def test_other_tasks(tmp_path: Path, task: Any, loss: dict[str, Any], change: Any, metric: str, least: float) -> None:
    task = from_settings({**task.model_dump(), "loss": loss})
    of_task = learn(spec_of(tmp_path / "run", write_snapshot(tmp_path / "table", change), task))
    value = of_task.metrics["test"][metric]
    assert value is not None
    assert value > least
    assert engine.load(of_task.files).run(inputs("test")).shape == (ROWS["test"], task.num_outputs)


def test_rows_of_weight_0_teach_nothing(tmp_path: Path) -> None:
    def spoil(split: str, table: dict[str, Any]) -> None:
        weighted(split, table)
        if split == "train":
            table["label"] = np.where(table["weight"] == 0, 1 - table["label"], table["label"]).astype(np.float32)

    settings = FAST.model_copy(update={"early_stopping_rounds": 0, "num_rounds": 20, "subsample": 1.0})
    contents = [
        learn(
            spec_of(
                tmp_path / name, write_snapshot(tmp_path / f"{name}-table", change), model=settings, weight="weight"
            )
        )
        for name, change in (("one", weighted), ("other", spoil))
    ]
    rows = inputs("test")
    one, other = (engine.load(each.files).run(rows) for each in contents)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_training_rows_that_all_weigh_0_are_refused(spec: TrainingSpec) -> None:
    rows = trees.Rows(inputs("train"), columns("train")["label"], np.zeros(len(columns("train")["label"])))
    task = from_settings({**TASK.model_dump(), "weight": "wage"})
    with pytest.raises(
        ConfigError, match=r"task\.weight wage: all training rows weigh 0; correct the column or choose"
    ):
        trees.grow(FAST, task, spec.tensors, train=rows, validation=None, seed=0)


def test_class_weights_move_the_probability(tmp_path: Path, snapshot: Snapshot, learned: LearnedModel) -> None:
    heavy = learn(spec_of(tmp_path, snapshot, binary_task(class_weights={"1": 5.0})))
    rows = inputs("test")
    assert engine.load(heavy.files).run(rows).mean() > engine.load(learned.files).run(rows).mean() + 0.5


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"kind": "focal"}, "kind=focal; choose another loss"),
        ({"kind": "cross_entropy", "label_smoothing": 0.1}, "label_smoothing=0.1; set it to 0"),
        ({"kind": "custom", "function": "a:b"}, "kind=custom; choose another loss"),
    ],
)
def test_losses_that_trees_do_not_have_are_refused(
    tmp_path: Path, snapshot: Snapshot, loss: dict[str, Any], message: str
) -> None:
    task = from_settings({"kind": "binary", "target": "label", "classes": [0, 1], "loss": loss})
    with pytest.raises(ConfigError, match=f"model.kind=trees has no task.loss.{message}, or a network as model.kind"):
        learn(spec_of(tmp_path, snapshot, task))


def test_functions_and_pictures_are_refused(tmp_path: Path, snapshot: Snapshot, spec: TrainingSpec) -> None:
    with pytest.raises(ConfigError, match=r"model\.kind=trees takes no model or loss function"):
        learner.learn(NO_SPARK, spec, lambda event: None, functions=Functions(loss=len))
    pictures = Tensors((TensorSpec("photo", ("photo",), "uint8"),))
    with pytest.raises(ConfigError, match=r"takes no pictures \(photo\)"):
        trees.parameters(FAST, TASK, pictures, 0)


def test_damaged_trees_are_named(learned: LearnedModel) -> None:
    for files in ({"model.json": learned.files["model.json"]}, {**learned.files, "model.ubj": b"{}"}):
        with pytest.raises(RegistryError, match=r"model\.ubj: missing, or no trees of XGBoost"):
            engine.load(files)


def test_without_validation_and_test_rows_all_rounds_are_grown(tmp_path: Path, snapshot: Snapshot) -> None:
    seen: list[Event] = []
    settings = FAST.model_copy(update={"num_rounds": 15})
    of_train = learn(spec_of(tmp_path, snapshot.where(split="train"), model=settings), seen.append)
    assert (of_train.report["rounds"], of_train.metrics, of_train.predictions) == (15, {}, {})
    assert [event.name for event in seen if event.name != "grown"] == ["started"]  # those are of every second


def write_table(spark: SparkSession, folder: Path, change: Any = None) -> Snapshot:
    """Write the rows of `write_snapshot` as a table that Spark reads."""
    parts = []
    for split in ROWS:
        table = columns(split)
        if change is not None:
            change(split, table)
        parts.append(pd.DataFrame({**table, "split": split}))
    rows = spark.createDataFrame(pd.concat(parts))
    rows.write.format("delta").partitionBy("split").save(str(folder))
    return delta_files.take(str(folder))


def test_spark_grows_trees_as_good(
    spark: SparkSession, tmp_path: Path, learned: LearnedModel, spec: TrainingSpec
) -> None:
    table = write_table(spark, tmp_path / "table")
    by_spark = spec_of(tmp_path / "run", table, model=ON_SPARK)
    found = learner.learn(spark, by_spark, lambda event: None)
    assert found.report["world_size"] == 2
    auc, expected = (each.metrics["test"]["roc_auc"] for each in (found, learned))
    assert auc is not None
    assert expected is not None
    assert auc == pytest.approx(expected, abs=0.01)
    outputs = engine.load(found.files).run(inputs("test"))
    np.testing.assert_allclose(outputs, engine.load(learned.files).run(inputs("test")), atol=1.0)


FOUR = from_settings({"kind": "multiclass", "target": "label", "classes": ["a", "b", "c", "d"]})


def without(*absent: int) -> Any:
    """Return a change of the rows: the classes but `absent`, the first of which a single test row has."""

    def change(split: str, table: dict[str, Any]) -> None:
        of_classes(split, table)
        present = np.array([place for place in range(4) if place not in absent], np.int32)
        table["label"] = present[np.minimum(table["label"], len(present) - 1)]
        if split == "test":
            table["label"][0] = absent[0]

    return change


def check_outputs(learned: LearnedModel, *absent: int) -> None:
    """Check that each class has a finite output, and that those without training rows are never predicted."""
    outputs = engine.load(learned.files).run(inputs("test"))
    assert outputs.shape == (ROWS["test"], 4)
    assert np.isfinite(outputs).all()
    assert not set(absent) & set(outputs.argmax(axis=1).tolist())
    accuracy = learned.metrics["test"]["accuracy"]
    assert accuracy is not None
    assert accuracy > 0.85


@pytest.mark.parametrize("absent", [(0,), (1,), (3,), (1, 3)])
def test_class_without_training_rows_has_an_output(tmp_path: Path, absent: tuple[int, ...]) -> None:
    table = write_snapshot(tmp_path / "table", without(*absent))
    check_outputs(learn(spec_of(tmp_path / "run", table, FOUR)), *absent)


@pytest.mark.parametrize("absent", [(1,), (1, 3)])
def test_class_without_training_rows_has_an_output_on_spark(
    spark: SparkSession, tmp_path: Path, absent: tuple[int, ...]
) -> None:
    table = write_table(spark, tmp_path / "table", without(*absent))
    spec = spec_of(tmp_path / "run", table, FOUR, ON_SPARK)
    check_outputs(learner.learn(spark, spec, lambda event: None), *absent)
