"""What the settings of training do, against hand arithmetic and torch itself."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from mlspark import models, storage
from mlspark.errors import ConfigError
from mlspark.models.custom import CustomSettings
from mlspark.models.tabular import TabularSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint, optimization
from mlspark.training.process_group import join_process_group
from mlspark.training.settings import OptimizerSettings
from mlspark.training.spec import Functions, TrainingSpec

from . import forked_ranks
from .conftest import EPOCHS, ROWS, TENSORS, binary_task, epochs, fit_here, last_checkpoint, new_run
from .test_resume import CUSTOM
from .test_trainer import tensors

ONE_STEP: dict[str, Any] = {"num_processes": 1, "epochs": 1, "global_batch_size": 4096}


def first_loss(spec: TrainingSpec, weigh: Any) -> float:
    """The loss of the fresh model over all training rows."""
    torch.manual_seed(spec.training.seed)
    dense, ids, label = tensors("train")
    return float(weigh(models.build(spec.model, TENSORS, 1)(dense, ids)[:, 0], label).detach())


@pytest.mark.parametrize(
    ("settings", "weigh"),
    [
        (
            {"task": binary_task(class_weights={"1": 3.0})},
            lambda x, y: functional.binary_cross_entropy_with_logits(x, y, weight=1 + 2 * y),
        ),
        (
            {"task": binary_task(label_smoothing=0.2)},
            lambda x, y: functional.binary_cross_entropy_with_logits(x, y * 0.8 + 0.1),
        ),
        ({"accumulation_steps": 4}, functional.binary_cross_entropy_with_logits),
        ({"memory_bytes": 2**24}, functional.binary_cross_entropy_with_logits),
    ],
)  # fmt: skip
def test_loss_of_the_first_step(tmp_path: Path, snapshot: Snapshot, settings: dict[str, Any], weigh: Any) -> None:
    spec = new_run(tmp_path, snapshot, **ONE_STEP, **settings)
    fit_here(spec)
    assert epochs(spec)[0]["train_loss"] == pytest.approx(first_loss(spec, weigh), rel=1e-5)


def test_accumulation_changes_no_gradient_to_speak_of(tmp_path: Path, snapshot: Snapshot) -> None:
    moments = []
    for parts in (1, 4):
        spec = new_run(tmp_path / str(parts), snapshot, **ONE_STEP, accumulation_steps=parts)
        fit_here(spec)
        moments.append(last_checkpoint(spec).state["optimizer"]["state"])
    for one, other in zip(moments[0].values(), moments[1].values(), strict=True):
        torch.testing.assert_close(one["exp_avg"], other["exp_avg"], rtol=1e-4, atol=1e-8)


def test_gradients_are_clipped_to_their_norm(tmp_path: Path, snapshot: Snapshot) -> None:
    optimizer = OptimizerSettings(learning_rate=1e-2, clip_norm=0.01, schedule="constant")
    spec = new_run(tmp_path, snapshot, **ONE_STEP, optimizer=optimizer)
    fit_here(spec)
    state = last_checkpoint(spec).state["optimizer"]["state"]
    norm = sum(float((moments["exp_avg"] / 0.1).square().sum()) for moments in state.values()) ** 0.5  # 1 - beta1 = 0.1
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_averaged_weights_are_those_that_are_kept(tmp_path: Path, snapshot: Snapshot) -> None:
    decay, seen = 0.75, list[dict[str, torch.Tensor]]()
    model = models.build(TabularSettings(hidden=(16,), dropout=0.0), TENSORS, 1)
    spec = new_run(tmp_path, snapshot, num_processes=1, epochs=1, ema_decay=decay)

    def keep(*_: Any) -> None:
        seen.append({name: value.detach().clone() for name, value in model.state_dict().items()})

    torch.manual_seed(0)
    model.register_forward_pre_hook(lambda *_: keep() if model.training else None)
    fit_here(spec, functions=Functions(model=lambda tensors, num_outputs: model))
    keep()  # after the last step; the evaluation has loaded the averages into it by now
    expected = seen[1]
    for weights in [*seen[2:8], last_checkpoint(spec).weights]:
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in weights.items()}
    for name, value in checkpoint.load(spec.best_uri).weights.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "constant", "warmup_share": 0.25}, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "step", "step_epochs": 1, "step_factor": 0.5}, [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]),
        ({"schedule": "cosine"}, [1.0, 0.96194, 0.853553, 0.691342, 0.5, 0.308658, 0.146447, 0.03806]),
    ],
)
def test_schedules(settings: dict[str, Any], expected: list[float]) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    given = OptimizerSettings(kind="sgd", learning_rate=1.0, momentum=0.0, **settings)
    optimizer = optimization.optimizer(given, torch.nn.ParameterList([parameter]))
    schedule = optimization.schedule(given, optimizer, epochs=2, steps_per_epoch=4)
    found = []
    for _ in range(8):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_momentum_of_sgd_is_that_of_the_settings(schedule: Any) -> None:
    given = OptimizerSettings(kind="sgd", momentum=0.3, schedule=schedule)
    optimizer = optimization.optimizer(given, torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(1))]))
    schedule = optimization.schedule(given, optimizer, epochs=1, steps_per_epoch=4)
    for _ in range(3):
        assert optimizer.param_groups[0]["momentum"] == 0.3
        optimizer.step()
        schedule.step()


def test_bf16_learns_and_keeps_float32_weights(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, precision="bf16")
    result = fit_here(spec)
    assert result.metrics["test"]["roc_auc"] > 0.8
    assert {value.dtype for value in checkpoint.load(spec.best_uri).weights.values()} == {torch.float32}


def test_profile_is_left_with_the_run(tmp_path: Path, snapshot: Snapshot) -> None:
    fit_here(new_run(tmp_path, snapshot, num_processes=1, epochs=2, profile_steps=3))
    assert storage.read_bytes(str(tmp_path / "profile" / "trace.json.gz"))[:2] == b"\x1f\x8b"


def test_loss_that_is_a_mean_is_refused(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=1, task=CUSTOM)
    loss = functional.binary_cross_entropy_with_logits
    with pytest.raises(ConfigError, match=r"returned shape \(\) for 256 rows; it must return the loss of each row"):
        fit_here(spec, functions=Functions(loss=loss))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("absent.module:make", r"model\.factory=absent\.module:make cannot be imported \(No module named 'absent'\)"),
        (
            "math:no_such",
            r"model\.factory=math:no_such cannot be imported \(module 'math' has no attribute 'no_such'\)",
        ),
        ("math:pi", r"model\.factory=math:pi is float, not a function"),
        ("operator:is_", r"operator:is_ returned bool, not a torch\.nn\.Module"),
    ],
)
def test_factory_that_makes_no_model(factory: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models.build(CustomSettings(factory=factory), TENSORS, 1)


def test_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1, chosen for the ranks to meet at, cannot be used"):
            join_process_group(use_gpu=False, timeout_seconds=5.0)
    assert "GLOO_SOCKET_IFNAME" in os.environ


def test_four_ranks_have_the_loss_curve_of_one(
    tmp_path: Path, snapshot: Snapshot, one_rank: TrainingSpec, two_ranks: TrainingSpec
) -> None:
    spec = new_run(tmp_path, snapshot, num_processes=4)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output
    curves = [[epoch["train_loss"] for epoch in epochs(each)] for each in (one_rank, two_ranks, spec)]
    # The same batches and gradients; float sums in another order differ by about 1e-7 a step and grow.
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)
    assert curves[2] == pytest.approx(curves[0], rel=1e-5)
    assert [epoch["row_id_sum"] for epoch in epochs(spec)] == [epoch["row_id_sum"] for epoch in epochs(one_rank)]


def test_sharded_model_trains_as_a_whole_one_does(tmp_path: Path, snapshot: Snapshot, two_ranks: TrainingSpec) -> None:
    spec = new_run(tmp_path, snapshot, shard=True)
    done = forked_ranks.run(spec)
    assert done.returncode == 0, done.output[-3000:]
    curve, expected = ([epoch["train_loss"] for epoch in epochs(each)] for each in (spec, two_ranks))
    assert curve == pytest.approx(expected, rel=1e-4)
    assert len(curve) == EPOCHS
    weights = checkpoint.load(spec.best_uri).weights
    models.build(spec.model, TENSORS, 1).load_state_dict(weights)
    assert epochs(spec)[0]["rows"] == ROWS["train"]


def test_batch_larger_than_the_table_is_refused_where_it_would_be_dropped(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = new_run(tmp_path, snapshot, **ONE_STEP)
    dropping = replace(spec, streaming=spec.streaming.model_copy(update={"remainder": "drop"}))
    with pytest.raises(ConfigError, match=r"global_batch_size=4096 is more than the 2003 training rows"):
        fit_here(dropping)


def of_own(spec: TrainingSpec, factory: str) -> TrainingSpec:
    return replace(spec, model=CustomSettings(factory=f"tests.training.own_models:{factory}"))


def test_layer_that_is_not_used_trains_on_two_ranks_as_on_one(tmp_path: Path, snapshot: Snapshot) -> None:
    alone, two = (
        of_own(new_run(tmp_path / str(ranks), snapshot, num_processes=ranks, epochs=1), "UnusedLayer")
        for ranks in (1, 2)
    )
    fit_here(alone)
    done = forked_ranks.run(two)
    assert done.returncode == 0, done.output
    of_one, of_two = (last_checkpoint(spec).weights for spec in (alone, two))
    assert torch.equal(of_one["spare.weight"], of_two["spare.weight"])
    torch.testing.assert_close(of_two["layer.weight"], of_one["layer.weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("is_set", [False, True])
def test_branches_train_with_the_setting_that_the_error_names(tmp_path: Path, snapshot: Snapshot, is_set: bool) -> None:
    spec = of_own(new_run(tmp_path, snapshot, epochs=1, unused_parameters=is_set), "Branches")
    done = forked_ranks.run(spec)
    if is_set:
        assert done.returncode == 0, done.output
    else:
        assert done.returncode != 0
        assert "a step left some parameters unused" in done.output
        assert "set training.unused_parameters=true" in done.output
