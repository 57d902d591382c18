"""Runs that begin with weights: they go on with the same bits, alone and on two ranks, and what is frozen stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlspark import storage
from mlspark.errors import ConfigError
from mlspark.models.initial import InitialWeights
from mlspark.models.weights import to_bytes
from mlspark.registry import initial_weights
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint
from mlspark.training.checkpoint import CheckpointError
from mlspark.training.spec import TrainingSpec

from . import forked_ranks
from .conftest import fit_here, last_checkpoint
from .networks import deep
from .test_parameters import DEEP, TENSORS, run_of
from .test_resume import assert_equal, stop_at

PROBE: dict[str, Any] = {"freeze": ("low", "high"), "unfreeze": {}}


def begin(folder: Path, snapshot: Snapshot, file: Path, **training: Any) -> TrainingSpec:
    """A run that begins with the file's weights, but for the head."""
    weights = InitialWeights(file=str(file), head="new")
    spec = replace(run_of(folder, snapshot, **training), model=DEEP.model_copy(update={"weights": weights}))
    spec, found = initial_weights.resolve(None, spec, retry_seconds=1.0)  # type: ignore[arg-type]
    initial_weights.keep(spec, initial_weights.fitted(spec, found))
    return spec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = deep(TENSORS, 1)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "w.pth"
    )
    return tmp_path / "w.pth"


def body(weights: Any) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith("head")}


@pytest.mark.parametrize("num_processes", [1, 2])
def test_linear_probe_trains_the_head_and_nothing_else(
    tmp_path: Path, snapshot: Snapshot, file: Path, num_processes: int
) -> None:
    spec = begin(tmp_path / "probe", snapshot, file, num_processes=num_processes, epochs=1, ema_decay=0.5, **PROBE)
    if num_processes == 1:
        fit_here(spec)
    else:
        done = forked_ranks.run(spec)
        assert done.returncode == 0, done.output
    given = torch.load(file, weights_only=True)["state_dict"]
    for weights in (last_checkpoint(spec).weights, checkpoint.load(spec.best_uri).weights):
        kept = body(weights)
        assert len(kept) == 14
        assert all(torch.equal(value, given[f"module.{name}"]) for name, value in kept.items())
    assert last_checkpoint(spec).state["optimizer"]["state"].keys() == {8, 9}  # groups: the frozen 8, then the head's 2


def test_stopped_run_ends_with_the_same_bits(tmp_path: Path, snapshot: Snapshot, file: Path) -> None:
    expected, spec = (begin(tmp_path / name, snapshot, file, ema_decay=0.9) for name in ("undisturbed", "stopped"))
    fit_here(expected)
    for step in (3, 12):
        stop_at(spec, step)
    fit_here(spec)
    assert_equal(spec, expected)


def test_checkpoint_of_other_initial_weights_is_refused(tmp_path: Path, snapshot: Snapshot, file: Path) -> None:
    stop_at(begin(tmp_path / "run", snapshot, file), 2)
    (tmp_path / "other").write_bytes(to_bytes(deep(TENSORS, 1).state_dict()))
    with pytest.raises(CheckpointError, match=r"of another run: model\.weights\.sha256"):
        fit_here(begin(tmp_path / "run", snapshot, tmp_path / "other"))


def test_file_that_is_missing_for_a_rank_is_named(tmp_path: Path, snapshot: Snapshot, file: Path) -> None:
    spec = begin(tmp_path / "run", snapshot, file)
    storage.delete(spec.initial_uri)
    with pytest.raises(
        ConfigError, match=r"run/initial\.safetensors: the weights that the run begins with are not there"
    ):
        fit_here(spec)
