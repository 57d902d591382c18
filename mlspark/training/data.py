"""The rows of a run as one rank gets them: splits, batches, and how many steps an epoch has."""

from collections.abc import Iterator, Mapping
from itertools import pairwise

import torch

from mlspark.errors import ConfigError, TrainingFailed
from mlspark.streaming import mixing
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.plan import Plan, RankPlan
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
    plan = _plan(spec, train)
    if not plan.num_steps:
        raise ConfigError(
            f"training.global_batch_size={plan.batch_size} is more than the {train.num_rows} training rows, and "
            f"streaming.remainder=drop leaves them all out; lower it, or set streaming.remainder to keep"
        )
    return plan.num_steps


def fewest_rows(spec: TrainingSpec, train: Snapshot, world_size: int, step: int) -> int:
    """Return the least number of rows that a rank has in a step of any epoch."""
    plan = _plan(spec, train)
    edges = [RankPlan(plan, rank, world_size).step_edges(step, step + 1) for rank in range(world_size)]
    return min(stop - start for start, stop in edges)


def _plan(spec: TrainingSpec, train: Snapshot) -> Plan:
    """Return the plan of the first epoch; the steps and shares of all epochs are equal."""
    return Plan(
        train.rows_per_group(),
        batch_size=spec.training.global_batch_size,
        seed=spec.training.seed,
        epoch=0,
        lanes=spec.streaming.lanes,
        remainder=spec.streaming.remainder,
    )


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
        return self._open(split, self._spec.streaming.model_copy(update={"remainder": "keep"}), shuffle=False)

    def two_rows(self) -> Batch:
        """Return two training rows, or the only one twice, where the rank computes: to try a model with."""
        changes = {"lanes": 1, "shuffle_window_rows": 2, "remainder": "keep", "workers": 1, "pool": "thread"}
        with open_feature_table(
            self.splits["train"],
            self._spec.tensors,
            self._spec.streaming.model_copy(update=changes | {"read_ahead_bytes": 0}),  # one row group is read
            rank=0,
            world_size=1,
            global_batch_size=2,
            seed=self._spec.training.seed,
            shuffle=False,
        ) as stream:
            rows = next(iter(stream))
        return self.to_device({name: tensor[[0, -1]] for name, tensor in rows.items()})

    def to_device(self, batch: Batch) -> Batch:
        """Return the batch where the rank computes."""
        if self._context.device.type == "cpu":
            return batch
        return {name: tensor.to(self._context.device, non_blocking=True) for name, tensor in batch.items()}

    def to_learn_from(self, on_host: Batch) -> Batch:
        """Return a batch of training rows where the rank computes, its pictures mixed as the settings say.

        Then it has mix_share (B,), what is left of a row's own picture, and of the row that it is mixed with mix_target
        (B,), and mix_weight (B,) where rows have weights.
        """
        batch = self.to_device(on_host)
        if not self._spec.training.mix.is_on:
            return batch
        [name] = self._spec.tensors.pictures
        batch = mixing.mixed(batch, name)
        partner, _ = batch.pop(mixing.PARTNER), batch.pop(mixing.BOX)
        others = {f"mix_{name}": batch[name][partner] for name in ("target", "weight") if name in batch}
        return {**batch, **others}

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
            augment=settings.augment if shuffle else {},
            mix=settings.mix if shuffle else None,
            shuffle=shuffle,
            memory_bytes=settings.memory_bytes if shuffle else 0,
            pin_memory=settings.use_gpu,
        )


def parts_of(batch: Batch, count: int) -> Iterator[Batch]:
    """Yield a batch in `count` parts, as equal as can be; one without a row has the batch's first, marked as padding."""
    if count == 1:
        yield batch
        return
    num_rows = len(batch["is_padding"])
    edges = [num_rows * number // count for number in range(count + 1)]
    for start, stop in pairwise(edges):
        if start < stop:
            yield {name: tensor[start:stop] for name, tensor in batch.items()}
        else:
            yield {name: tensor[:1] for name, tensor in batch.items()} | {
                "is_padding": torch.ones_like(batch["is_padding"][:1])
            }
