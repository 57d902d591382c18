"""Ensembles: members learnt one after another as they would be alone, and combined; kept, resumed, run as one engine."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet as pq
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from mlspark import models, storage
from mlspark.engines import engine
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.evaluation import combining, predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.ensemble import EnsembleSettings
from mlspark.registry import requirements
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training import learner, members, optimization, trees_learner
from mlspark.training.events import Event, OfMember, from_json
from mlspark.training.learned_model import LearnedModel
from mlspark.training.settings import OptimizerSettings, TrainingSettings
from mlspark.training.spec import Functions, TrainingSpec

from .conftest import ROWS, TASK, columns, epochs, fit_here, new_run, weights_manifest, write_snapshot
from .test_pictures import SPEC as PHOTO
from .test_resume import stop_at
from .test_tasks import MULTICLASS, REGRESSION, of_classes, of_numbers, run_of, weighted
from .test_trees import inputs

NO_SPARK: Any = None
TREES = {"kind": "trees", "num_rounds": 60, "learning_rate": 0.1, "max_depth": 3, "early_stopping_rounds": 10}
TABULAR = {"kind": "tabular", "hidden": [16], "dropout": 0.0}


def settings(*of: dict[str, Any], combine: str = "mean") -> EnsembleSettings:
    found = models.from_json({"kind": "ensemble", "members": list(of), "combine": combine})
    assert isinstance(found, EnsembleSettings)
    return found


def spec_of(
    folder: Path, snapshot: Snapshot, model: EnsembleSettings, task: Any = TASK, **options: Any
) -> TrainingSpec:
    spec = run_of(folder, snapshot, task, num_processes=1, **options)
    return members.expanded(dataclasses.replace(spec, model=model))


def fit_networks(spec: TrainingSpec) -> None:
    """Train the members that are networks in this process, so that their runs are whole already."""
    for of in spec.members.values():
        if of.model.learner == "network":
            Snapshot.load(spec.snapshot_uri).save(of.snapshot_uri)
            of.save()
            fit_here(of)


def learn(spec: TrainingSpec, on_event: Any = lambda event: None) -> LearnedModel:
    fit_networks(spec)
    return learner.learn(NO_SPARK, spec, on_event)


def rows_of(learned: LearnedModel, name: str, split: str = "test") -> Predictions:
    return predictions.read(learned.predictions[split].replace("/predictions/", f"/members/{name}/predictions/"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> TrainingSpec:
    return spec_of(
        tmp_path_factory.mktemp("ensemble"),
        snapshot,
        settings({"model": TABULAR}, {"model": TREES}, combine="weighted"),
    )


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def learned(spec: TrainingSpec, events: list[Event]) -> LearnedModel:
    return learn(spec, events.append)


def test_networks_and_trees_are_one_model_that_runs_as_it_was_evaluated(
    spec: TrainingSpec, learned: LearnedModel
) -> None:
    model = engine.load(learned.files)
    for split in ("validation", "test"):
        kept, order = predictions.read(learned.predictions[split]), np.argsort(columns(split)["row_id"])
        outputs = model.run(inputs(split))
        assert outputs.dtype == np.float64
        np.testing.assert_array_equal(outputs[order], kept.outputs)
        assert kept.metrics(TASK) == learned.metrics[split]
        of_members = [rows_of(learned, name, split) for name in ("tabular", "trees")]
        np.testing.assert_array_equal(kept.target, of_members[0].target)
        weights = combining.best_weights(TASK, [rows_of(learned, name, "validation") for name in ("tabular", "trees")])
        chances = [TASK.predictions(each.outputs)["probability"] for each in of_members]
        np.testing.assert_allclose(
            TASK.predictions(kept.outputs)["probability"], weights[0] * chances[0] + weights[1] * chances[1], rtol=1e-12
        )
    rows = inputs("test")
    alone = [model.run({name: values[row : row + 1] for name, values in rows.items()}) for row in range(20)]
    np.testing.assert_array_equal(np.concatenate(alone), model.run(rows)[:20])


def test_a_member_is_the_model_that_it_would_be_alone(
    spec: TrainingSpec, learned: LearnedModel, one_rank: TrainingSpec, tmp_path: Path, snapshot: Snapshot
) -> None:
    assert weights_manifest(spec.members["tabular"])["files"] == weights_manifest(one_rank)["files"]
    alone = dataclasses.replace(new_run(tmp_path, snapshot, num_processes=1, seed=1), model=models.from_json(TREES))
    files = learner.learn(NO_SPARK, alone, lambda event: None).files
    assert files["model.ubj"] == learned.files["members/trees/model.ubj"]


def test_the_report_has_the_members_and_whether_together_they_are_better(
    learned: LearnedModel, events: list[Event]
) -> None:
    report = learned.report
    assert [member["name"] for member in report["members"]] == ["tabular", "trees"]
    assert [member["seed"] for member in report["members"]] == [0, 1]
    assert sum(member["weight"] for member in report["members"]) == pytest.approx(1.0)
    best = min(report["members"], key=lambda member: member["test"]["log_loss"])["name"]
    assert report["best_member"] == best
    right = {
        name: TASK.is_right(rows.outputs, rows.target)
        for name, rows in (("all", predictions.read(learned.predictions["test"])), ("best", rows_of(learned, best)))
    }
    assert report["mcnemar"]["only_first"] == int((right["all"] & ~right["best"]).sum())
    assert report["mcnemar"]["only_second"] == int((right["best"] & ~right["all"]).sum())
    assert 0 < report["mcnemar"]["p_value"] <= 1
    of_members = [event for event in events if isinstance(event, OfMember)]
    assert {event.member for event in of_members if event.event.name == "evaluation"} == {"tabular", "trees"}
    assert all(from_json(event.to_json()) == event for event in events)
    assert events[-1].name == "evaluation"
    assert not isinstance(events[-1], OfMember)
    assert sorted(learned.artifacts) == ["members/tabular/training.png"]


def test_a_version_needs_what_its_members_need(learned: LearnedModel) -> None:
    names = {line.partition("==")[0] for line in requirements.pinned(learned.files)}
    assert {"torch", "safetensors", "xgboost", "mlspark[serve]"} <= names


def test_the_same_rows_and_seeds_give_the_same_bytes(
    tmp_path: Path, snapshot: Snapshot, spec: TrainingSpec, learned: LearnedModel
) -> None:
    again = spec_of(tmp_path / "again", snapshot, settings({"model": TABULAR}, {"model": TREES}, combine="weighted"))
    assert again.digest("table") == spec.digest("table")
    assert learn(again).files == learned.files
    other = spec_of(tmp_path / "other", snapshot, settings({"model": TABULAR}, {"model": TREES, "seed": 5}))
    assert other.digest("table") != spec.digest("table")


@pytest.mark.parametrize(
    ("task", "change", "combine", "metric", "least"),
    [
        (MULTICLASS, of_classes, "vote", "accuracy", 0.85),
        (MULTICLASS, of_classes, "stacking", "accuracy", 0.85),
        (REGRESSION, of_numbers, "stacking", "r2", 0.9),
        (REGRESSION, of_numbers, "weighted", "r2", 0.9),
        (TASK, weighted, "weighted", "roc_auc", 0.8),
    ],
)
def test_other_tasks_and_combinations(
    tmp_path: Path, task: Any, change: Any, combine: str, metric: str, least: float
) -> None:
    weight = {"weight": "weight"} if change is weighted else {}
    task = from_settings({**task.model_dump(), **({"weight": "hours"} if weight else {})})
    model = settings({"model": TREES, "repeat": 2}, {"model": {**TREES, "max_depth": 1}}, combine=combine)
    spec = spec_of(tmp_path / "run", write_snapshot(tmp_path / "table", change), model, task, **weight)
    found = learn(spec)
    value = found.metrics["test"][metric]
    assert value is not None
    assert value > least
    kept = predictions.read(found.predictions["test"])
    outputs = engine.load(found.files).run(inputs("test"))
    np.testing.assert_array_equal(outputs[np.argsort(columns("test")["row_id"])], kept.outputs)
    assert ("mcnemar" in found.report) == (task.kind != "regression")
    assert (kept.weight is not None) == bool(weight)


def test_of_a_run_that_goes_on_whole_members_are_not_trained_again(
    tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees_learner, "_PROGRESS_SECONDS", 0.0)
    model = settings({"model": TREES, "repeat": 3})
    spec = spec_of(tmp_path / "run", snapshot, model)

    def stop(event: Event) -> None:
        if isinstance(event, OfMember) and event.member == "trees-2" and event.event.name == "grown":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        learn(spec, stop)
    seen: list[Event] = []
    found = learn(spec, seen.append)
    grown = {event.member for event in seen if isinstance(event, OfMember) and event.event.name == "grown"}
    assert grown == {"trees-2", "trees-3"}
    assert found.files == learn(spec_of(tmp_path / "other", snapshot, model)).files


def test_what_fails_is_named_by_its_member(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = spec_of(tmp_path / "run", snapshot, settings({"model": TREES}, {"name": "old", "version": "census/3"}))
    with pytest.raises(
        ConfigError, match=r"model\.members: old: a registered version is a member of what jobs/train\.py"
    ):
        learn(spec)
    spec = spec_of(tmp_path / "other", snapshot, settings({"model": TABULAR}, {"model": TREES}))
    fit_networks(spec)
    uri = predictions.uri_of(spec.members["tabular"].run_uri, "test")
    rows = predictions.read(uri)
    predictions.write(uri, Predictions.of(rows.row_id[1:], rows.target[1:], rows.outputs[1:]))
    with pytest.raises(TrainingFailed, match="split=test: tabular and trees have predicted different rows"):
        learner.learn(NO_SPARK, spec, lambda event: None)
    with pytest.raises(ConfigError, match=r"model\.kind=ensemble takes no model or loss function"):
        learner.learn(NO_SPARK, spec, lambda event: None, functions=Functions(loss=len))


def test_what_is_fitted_needs_validation_rows(tmp_path: Path, snapshot: Snapshot) -> None:
    only = snapshot.where(split="train")
    with pytest.raises(
        ConfigError, match=r"model\.combine=stacking is fitted on validation rows, and the table has none"
    ):
        learn(spec_of(tmp_path / "fitted", only, settings({"model": TREES, "repeat": 2}, combine="stacking")))
    found = learn(spec_of(tmp_path / "mean", only, settings({"model": TREES, "repeat": 2})))
    assert (found.metrics, found.predictions) == ({}, {})


def test_a_version_is_taken_as_it_is(tmp_path: Path, snapshot: Snapshot, learned: LearnedModel) -> None:
    spec = spec_of(
        tmp_path, snapshot, settings({"name": "old", "version": "census/3"}, {"model": {**TREES, "max_depth": 1}})
    )
    members.keep_version(spec, "old", learned.files)  # an ensemble itself
    found = learn(spec)
    old, before = rows_of(found, "old"), predictions.read(learned.predictions["test"])
    np.testing.assert_array_equal(old.outputs, before.outputs)
    assert found.report["members"][0]["version"] == "census/3"
    outputs = engine.load(found.files).run(inputs("test"))
    kept = predictions.read(found.predictions["test"])
    np.testing.assert_array_equal(outputs[np.argsort(columns("test")["row_id"])], kept.outputs)


# Settings of the members' trainings


def test_members_have_seeds_of_their_own(tmp_path: Path, snapshot: Snapshot) -> None:
    model = settings(
        {"model": TREES},
        {"model": TABULAR, "repeat": 2},
        {"model": TABULAR, "seed": 7, "repeat": 2},
        {"model": TABULAR, "training": {"seed": 3}},
    )
    spec = spec_of(tmp_path, snapshot, model, seed=100)
    assert [of.training.seed for of in spec.members.values()] == [100, 101, 102, 7, 8, 3]


def test_members_may_be_trained_otherwise(tmp_path: Path, snapshot: Snapshot) -> None:
    own = {"epochs": 7, "optimizer": {"weight_decay": 0.5}, "recovery": {"max_restarts": 1}}
    spec = spec_of(tmp_path, snapshot, settings({"model": TABULAR, "training": own}, {"model": TABULAR}))
    first, second = (of.training for of in spec.members.values())
    assert (first.epochs, first.optimizer.weight_decay, first.optimizer.learning_rate) == (7, 0.5, 2e-2)
    assert (second.epochs, second.optimizer.weight_decay) == (3, 1e-2)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    assert spec.at(str(tmp_path / "else")).members["tabular-1"].run_uri == str(
        tmp_path / "else" / "members" / "tabular-1"
    )


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"epoch": 7}, r"model\.members: wide: training\.epoch: unknown key, did you mean epochs\?"),
        ({"epochs": 0}, r"model\.members: wide: training\.epochs: Input should be greater than or equal to 1"),
        ({"optimizer": {"kind": "sgd", "momentum": 0.0, "nesterov": True}}, "wide: training.optimizer: nesterov needs"),
    ],
)
def test_wrong_settings_of_a_member_are_named(tmp_path: Path, snapshot: Snapshot, training: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        spec_of(
            tmp_path, snapshot, settings({"name": "wide", "model": TABULAR, "training": training}, {"model": TREES})
        )


@pytest.mark.parametrize(
    ("member", "task", "message"),
    [
        (
            {"training": {"global_batch_size": 1, "num_processes": 2}},
            TASK,
            "model.members: tabular: training.global_batch",
        ),
        ({"training": {"best": "rmse"}}, TASK, "model.members: tabular: training.best=rmse: a binary task has no such"),
        ({"training": {"mix": {"mixup": 0.2}}}, REGRESSION, "model.members: tabular: training.mix"),
    ],
)
def test_trainings_that_cannot_be_are_refused_with_the_settings(member: Any, task: Any, message: str) -> None:
    model = settings({"model": TABULAR, **member}, {"model": TREES})
    with pytest.raises(ConfigError, match=message):
        members.check(model, TrainingSettings(), StreamingSettings(), task)


# Snapshots of one run


def test_the_rate_falls_and_begins_anew_as_torch_has_it() -> None:
    weights = [torch.nn.Parameter(torch.zeros(1))]
    rates = {}
    for name in ("ours", "torch"):
        of = torch.optim.SGD([{"params": weights, "lr": 0.1, optimization.RATE: 1.0}])
        ours = OptimizerSettings(schedule="cosine", cycles=3, learning_rate=0.1)
        schedule: Any = (
            optimization.schedule(ours, of, epochs=6, steps_per_epoch=5)
            if name == "ours"
            else CosineAnnealingWarmRestarts(of, T_0=10)
        )
        rates[name] = []
        for _ in range(30):
            rates[name].append(of.param_groups[0]["lr"])
            of.step()
            schedule.step()
    assert rates["ours"] == pytest.approx(rates["torch"], rel=1e-9)
    assert rates["ours"][::10] == [0.1] * 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"epochs": 5, "optimizer": {"schedule": "cosine", "cycles": 2}},
            "optimizer.cycles=2 does not divide epochs=5",
        ),
        ({"epochs": 4, "optimizer": {"cycles": 2}}, "cycles=2 needs schedule: cosine, got one_cycle"),
        (
            {"epochs": 4, "patience": 1, "optimizer": {"schedule": "cosine", "cycles": 2}},
            "patience and optimizer.cycles",
        ),
        (
            {"epochs": 4, "optimizer": {"schedule": "cosine", "cycles": 2, "warmup_share": 0.5}},
            "warmup_share=0.5 is no part",
        ),
    ],
)
def test_cycles_that_cannot_be_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings.model_validate(changes)


def test_snapshots_of_one_run_are_members(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = spec_of(tmp_path, snapshot, settings({"model": TABULAR, "snapshots": 2}), epochs=4)
    found = learn(spec)
    assert [member["name"] for member in found.report["members"]] == ["tabular-1", "tabular-2"]
    kept = predictions.read(found.predictions["test"])
    outputs = engine.load(found.files).run(inputs("test"))
    order = np.argsort(columns("test")["row_id"])
    np.testing.assert_array_equal(outputs[order], kept.outputs)
    run = spec.members["tabular"]
    of_cycles = [predictions.read(predictions.uri_of(uri, "test")) for uri in run.snapshot_uris]
    assert len(of_cycles) == 2
    assert (of_cycles[0].outputs != of_cycles[1].outputs).any()
    # The weights after two of four epochs have the validation metrics of the second epoch.
    second = epochs(run)[1]
    validation = predictions.read(predictions.uri_of(run.snapshot_uris[0], "validation"))
    assert validation.metrics(TASK)["log_loss"] == second["validation_log_loss"]


def test_snapshots_of_a_run_that_was_stopped_are_the_same_bits(tmp_path: Path, snapshot: Snapshot) -> None:
    optimizer = OptimizerSettings(learning_rate=2e-2, schedule="cosine", cycles=2)
    whole, stopped = (
        new_run(tmp_path / name, snapshot, num_processes=1, epochs=4, optimizer=optimizer)
        for name in ("whole", "stopped")
    )
    fit_here(whole)
    stop_at(stopped, 25)  # in the third epoch: it is asked 8 times in training and twice in validation
    fit_here(stopped)
    for one, other in zip(whole.snapshot_uris, stopped.snapshot_uris, strict=True):
        manifests = [storage.read_json(storage.join(uri, "manifest.json"))["files"] for uri in (one, other)]
        assert manifests[0] == manifests[1]
        assert predictions.read(predictions.uri_of(one, "test")).outputs.tolist() == (
            predictions.read(predictions.uri_of(other, "test")).outputs.tolist()
        )


# Pictures and columns


def test_a_network_of_pictures_and_trees_of_columns_are_one_model(tmp_path: Path) -> None:
    chance, files, rows = np.random.default_rng(0), [], {}
    for split, count in (("test", 16), ("train", 40), ("validation", 16)):
        label = np.arange(count) % 2
        photos = (chance.integers(0, 130, (count, 3, 12, 12)) + 90 * label[:, None, None, None]).astype(np.uint8)
        rows[split] = {
            "age": (label + chance.normal(size=count)).astype(np.float32),
            "photo": pa.array([photo.tobytes() for photo in photos], pa.binary()),
            "label": label.astype(np.float32),
            "row_id": np.arange(count) + 1000 * len(split),
        }
        path = tmp_path / "table" / f"split={split}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(rows[split]), path)
        files.append(
            DataFile(str(path.relative_to(tmp_path / "table")), path.stat().st_size, {"split": split}, (count,))
        )
        rows[split]["photo"] = photos
    table = Snapshot(str(tmp_path / "table"), 0, {}, tuple(files))
    pixels = dataclasses.replace(PHOTO, store="pixels")
    tensors = Tensors(
        (TensorSpec("dense", ("age",), "float32"), TensorSpec("photo", ("photo",), "uint8", picture=pixels))
    )
    model = settings(
        {"model": {"kind": "cnn", "widths": [4], "depth": 1, "inputs": ["photo"], "test_time": ["flip"]}},
        {"model": {**TREES, "inputs": ["dense"], "num_rounds": 5}},
    )
    run = new_run(tmp_path / "run", table, num_processes=1, epochs=1, global_batch_size=8, augment={"photo": ()})
    spec = members.expanded(dataclasses.replace(run, model=model, tensors=tensors))
    assert [list(of.training.augment) for of in spec.members.values()] == [["photo"], []]
    found = learn(spec)
    kept = predictions.read(found.predictions["test"])
    values = {"dense": rows["test"]["age"][:, None], "photo": rows["test"]["photo"]}
    model_of_both = engine.load(found.files)
    np.testing.assert_array_equal(model_of_both.run(values), kept.outputs)
    alone = model_of_both.run({name: value[5:6] for name, value in values.items()})
    np.testing.assert_array_equal(alone[0], kept.outputs[5])
    assert len(kept) == 16 != ROWS["test"]
