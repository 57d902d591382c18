"""A run that ends anywhere and goes on is the run that was never ended: in one process, so that many moments are tried."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from mlspark import storage
from mlspark.errors import TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.kinds import from_settings
from mlspark.training import checkpoint
from mlspark.training.checkpoint import CheckpointError
from mlspark.training.driver_link import Stopped
from mlspark.training.events import Event, StorageTrouble
from mlspark.training.settings import OptimizerSettings, RecoverySettings
from mlspark.training.spec import Functions, TrainingSpec

from .conftest import EPOCHS, ROWS, binary_task, epochs, fit_here, last_checkpoint, new_run

STEPS = 8 * EPOCHS


CUSTOM = from_settings(
    {"kind": "binary", "target": "label", "classes": [0, 1], "loss": {"kind": "custom", "function": "tests:loss"}}
)


def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, label, reduction="none")


def run_of(folder: Path, snapshot: Snapshot, **training: Any) -> TrainingSpec:
    return new_run(folder, snapshot, num_processes=1, dropout=0.3, **training)


def stop_at(spec: TrainingSpec, step: int) -> None:
    """Train until `step` steps are taken, as after SIGTERM."""
    taken = 0

    def should_stop() -> bool:
        nonlocal taken
        taken += 1
        return taken == step

    with pytest.raises(Stopped):
        fit_here(spec, should_stop=should_stop)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def assert_equal(one: TrainingSpec, other: TrainingSpec) -> None:
    for ours, theirs in zip(epochs(one), epochs(other), strict=True):
        assert {k: v for k, v in ours.items() if "second" not in k and "wait" not in k} == {
            k: v for k, v in theirs.items() if "second" not in k and "wait" not in k
        }
    for load in (lambda spec: checkpoint.load(spec.best_uri), last_checkpoint):
        mine, yours = load(one), load(other)
        for name, tensor in mine.weights.items():
            assert torch.equal(tensor, yours.weights[name]), name
        assert same(mine.state, yours.state)


VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "sgd": {"optimizer": OptimizerSettings(kind="sgd", learning_rate=0.05, schedule="cosine", warmup_share=0.2)},
    "averaged": {"ema_decay": 0.9, "accumulation_steps": 2, "task": binary_task(label_smoothing=0.1)},
    "memory": {"memory_bytes": 2**24},
}


@pytest.fixture(scope="module", params=VARIANTS)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, snapshot: Snapshot) -> Any:
    spec = run_of(tmp_path_factory.mktemp(request.param), snapshot, **VARIANTS[request.param])
    fit_here(spec)
    return spec, VARIANTS[request.param]


# In an epoch, at its end, in the validation after it (two batches), and in the test.
@pytest.mark.parametrize("moments", [(3,), (8,), (9,), (13, 4)])
def test_stopped_run_ends_with_the_same_bits(
    tmp_path: Path, snapshot: Snapshot, undisturbed: tuple[TrainingSpec, dict[str, Any]], moments: tuple[int, ...]
) -> None:
    expected, settings = undisturbed
    spec = run_of(tmp_path, snapshot, **settings)
    for moment in moments:
        stop_at(spec, moment)
    fit_here(spec)
    assert_equal(spec, expected)


SHARDED: dict[str, dict[str, Any]] = {
    "adamw": {},
    # No state, and epochs that are not the best: nothing is read of the model between their evaluation and their checkpoint.
    "plain_sgd": {
        "optimizer": OptimizerSettings(kind="sgd", learning_rate=0.05, momentum=0.0, schedule="constant"),
        "best": "recall_1",
    },
}


@pytest.mark.parametrize("variant", SHARDED)
def test_sharded_run_that_is_stopped_ends_with_the_same_bits(tmp_path: Path, snapshot: Snapshot, variant: str) -> None:
    """Checkpoints are written while training goes on: none may hold the weights of a later step."""
    expected, spec = (
        run_of(tmp_path / name, snapshot, shard=True, **SHARDED[variant]) for name in ("undisturbed", "stopped")
    )
    fit_here(expected)
    stop_at(spec, 14)
    fit_here(spec)
    assert_equal(spec, expected)
    if variant == "plain_sgd":
        assert last_checkpoint(spec).state["optimizer"]["state"] == {}
        assert not all(epoch["is_best"] for epoch in epochs(spec))


def test_exception_in_a_step_costs_no_step(tmp_path: Path, snapshot: Snapshot) -> None:
    expected = run_of(tmp_path / "undisturbed", snapshot, task=CUSTOM)
    fit_here(expected, functions=Functions(loss=cross_entropy))
    spec, calls = run_of(tmp_path / "hurt", snapshot, task=CUSTOM), 0

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise RuntimeError("odd")
        return cross_entropy(logits, label)

    with pytest.raises(RuntimeError, match="odd") as raised:
        fit_here(spec, functions=Functions(loss=loss))
    assert raised.value.__notes__ == ["in epoch 2, after step 11 of the run"]
    assert last_checkpoint(spec).about["progress"]["steps"] == 11
    fit_here(spec, functions=Functions(loss=cross_entropy))
    assert_equal(spec, expected)


def test_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, snapshot: Snapshot, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run_of(tmp_path / "undisturbed", snapshot)
    fit_here(expected)
    spec = run_of(tmp_path / "hurt", snapshot, recovery=RecoverySettings(checkpoint_steps=2, keep_checkpoints=3))
    stop_at(spec, 7)
    cut, unfinished, whole = (Path(checkpoint.step_uri(spec.checkpoints_uri, step)) for step in (7, 6, 4))
    [state] = cut.glob("state-*")
    state.write_bytes(state.read_bytes()[:100])
    (unfinished / "manifest.json").unlink()
    found = checkpoint.newest(spec.checkpoints_uri, spec.identity(snapshot.fingerprint))
    assert found is not None
    assert found.about["progress"]["steps"] == 4
    assert f"{state}: damaged: 100 bytes" in caplog.text
    assert f"{unfinished}: left out, it was not written to its end" in caplog.text
    fit_here(spec)
    assert_equal(spec, expected)
    assert not whole.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_batch_size": 128}, r"training\.global_batch_size 256 \(now 128\)"),
        ({"optimizer": OptimizerSettings(learning_rate=0.5)}, r"training\.optimizer\.learning_rate 0\.02 \(now 0\.5\)"),
        ({"seed": 3}, r"training\.seed 0 \(now 3\)"),
    ],
)
def test_checkpoint_of_other_settings_is_refused(
    tmp_path: Path, snapshot: Snapshot, change: dict[str, Any], message: str
) -> None:
    stop_at(run_of(tmp_path, snapshot), 2)
    with pytest.raises(CheckpointError, match=f"of another run: {message}; train with the settings it was made with"):
        fit_here(run_of(tmp_path, snapshot, **change))


def test_settings_of_recovery_may_change(tmp_path: Path, snapshot: Snapshot) -> None:
    stop_at(run_of(tmp_path, snapshot), 2)
    result = fit_here(run_of(tmp_path, snapshot, recovery=RecoverySettings(keep_checkpoints=1, silent_seconds=60.0)))
    assert result.steps == STEPS
    assert len(storage.list_folders(str(tmp_path / "checkpoints"))) == 1


def test_newest_checkpoints_and_the_best_are_kept(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = run_of(tmp_path, snapshot, recovery=RecoverySettings(checkpoint_steps=3, keep_checkpoints=2))
    fit_here(spec)
    kept = [folder.rpartition("-")[2] for folder in storage.list_folders(spec.checkpoints_uri)]
    assert [int(step) for step in kept] == [21, 24]
    assert checkpoint.exists(spec.best_uri)


def test_storage_that_fails_for_a_while_is_waited_for(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = run_of(tmp_path, snapshot)
    blocked = tmp_path / "checkpoints"
    told: list[str] = []

    def block() -> bool:
        if not blocked.exists() and not told:
            blocked.write_text("in the way")
        return False

    def on_event(event: Event) -> None:
        if isinstance(event, StorageTrouble):
            told.append(event.message)
            if len(told) == 1:
                blocked.unlink()

    fit_here(spec, on_event=on_event, should_stop=block)
    assert told[0].startswith("a checkpoint could not be written, trying again: ")
    assert told[1] == "the checkpoint is written now"
    assert last_checkpoint(spec).about["progress"]["steps"] == STEPS


def test_storage_that_fails_for_good_ends_the_run(tmp_path: Path, snapshot: Snapshot) -> None:
    spec = run_of(tmp_path, snapshot, recovery=RecoverySettings(storage_seconds=0.1))

    def block() -> bool:
        (tmp_path / "checkpoints").write_text("in the way")
        return False

    with pytest.raises(CheckpointError, match=r"could not be written for 0\.1 s: .*checkpoints.*; fix the storage"):
        fit_here(spec, should_stop=block)


def test_patience_ends_the_run_and_survives_a_stop(tmp_path: Path, snapshot: Snapshot) -> None:
    def learn_nothing(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return cross_entropy(-logits, label)  # each epoch is worse than the one before

    spec = run_of(tmp_path, snapshot, epochs=50, patience=2, task=CUSTOM)
    result = fit_here(spec, functions=Functions(loss=learn_nothing))
    assert (result.best_epoch, len(result.epochs)) == (1, 3)
    assert fit_here(spec, functions=Functions(loss=learn_nothing)).epochs == result.epochs


def test_loss_that_is_not_finite_is_never_gone_on_from(tmp_path: Path, snapshot: Snapshot) -> None:
    def explode(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits, label) * float("inf")

    spec = run_of(tmp_path, snapshot, task=CUSTOM)
    with pytest.raises(TrainingFailed, match=r"epoch 1, step 1: the training loss is not finite"):
        fit_here(spec, functions=Functions(loss=explode))
    assert storage.list_folders(spec.checkpoints_uri) == []
    assert fit_here(spec, functions=Functions(loss=cross_entropy)).epochs[0]["rows"] == ROWS["train"]
