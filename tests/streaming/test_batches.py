"""Real files through Petastorm's engine: every row once, in the planned order, resumable."""

import numpy as np
import pytest

from mlspark.config import StreamingSettings
from mlspark.errors import DatasetError
from mlspark.streaming.batches import Batch, open_batches
from mlspark.streaming.snapshot import Snapshot

from .conftest import LAYOUT, write_snapshot


def stream(
    snapshot: Snapshot,
    *,
    rank: int = 0,
    world_size: int = 1,
    epoch: int = 0,
    start_step: int = 0,
    window: int = 40,
    remainder: str = "pad",
) -> list[Batch]:
    settings = StreamingSettings(shuffle_window_rows=window, remainder=remainder)
    with open_batches(
        snapshot,
        LAYOUT,
        settings,
        rank=rank,
        world_size=world_size,
        global_batch_size=16,
        seed=3,
        epoch=epoch,
        start_step=start_step,
    ) as batches:
        return list(batches)


def real_ids(batches: list[Batch]) -> list[list[int]]:
    return [batch.row_id[~batch.is_padding].tolist() for batch in batches]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_every_world_size_gives_the_same_global_batches(small_snapshot, world_size):
    alone = real_ids(stream(small_snapshot))
    ranks = [real_ids(stream(small_snapshot, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(row for step in alone for row in step) == list(range(129))
    assert {len(steps) for steps in ranks} == {9}  # 129 rows in batches of 16
    for step, rows in enumerate(alone):
        assert sorted(row for steps in ranks for row in steps[step]) == sorted(rows)


def test_columns_stay_together_and_padding_is_marked(small_snapshot):
    batches = stream(small_snapshot)
    for batch in batches:
        assert batch.dense.shape == (16, 2)
        np.testing.assert_array_equal(batch.dense[:, 0], batch.row_id)
        np.testing.assert_array_equal(batch.categorical[:, 0], batch.row_id % 7)
        np.testing.assert_array_equal(batch.label, batch.row_id % 2)
    assert [int(batch.is_padding.sum()) for batch in batches] == [0] * 8 + [15]


def test_dropped_remainder_gives_full_batches_only(small_snapshot):
    batches = stream(small_snapshot, remainder="drop")
    assert len(batches) == 8
    assert not any(batch.is_padding.any() for batch in batches)


@pytest.mark.parametrize("world_size", [1, 4])
def test_resuming_at_any_step_gives_the_rest_of_the_uninterrupted_epoch(small_snapshot, world_size):
    rank = world_size - 1
    whole = real_ids(stream(small_snapshot, rank=rank, world_size=world_size))
    for start_step in range(len(whole) + 1):
        assert (
            real_ids(stream(small_snapshot, rank=rank, world_size=world_size, start_step=start_step))
            == (whole[start_step:])
        )


def test_epochs_differ_in_order_and_not_in_rows(small_snapshot):
    first, second = (sum(real_ids(stream(small_snapshot, epoch=epoch)), []) for epoch in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)


def test_unreadable_file_is_named_with_its_row_group(tmp_path):
    snapshot = write_snapshot(tmp_path, [[20, 20]])
    path = tmp_path / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"part-00000\.parquet: row group 0 cannot be read"):
        stream(snapshot)
