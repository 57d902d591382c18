"""Settings of ensembles: which members there are, what they are called, what is refused."""

from typing import Any

import pytest
from pydantic import ValidationError

from mlspark import models
from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.ensemble import EnsembleSettings
from mlspark.pictures.spec import PictureSpec
from mlspark.tasks.kinds import from_settings

TREES, TABULAR, CNN = {"kind": "trees"}, {"kind": "tabular"}, {"kind": "cnn"}
DENSE = TensorSpec("dense", ("age", "hours"), "float32")
IDS = TensorSpec("ids", ("job",), "int64", (7,))
PHOTO = TensorSpec("photo", ("photo",), "uint8", picture=PictureSpec("RGB", 9, 12))
REGRESSION = {"kind": "regression", "target": "label"}


def ensemble(*members: dict[str, Any], **settings: Any) -> EnsembleSettings:
    found = models.from_json({"kind": "ensemble", "members": list(members), **settings})
    assert isinstance(found, EnsembleSettings)
    return found


def names(settings: EnsembleSettings) -> list[str]:
    return [name for run in settings.runs() for name in run.names]


def test_members_are_called_after_their_kinds() -> None:
    of_all = ensemble(
        {"model": TREES},
        {"model": TABULAR, "repeat": 2},
        {"model": TREES},
        {"name": "wide", "model": {"hidden": [512]}},
        {"model": CNN, "snapshots": 3},
        {"version": "census/3"},
    )
    assert names(of_all) == [
        "trees-1", "tabular-1", "tabular-2", "trees-2", "wide", "cnn-1", "cnn-2", "cnn-3", "census-3"
    ]  # fmt: skip
    assert [(run.place, run.repetition) for run in of_all.runs()] == [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 0),
        (4, 0),
        (5, 0),
        (6, 0),
    ]
    of_one = ensemble({"model": TREES}, {"name": "wide", "model": TABULAR, "repeat": 2})
    assert names(of_one) == ["trees", "wide-1", "wide-2"]
    assert models.from_json(of_all.model_dump(mode="json")) == of_all


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            [{"model": {"kind": "ensemble", "members": []}}, {"model": TREES}],
            "expected tags: 'tabular', 'tabm', 'custom'",
        ),
        ([{"model": {"kind": "forest"}}, {"model": TREES}], "expected tags: 'tabular', 'tabm', 'custom', 'trees'"),
        ([{"model": TREES}], "an ensemble has at least 2; add one, or set repeat or snapshots"),
        ([{"name": "a", "model": TREES}, {"name": "A", "model": CNN}], "members: a: named twice"),
        ([{"name": "cnn-1", "model": TREES}, {"model": CNN, "repeat": 2}], "members: cnn-1: named twice"),
        ([{"model": TREES, "version": "a/1"}, {"model": TREES}], "give either model or version"),
        ([{}, {"model": TREES}], "give either model or version"),
        ([{"version": "a/1", "repeat": 2}, {"model": TREES}], "a version is taken as it is; leave training, seed"),
        ([{"version": "a"}, {"model": TREES}], "version\n  String should match pattern"),
        ([{"name": "a/b", "model": TREES}, {"model": TREES}], "name\n  String should match pattern"),
        ([{"model": TREES, "snapshots": 3}], "snapshots: model.kind=trees is trained without a learning rate"),
        ([{"model": CNN, "snapshots": 1}, {"model": TREES}], "snapshots: 1 is a single member"),
        ([{"model": CNN, "seed": 1, "training": {"seed": 2}}, {"model": TREES}], "give the seed once"),
        ([{"model": CNN, "sha256": "0" * 64}, {"model": TREES}], "sha256 is that of a version"),
    ],
)
def test_members_that_cannot_be_are_refused(members: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ensemble(*members)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"combine": "vote"}, REGRESSION, "model.combine=vote: task.kind=regression has no classes; choose mean"),
        (
            {"combine": "stacking"},
            {**REGRESSION, "loss": {"kind": "quantile"}},
            "model.combine=stacking predicts no quantiles; choose mean or weighted",
        ),
        (
            {},
            {"kind": "binary", "target": "label", "loss": {"kind": "focal"}},
            r"model.members: trees: model.kind=trees has no task.loss.kind=focal",
        ),
    ],
)
def test_tasks_that_members_cannot_learn_are_refused(settings: Any, task: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ensemble({"model": TABULAR}, {"model": TREES}, **settings).check(from_settings(task))


def test_tensors_are_those_that_members_read() -> None:
    table = Tensors((DENSE, IDS, PHOTO))
    columns = {"kind": "trees", "inputs": ["dense"]}
    of_two = ensemble({"model": columns}, {"model": {**CNN, "inputs": ["photo"]}})
    assert [spec.name for spec in of_two.chosen(table).specs] == ["dense", "photo"]
    of_two.check_tensors(of_two.chosen(table))
    with_version = ensemble({"model": columns}, {"version": "a/1"})
    assert [spec.name for spec in with_version.chosen(table).specs] == ["dense", "ids", "photo"]
    with pytest.raises(ConfigError, match=r"model\.members: trees-1: model\.kind=trees takes no pictures \(photo\)"):
        ensemble({"model": TREES}, {"model": columns}).check_tensors(table)
    with pytest.raises(
        ConfigError, match=r"model\.inputs names foto, which the features do not make; did you mean photo"
    ):
        ensemble({"model": columns}, {"model": {**CNN, "inputs": ["foto"]}}).chosen(table)


def test_what_members_need_is_needed() -> None:
    custom = {"kind": "custom", "factory": "own.models:make"}
    of_two = ensemble({"model": custom}, {"model": {"kind": "vision", "backbone": "resnet18"}})
    assert of_two.modules() == ["own.models"]
    assert of_two.distributions() == ("timm", "torchvision")
