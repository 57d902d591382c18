"""Feature tables through Petastorm's engine: every row once, in the planned order, resumable."""

import numpy as np
import pytest

from mlspark.errors import DatasetError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.streaming.batches import TensorDict
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot

from .conftest import TENSORS, write_snapshot


def stream(
    snapshot: Snapshot,
    tensors: Tensors = TENSORS,
    *,
    rank: int = 0,
    world_size: int = 1,
    epoch: int = 0,
    start_step: int = 0,
    window: int = 40,
    remainder: str = "keep",
    **options,
) -> list[TensorDict]:
    settings = StreamingSettings(shuffle_window_rows=window, remainder=remainder)
    with open_feature_table(
        snapshot, tensors, settings, rank=rank, world_size=world_size, global_batch_size=16, seed=3, **options
    ) as batches:
        batches.go_to(epoch, start_step)
        return list(batches)


def real_ids(batches: list[TensorDict]) -> list[list[int]]:
    return [batch["row_id"][~batch["is_padding"]].tolist() for batch in batches]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_every_world_size_gives_the_same_global_batches(small_snapshot, world_size):
    alone = real_ids(stream(small_snapshot))
    ranks = [real_ids(stream(small_snapshot, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(row for step in alone for row in step) == list(range(129))
    assert {len(steps) for steps in ranks} == {9}  # 129 rows in batches of 16
    for step, rows in enumerate(alone):
        assert sorted(row for steps in ranks for row in steps[step]) == sorted(rows)


def test_columns_stay_together_and_the_last_batch_is_short(small_snapshot):
    batches = stream(small_snapshot)
    for batch in batches:
        assert list(batch) == ["dense", "ids", "target", "row_id", "is_padding"]
        assert not batch["is_padding"].any()
        np.testing.assert_array_equal(batch["dense"][:, 0], batch["row_id"])
        np.testing.assert_array_equal(batch["ids"][:, 0], batch["row_id"] % 7)
        np.testing.assert_array_equal(batch["target"], batch["row_id"] % 2)
    assert [tuple(batch["dense"].shape) for batch in batches] == [(16, 2)] * 8 + [(1, 2)]


@pytest.mark.parametrize("target_dtype", ["float32", "int64", "float64"])
def test_tensors_have_their_types_and_those_without_columns_are_absent(small_snapshot, target_dtype):
    specs = (TensorSpec("dense", ("hours",), "float32"), TensorSpec("ids", (), "int64"))
    tensors = Tensors(specs, target="job", target_dtype=target_dtype, weight="age")
    for batch in stream(small_snapshot, tensors, remainder="drop"):
        assert {name: (str(tensor.dtype), tuple(tensor.shape)) for name, tensor in batch.items()} == {
            "dense": ("torch.float32", (16, 1)),
            "target": (f"torch.{target_dtype}", (16,)),
            "row_id": ("torch.int64", (16,)),
            "weight": ("torch.float32", (16,)),
            "is_padding": ("torch.bool", (16,)),
        }
        np.testing.assert_array_equal(batch["target"], batch["row_id"] % 7)
        np.testing.assert_array_equal(batch["weight"], batch["row_id"])


@pytest.mark.parametrize("memory_bytes", [0, 10**8])
def test_one_stream_goes_to_any_step_of_any_epoch(small_snapshot, memory_bytes):
    whole = {epoch: real_ids(stream(small_snapshot, epoch=epoch, memory_bytes=memory_bytes)) for epoch in range(3)}
    with open_feature_table(
        small_snapshot,
        TENSORS,
        StreamingSettings(shuffle_window_rows=40),
        rank=0,
        world_size=1,
        global_batch_size=16,
        seed=3,
        memory_bytes=memory_bytes,
    ) as rows:
        for epoch, step in [(2, 0), (0, 5), (1, 9), (1, 3)]:
            next(iter(rows))  # an epoch that is begun is left
            rows.go_to(epoch, step)
            assert real_ids(rows) == whole[epoch][step:]
            assert (rows.epoch, rows.step) == (epoch + 1, 0)
        with pytest.raises(DatasetError, match="step 10 is outside the epoch's 9 steps"):
            rows.go_to(0, 10)


def test_without_shuffling_rows_of_a_batch_come_in_table_order(small_snapshot):
    settings = StreamingSettings(lanes=1)
    with open_feature_table(
        small_snapshot, TENSORS, settings, rank=0, world_size=1, global_batch_size=16, seed=3, shuffle=False
    ) as rows:
        assert sum(real_ids(rows), []) == list(range(129))


def test_dropped_remainder_gives_full_batches_only(small_snapshot):
    batches = stream(small_snapshot, remainder="drop")
    assert len(batches) == 8
    assert {len(batch["row_id"]) for batch in batches} == {16}


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
