"""What came of a training run, read from what its ranks left and checked against each other. Driver."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlspark import storage
from mlspark.errors import ConfigError, TrainingFailed
from mlspark.evaluation import predictions
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.metrics import Metrics
from mlspark.training import checkpoint
from mlspark.training.events import EpochEnded
from mlspark.training.spec import TrainingSpec


@dataclass(frozen=True)
class TrainingOutcome:
    """A training run that ended well, as checked on the driver."""

    run_uri: str
    world_size: int
    """Ranks at the end."""
    restarts: int
    """Starts after the first, of all processes that drove the run."""
    steps: int
    """Optimizer steps of the run, equal on all ranks."""
    epochs: tuple[EpochEnded, ...]
    """Figures of each epoch: rows, train_loss, validation, learning_rate, seconds, ..."""
    rows_per_epoch: int
    """Training rows seen by all ranks together in each epoch: each once."""
    metrics: Mapping[str, Metrics]
    """The task's metrics of the best checkpoint by split, validation and test; splits without rows are absent."""
    best_epoch: int
    checkpoint_uri: str
    """The weights of the best epoch, for `checkpoint.load`."""
    predictions: Mapping[str, str]
    """Split -> URI of its rows' predictions by the best checkpoint, for `evaluation.predictions.read`."""
    data_wait_fraction: float
    """Share of the training time that ranks waited for data, mean over ranks."""
    train_seconds: float
    """Time in training epochs of the slowest rank, without launch, validation and checkpoints."""
    seconds: float
    """Seconds of the whole run as seen by this driver."""

    @property
    def rows_per_second(self) -> float:
        return self.rows_per_epoch * len(self.epochs) / self.train_seconds


def finished(spec: TrainingSpec, snapshot: Snapshot) -> tuple[TrainingSpec, int] | None:
    """Return the start by which this run was finished and its ranks, if the driver has died before it used the results."""
    for folder in reversed(storage.list_folders(spec.attempts_uri)):
        begun = TrainingSpec.load(storage.join(folder, "spec.json"))
        other = checkpoint.differences(begun.identity(snapshot.fingerprint), spec.identity(snapshot.fingerprint))
        if other:
            raise ConfigError(
                f"{spec.run_uri}: a run with other settings was begun here: {'; '.join(other)}; give another folder"
            )
        if storage.exists(_rank_uri(begun, 0)):
            world_size = storage.read_json(_rank_uri(begun, 0))["world_size"]
            if all(storage.exists(_rank_uri(begun, rank)) for rank in range(world_size)):
                return begun, world_size
    return None


def _rank_uri(spec: TrainingSpec, rank: int) -> str:
    return storage.join(spec.attempt_uri, f"rank-{rank}.json")


def collect(spec: TrainingSpec, snapshot: Snapshot, world_size: int, seconds: float) -> TrainingOutcome:
    """Return the ranks' results as one, checked against each other and against the snapshot."""
    uris = [_rank_uri(spec, rank) for rank in range(world_size)]
    missing = [uri for uri in uris if not storage.exists(uri)]
    if missing:
        raise TrainingFailed(f"{', '.join(missing)}: no result of this rank, though its task ended well")
    ranks = [storage.read_json(uri) for uri in uris]
    if len({rank["steps"] for rank in ranks}) > 1:
        raise TrainingFailed(f"ranks took unequal numbers of steps: {[rank['steps'] for rank in ranks]}")
    num_rows = snapshot.where(split="train").num_rows
    if spec.streaming.remainder == "drop":
        num_rows -= num_rows % spec.training.global_batch_size
    epochs = ranks[0]["epochs"]
    for rank in ranks:
        rows_per_epoch = [epoch["rows"] for epoch in rank["epochs"]]
        if rows_per_epoch != [num_rows] * len(epochs):
            raise TrainingFailed(f"ranks saw {rows_per_epoch} rows in the epochs, the plan has {num_rows} in each")
        if len({epoch["row_id_sum"] for epoch in rank["epochs"]}) > 1 and spec.streaming.remainder == "keep":
            raise TrainingFailed("epochs saw equally many rows but not the same ones: row ids add up differently")
    return TrainingOutcome(
        run_uri=spec.run_uri,
        world_size=world_size,
        restarts=spec.attempt - 1,
        steps=ranks[0]["steps"],
        epochs=tuple(EpochEnded.of_json(epoch) for epoch in epochs),
        rows_per_epoch=num_rows,
        metrics={split: Metrics.from_json(value) for split, value in ranks[0]["metrics"].items()},
        best_epoch=ranks[0]["best_epoch"],
        checkpoint_uri=spec.best_uri,
        predictions={split: predictions.uri_of(spec.run_uri, split) for split in ranks[0]["metrics"]},
        data_wait_fraction=sum(rank["wait_seconds"] / rank["train_seconds"] for rank in ranks) / world_size,
        train_seconds=max(rank["train_seconds"] for rank in ranks),
        seconds=seconds,
    )
