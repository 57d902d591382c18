"""A feature table as a `Stream`: the encoder's tensors by name, with "target", "row_id", "is_padding" and "weight"."""

from collections.abc import Mapping, Sequence

import numpy as np

from mlspark.features.tensors import Tensors
from mlspark.pictures.augment import Augmentation
from mlspark.pictures.filling import check_augment
from mlspark.pictures.mixing import Mix
from mlspark.streaming.decoding import FieldSpec
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream


def open_feature_table(
    snapshot: Snapshot,
    tensors: Tensors,
    settings: StreamingSettings,
    *,
    rank: int,
    world_size: int,
    global_batch_size: int,
    seed: int,
    augment: Mapping[str, Sequence[Augmentation]] | None = None,
    mix: Mix | None = None,
    shuffle: bool = True,
    memory_bytes: int = 0,
    pin_memory: bool = False,
) -> Stream:
    """Return the stream of this rank's batches, at the first step of epoch 0. Runs in a rank or anywhere else.

    A batch of B rows has each of `tensors` under its name, (B, columns) of its type or pictures (B, C, H, W) uint8, "target"
    (B,), "row_id" (B,) int64, "weight" (B,) float32 where there is one, and "is_padding" (B,) bool. B is this rank's part of
    global_batch_size.

    Args:
        snapshot: files to stream; `snapshot.where(split="train")` for one partition.
        tensors: which columns go where in a batch.
        settings: lanes, window, reader threads, remainder policy.
        rank: 0 to world_size - 1.
        world_size: at most settings.lanes.
        global_batch_size: rows of a step over all ranks.
        seed: with the epoch decides the order.
        augment: tensor of pictures -> what is done to them at random, drawn from seed, epoch and row id; for training rows.
        mix: MixUp and CutMix of the pictures, see `Stream`; for training rows.
        shuffle: False: lanes in table order, for evaluation.
        memory_bytes: as for `Stream`.
        pin_memory: page-locked tensors, for asynchronous copies to a GPU.

    Raises:
        ConfigError: `augment` or `mix` does not fit the pictures.
        DatasetError: ranks, batch and rows do not fit together; on iteration: a file or picture cannot be read, or there is
            a null.
    """
    check_augment(tensors.pictures, augment or {})
    return Stream(
        snapshot,
        specs=feature_fields(snapshot, tensors, augment or {}),
        mix=mix,
        batch_size=global_batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        shuffle_window_rows=settings.shuffle_window_rows,
        shuffle_window_bytes=settings.shuffle_window_bytes,
        shuffle=shuffle,
        lanes=settings.lanes,
        remainder=settings.remainder,
        workers=settings.workers,
        pool=settings.pool,
        read_ahead_bytes=settings.read_ahead_bytes,
        cache_folder=settings.cache_folder,
        cache_bytes=settings.cache_bytes,
        memory_bytes=memory_bytes,
        pin_memory=pin_memory,
    )


def feature_fields(
    snapshot: Snapshot, tensors: Tensors, augment: Mapping[str, Sequence[Augmentation]]
) -> tuple[FieldSpec, ...]:
    """Return the fields of a feature table's batches. Features hold no nulls: one is an error."""

    def columns(*names: str) -> tuple[TableColumn, ...]:
        return tuple(snapshot.columns.get(name) or TableColumn.named(name) for name in names)

    fields = [
        FieldSpec(spec.name, columns(*spec.columns), np.dtype(spec.dtype), is_matrix=True)
        if spec.picture is None
        else FieldSpec(
            spec.name, columns(*spec.columns), picture=spec.picture, augment=tuple(augment.get(spec.name, ()))
        )
        for spec in tensors.specs
        if spec.columns
    ]
    fields.append(FieldSpec("target", columns(tensors.target), np.dtype(tensors.target_dtype)))
    fields.append(FieldSpec("row_id", columns(tensors.row_id), np.dtype(np.int64)))
    if tensors.weight is not None:
        fields.append(FieldSpec("weight", columns(tensors.weight), np.dtype(np.float32)))
    return tuple(fields)
