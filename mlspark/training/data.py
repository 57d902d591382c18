"""The rows of a run as one rank gets them: splits, batches, and how many steps an epoch has."""

from collections.abc import Iterator, Mapping

from mlspark.errors import ConfigError, TrainingFailed
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.plan import Plan
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream
from mlspark.training.network import Batch
from mlspark.training.spec import TrainingSpec
from mlspark.training.state import RankContext

SPLITS = ("train", "validation", "test")


def splits_of(snapshot: Snapshot) -> dict[str, Snapshot]:
    """Return the snapshot's splits by name.

    Raises:
        TrainingFailed: no training rows.
    """
    splits = {name: snapshot.where(split=name) for name in SPLITS}
    if not splits["train"].num_rows:
        raise TrainingFailed(
            f"{snapshot.table} version {snapshot.version}: no rows with split=train; run prepare again"
        )
    return splits


def steps_per_epoch(spec: TrainingSpec, train: Snapshot) -> int:
    """Return the optimizer steps of an epoch, equal on all ranks.

    Raises:
        ConfigError: there would be none.
    """
    batch_size = spec.training.global_batch_size
    plan = Plan(
        train.rows_per_group(),
        global_batch_size=batch_size,
        seed=spec.training.seed,
        epoch=0,
        remainder=spec.streaming.remainder,
    )
    if not plan.num_steps:
        raise ConfigError(
            f"training.global_batch_size={batch_size} is more than the {train.num_rows} training rows, and "
            f"streaming.remainder=drop leaves them all out; lower it, or set streaming.remainder to pad"
        )
    return plan.num_steps


class RankData:
    """A rank's batches of any split."""

    def __init__(self, spec: TrainingSpec, splits: Mapping[str, Snapshot], context: RankContext) -> None:
        self._spec, self._context = spec, context
        self.splits = splits
        self._training: Stream | None = None

    def training(self, epoch: int, step: int) -> Stream:
        """Return the stream of the training rows, the same one for all epochs, at a step of an epoch."""
        if self._training is None:
            self._training = self._open("train", self._spec.streaming, shuffle=True)
        self._training.go_to(epoch, step)
        return self._training

    def held_out(self, split: str) -> Stream:
        """Return the stream of all rows of a split in table order, to be used as a context manager."""
        # An evaluation leaves no row out.
        return self._open(split, self._spec.streaming.model_copy(update={"remainder": "pad"}), shuffle=False)

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch where the rank computes."""
        if self._context.device.type == "cpu":
            return batch
        return {name: tensor.to(self._context.device, non_blocking=True) for name, tensor in batch.items()}

    def close(self) -> None:
        """End reading."""
        if self._training is not None:
            self._training.close()

    def _open(self, split: str, streaming: StreamingSettings, *, shuffle: bool) -> Stream:
        settings = self._spec.training
        return open_feature_table(
            self.splits[split],
            self._spec.tensors,
            streaming,
            rank=self._context.rank,
            world_size=self._context.world_size,
            global_batch_size=settings.global_batch_size,
            seed=settings.seed,
            shuffle=shuffle,
            memory_bytes=settings.memory_bytes if shuffle else 0,
            pin_memory=settings.use_gpu,
        )


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """Yield a batch in `count` equal parts."""
    if count == 1:
        yield batch
        return
    size = len(batch["is_padding"]) // count
    for number in range(count):
        yield {name: tensor[number * size : (number + 1) * size] for name, tensor in batch.items()}
