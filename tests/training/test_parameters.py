"""Parameters by name: learning rates of groups, weight decay, freezing and unfreezing, in runs that end anywhere."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from timm import optim
from torch import nn

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.models.custom import CustomSettings
from mlspark.settings import loading
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint, optimization, preflight
from mlspark.training.parameters import Freezing
from mlspark.training.settings import OptimizerSettings, RecoverySettings, TrainingSettings
from mlspark.training.spec import NO_FUNCTIONS, TrainingSpec

from ..conftest import ROOT
from . import forked_ranks
from .conftest import TENSORS, epochs, fit_here, last_checkpoint, new_run
from .networks import deep
from .test_resume import assert_equal, stop_at

DEEP = CustomSettings(factory="tests.training.networks:deep")
FREEZE: dict[str, Any] = {"freeze": ("low", "high"), "unfreeze": {2: ("high",), 3: ("low.0",)}}
RECIPES = {
    "adamw": OptimizerSettings(rates={"head": 3.0, "low": 0.1}, decay_norm_and_bias=False),
    "nesterov": OptimizerSettings(
        kind="sgd", nesterov=True, learning_rate=0.05, schedule="cosine", warmup_share=0.2, rates={"head": 2.0}
    ),
    "lamb": OptimizerSettings(kind="lamb", learning_rate=0.01, schedule="cosine", clip_norm=1.0),
    "lion": OptimizerSettings(kind="lion", learning_rate=1e-3, schedule="step", step_epochs=1, rates={"low": 0.5}),
}


def run_of(folder: Path, snapshot: Snapshot, **training: Any) -> TrainingSpec:
    return replace(new_run(folder, snapshot, **({"num_processes": 1} | FREEZE | training)), model=DEEP)


def groups(settings: OptimizerSettings, model: nn.Module) -> dict[str, tuple[float, float]]:
    """Parameter -> (learning rate, weight decay)."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {
        names[id(weight)]: (group["lr"], group["weight_decay"])
        for group in optimization.optimizer(settings, model).param_groups
        for weight in group["params"]
    }


def test_learning_rates_go_by_the_longest_prefix_and_decay_by_dimensions() -> None:
    settings = OptimizerSettings(
        learning_rate=0.5, weight_decay=0.25, rates={"low": 0.5, "low.0.weight": 4.0}, decay_norm_and_bias=False
    )
    assert groups(settings, deep(TENSORS, 1)) == {
        "low.0.weight": (2.0, 0.25), "low.0.bias": (0.25, 0.0), "low.1.weight": (0.25, 0.0), "low.1.bias": (0.25, 0.0),
        "high.0.weight": (0.5, 0.25), "high.0.bias": (0.5, 0.0), "high.1.weight": (0.5, 0.0), "high.1.bias": (0.5, 0.0),
        "head.weight": (0.5, 0.25), "head.bias": (0.5, 0.0),
    }  # fmt: skip
    plain = OptimizerSettings(learning_rate=0.5, weight_decay=0.25)
    assert set(groups(plain, deep(TENSORS, 1)).values()) == {(0.5, 0.25)}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "constant"])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb", "lion"])
def test_all_groups_follow_one_schedule_each_at_its_factor(kind: Any, schedule: Any) -> None:
    settings = OptimizerSettings(kind=kind, schedule=schedule, warmup_share=0.25, step_epochs=1, rates={"head": 10.0})
    of = optimization.optimizer(settings, deep(TENSORS, 1))
    course = optimization.schedule(settings, of, epochs=2, steps_per_epoch=4)
    seen = set()
    for _ in range(8):
        low, head = course.get_last_lr()
        assert head == pytest.approx(10 * low)
        seen.add(round(low, 6))
        of.step()
        course.step()
    assert len(seen) > 2 or schedule == "constant"


def stepped(of: torch.optim.Optimizer, weight: nn.Parameter) -> torch.Tensor:
    for _ in range(3):
        weight.grad = weight.detach() * 2 - 1
        of.step()
    return weight.detach().clone()


@pytest.mark.parametrize("kind", ["nesterov", "lamb", "lion"])
def test_steps_are_those_of_torch_and_timm(kind: str) -> None:
    start = torch.linspace(-1, 1, 12).reshape(3, 4)
    mine, theirs = nn.ParameterList([nn.Parameter(start.clone())]), nn.Parameter(start.clone())
    settings = OptimizerSettings.model_validate(
        {"kind": kind, "learning_rate": 0.1}
        if kind != "nesterov"
        else {"kind": "sgd", "nesterov": True, "learning_rate": 0.1}
    )
    reference: torch.optim.Optimizer = {
        "nesterov": lambda: torch.optim.SGD([theirs], 0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        "lamb": lambda: optim.Lamb([theirs], 0.1, weight_decay=0.01, max_grad_norm=None),
        "lion": lambda: optim.Lion([theirs], 0.1, weight_decay=0.01),
    }[kind]()
    moved = stepped(optimization.optimizer(settings, mine), mine[0])
    torch.testing.assert_close(moved, stepped(reference, theirs), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb", "lion"])
def test_parameter_that_is_first_used_in_a_later_step_is_trained_from_there(kind: Any) -> None:
    always, later = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    of = optimization.optimizer(OptimizerSettings(kind=kind, weight_decay=0.0), nn.ParameterList([always, later]))
    for step in range(3):
        always.grad = torch.ones(3)
        later.grad = torch.ones(3) if step else None
        of.step()
        assert bool((later < 1).all()) == bool(step)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": ("lwo",)}, r"training\.freeze: no parameter of the model is called lwo, .*did you mean low\?"),
        ({"freeze": ("backbone",)}, r"training\.freeze: .* backbone, .*; the model has low, high, head"),
        (
            {"freeze": ("low", "high", "head")},
            r"training\.freeze=.* leaves no parameter that epoch 1 trains; .*low, high, head",
        ),
        ({"freeze": ("low",), "unfreeze": {2: ("high",)}}, r"unfreeze\.2: high is not frozen in epoch 1; .* \['low'\]"),
        (
            {"freeze": ("low",), "unfreeze": {2: ("low",), 3: ("low.0",)}},
            r"unfreeze\.3: low\.0 is not frozen in epoch 2",
        ),
        ({"unfreeze": {2: ("low",)}}, r"unfreeze\.2: low is not frozen in epoch 1"),
        (
            {"optimizer": OptimizerSettings(rates={"head.wieght": 2.0})},
            r"optimizer\.rates: .*did you mean head\.weight\?",
        ),
    ],
)
def test_names_that_meet_nothing_are_refused_before_ranks_start(
    tmp_path: Path, snapshot: Snapshot, settings: dict[str, Any], message: str
) -> None:
    spec = run_of(tmp_path, snapshot, **({"freeze": (), "unfreeze": {}} | settings))
    with pytest.raises(ConfigError, match=message):
        preflight.check_parameters(spec, NO_FUNCTIONS)
    with pytest.raises(ConfigError, match=message):
        fit_here(spec)


def test_optimizer_of_timm_without_timm_is_refused(
    tmp_path: Path, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm.optim.lamb", None)
    with pytest.raises(
        ConfigError, match=r"optimizer\.kind=lamb is timm's, which is not installed here .*mlspark\[pictures\]"
    ):
        preflight.check_parameters(run_of(tmp_path, snapshot, optimizer=RECIPES["lamb"]), NO_FUNCTIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.optimizer={kind: sgd, nesterov: true, momentum: 0.0}", "nesterov needs momentum above 0"),
        ("training={epochs: 4, unfreeze: {5: [low]}}", r"unfreeze\.5: there is no such epoch, epochs=4"),
        ("training.unfreeze={1: [low]}", "greater than or equal to 2"),
        ("training={shard: true, freeze: [low]}", "shard and freeze do not go together"),
        ("training={shard: true, optimizer: {kind: lion}}", r"shard and optimizer\.kind=lion do not go together"),
        ("training.freeze=[low.]", "pattern"),
        ("training.optimizer.rates={head: 0.0}", "greater than 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loading.load([str(ROOT / "conf" / "census.yaml")], [text])


def test_settings_survive_yaml_and_json(tmp_path: Path, snapshot: Snapshot) -> None:
    census = str(ROOT / "conf" / "census.yaml")
    text = "training={freeze: [layers], unfreeze: {3: [layers.0], 5: [layers]}, optimizer: {rates: {layers.0: 0.5}}}"
    settings = loading.load([census], [text])
    assert settings.training.unfreeze == {3: ("layers.0",), 5: ("layers",)}
    (tmp_path / "again.yaml").write_text(settings.to_yaml())
    assert loading.load([str(tmp_path / "again.yaml")]) == settings
    spec = run_of(tmp_path, snapshot)
    assert TrainingSpec.from_json(spec.to_json()) == spec
    others = [
        run_of(tmp_path, snapshot, unfreeze={2: ("high",)}),
        run_of(tmp_path, snapshot, optimizer=RECIPES["lion"]),
    ]
    assert len({of.digest("table") for of in (spec, *others)}) == 3
    with pytest.raises(ValidationError):
        TrainingSettings(unfreeze={2: ("a..b",)})


def moments(spec: TrainingSpec) -> list[checkpoint.Checkpoint]:
    return [checkpoint.load(folder) for folder in storage.list_folders(spec.checkpoints_uri)]


def test_what_is_frozen_keeps_weights_and_statistics_until_it_is_unfrozen(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = run_of(tmp_path, snapshot, ema_decay=0.9, recovery=RecoverySettings(keep_checkpoints=3))
    torch.manual_seed(0)
    start = deep(TENSORS, 1).state_dict()
    fit_here(spec)
    first, second, third = (moment.weights for moment in moments(spec))

    def changed(one: Any, other: Any) -> set[str]:
        return {name for name in start if not torch.equal(one[name], other[name])}

    block = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}
    head, high = {"head.weight", "head.bias"}, {f"high.{name}" for name in block}
    assert changed(start, first) == head
    assert changed(first, second) == head | high
    assert changed(second, third) == head | high | {"low.0.weight", "low.0.bias"}
    kept = checkpoint.load(spec.best_uri).weights  # averages
    assert changed(start, kept) == head | high | {"low.0.weight", "low.0.bias"}
    assert third["high.1.num_batches_tracked"] == 2 * 8


# In an epoch before, at the end of the epoch before an unfreezing, within the epoch after, and after the last.
@pytest.mark.parametrize("steps", [(3,), (8,), (11, 5), (21,)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_run_ends_with_the_same_bits(
    tmp_path: Path, snapshot: Snapshot, undisturbed: dict[str, TrainingSpec], recipe: str, steps: tuple[int, ...]
) -> None:
    spec = run_of(tmp_path, snapshot, **settings_of(recipe))
    for step in steps:
        stop_at(spec, step)
    fit_here(spec)
    assert_equal(spec, undisturbed[recipe])


def settings_of(recipe: str) -> dict[str, Any]:
    """A recipe with what stands beside it: averages, bfloat16, labels that are smoothed, a batch in parts."""
    others = {"adamw": {"ema_decay": 0.9}, "nesterov": {"precision": "bf16"}, "lamb": {"accumulation_steps": 2}}
    return {"optimizer": RECIPES[recipe], **others.get(recipe, {})}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> dict[str, TrainingSpec]:
    specs = {name: run_of(tmp_path_factory.mktemp(name), snapshot, **settings_of(name)) for name in RECIPES}
    for spec in specs.values():
        fit_here(spec)
    return specs


def test_group_of_lamb_counts_its_own_steps(undisturbed: dict[str, TrainingSpec]) -> None:
    groups = last_checkpoint(undisturbed["lamb"]).state["optimizer"]["param_groups"]
    assert [int(group["step"]) for group in groups] == [8, 8, 16, 24]  # low.0, low.1 (never trained), high, head


@pytest.mark.parametrize("recipe", ["adamw", "nesterov"])
def test_sharded_run_with_groups_ends_with_the_same_bits(tmp_path: Path, snapshot: Snapshot, recipe: str) -> None:
    settings = {"shard": True, "freeze": (), "unfreeze": {}, "optimizer": RECIPES[recipe]}
    expected, spec = (run_of(tmp_path / name, snapshot, **settings) for name in ("undisturbed", "stopped"))
    fit_here(expected)
    stop_at(spec, 14)
    fit_here(spec)
    assert_equal(spec, expected)


def test_two_ranks_unfreeze_as_one_does_and_go_on_with_the_same_bits(tmp_path: Path, snapshot: Snapshot) -> None:
    """DDP is made anew for the parameters that are trained from an epoch on."""
    settings: dict[str, Any] = {
        "optimizer": OptimizerSettings(kind="sgd", nesterov=True, learning_rate=0.05, schedule="constant"),
        "recovery": RecoverySettings(checkpoint_steps=4, keep_checkpoints=9),
        "num_processes": 2,
    }
    spec = run_of(tmp_path / "two", snapshot, **settings)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output
    for step in (4, 8, 12, 20):  # before, at and after an unfreezing
        again = run_of(tmp_path / str(step), snapshot, **settings)
        for folder in map(Path, storage.list_folders(spec.checkpoints_uri)):
            if int(folder.name.rpartition("-")[2]) <= step:
                shutil.copytree(folder, Path(again.checkpoints_uri) / folder.name)
        done = forked_ranks.run(again)
        assert done.returncode == 0, done.output
        assert_equal(again, spec)
    assert {epoch["rows"] for epoch in epochs(spec)} == {2003}
    alone = run_of(tmp_path / "one", snapshot, **settings | {"num_processes": 1})
    fit_here(alone)
    for name, weight in last_checkpoint(spec).weights.items():
        if name.startswith("low.1"):  # frozen to the end
            assert torch.equal(weight, last_checkpoint(alone).weights[name]), name


def test_parameters_that_a_model_freezes_itself_stay_frozen() -> None:
    model = deep(TENSORS, 1)
    model.get_parameter("low.0.weight").requires_grad_(False)
    freezing = Freezing(TrainingSettings(freeze=("high",), unfreeze={2: ("high",)}), model)
    assert freezing.apply(0)
    assert not freezing.apply(0)
    assert freezing.apply(1)
    assert [name for name, weight in model.named_parameters() if not weight.requires_grad] == ["low.0.weight"]


@pytest.mark.slow
def test_compiled_run_that_unfreezes_ends_with_the_same_bits(tmp_path: Path, snapshot: Snapshot) -> None:
    expected, spec = (run_of(tmp_path / name, snapshot, compile=True) for name in ("undisturbed", "stopped"))
    fit_here(expected)
    for step in (8, 11):
        stop_at(spec, step)
    fit_here(spec)
    assert_equal(spec, expected)
