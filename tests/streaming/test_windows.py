"""Windows that threads lay out: the order of the plan, whatever the threads do; memory, errors and ends."""

import gc
import random
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlspark.errors import DatasetError
from mlspark.streaming import file_columns, windows
from mlspark.streaming import rows as rows_module
from mlspark.streaming.decoding import Decoder
from mlspark.streaming.plan import Plan, RankPlan
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream

from .conftest import write_snapshot
from .test_stream import SCHEMA

COLUMNS = {"x": ["age", "hours"], "row_id": "row_id", "job": "job"}


def in_plain_python(plan: Plan, rank: int, world_size: int) -> list[list[int]]:
    """The batches of a rank as docs/explanation/order.md says: lists of the numbers of rows in the table."""
    firsts = np.cumsum(plan.rows_per_group) - plan.rows_per_group
    axis = [firsts[group] + row for group in plan.group_order for row in range(plan.rows_per_group[group])]
    lanes = []
    for lane in range(plan.lanes):
        start, stop = plan.lane_bounds(lane)
        shuffled = []
        for number, first in enumerate(range(start, stop, plan.window_rows)):
            shuffled += [axis[first + place] for place in plan.window_order(lane, number)]
        lanes.append(shuffled)
    epoch = [(row % plan.lanes, lanes[row % plan.lanes][row // plan.lanes]) for row in range(plan.num_rows)]
    steps = [epoch[first : first + plan.batch_size] for first in range(0, plan.num_rows, plan.batch_size)]
    return [[int(row) for lane, row in step if lane % world_size == rank] for step in steps]


def written(folder: Any, layout: list[list[int]]) -> Snapshot:
    snapshot = write_snapshot(folder, layout)
    return Snapshot(snapshot.table, 0, SCHEMA, snapshot.files)


def opened(table: Snapshot, **options: Any) -> Stream:
    return Stream(table, **({"columns": COLUMNS, "batch_size": 16, "seed": 3, "shuffle_window_rows": 256} | options))


def real_ids(batches: Any) -> list[list[int]]:
    taken = []
    for batch in batches:
        assert torch.equal(batch["x"], torch.stack([batch["row_id"], batch["row_id"] / 2], 1).float())
        assert torch.equal(batch["job"], (batch["row_id"] % 7).int())
        taken.append(batch["row_id"][~batch["is_padding"]].tolist())
    return taken


@settings(max_examples=60, deadline=None)
@given(
    layout=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    lanes=st.integers(1, 9),
    window=st.integers(1, 100),
    shuffle=st.booleans(),
    data=st.data(),
)
def test_places_of_the_lanes_are_the_inverse_of_a_blocks_order(layout, lanes, window, shuffle, data):
    plan = Plan(
        np.array(layout), batch_size=9, seed=1, epoch=2, lanes=lanes, shuffle_window_rows=window, shuffle=shuffle
    )
    world_size = data.draw(st.integers(1, lanes))
    share = RankPlan(plan, data.draw(st.integers(0, world_size - 1)), world_size)
    for block in range(share.num_blocks):
        shares = share.block_lanes(block)
        places = np.concatenate([share.lane_places(block, shares, column) for column in range(len(shares))])
        np.testing.assert_array_equal(places[share.block_order(block)], np.arange(len(places)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=5), min_size=1, max_size=4),
    lanes=st.integers(1, 8),
    batch_size=st.integers(8, 40),
    window=st.integers(1, 400),
    shuffle=st.booleans(),
    num_threads=st.integers(1, 8),
    step=st.integers(0, 3),
    data=st.data(),
)
def test_batches_are_those_of_the_documented_order_with_any_number_of_threads(
    tmp_path_factory, layout, lanes, batch_size, window, shuffle, num_threads, step, data
):
    table = written(tmp_path_factory.mktemp("any"), [[*layout[0], 8], *layout[1:]])
    world_size = data.draw(st.integers(1, lanes))
    rank = data.draw(st.integers(0, world_size - 1))
    options = {"lanes": lanes, "batch_size": batch_size, "shuffle_window_rows": window, "shuffle": shuffle}
    with opened(table, rank=rank, world_size=world_size, workers=num_threads, **options) as stream:
        step = min(step, stream.num_steps)
        stream.go_to(1, step)
        given_out = real_ids(stream)
    plan = Plan(table.rows_per_group(), seed=3, epoch=1, **options)
    assert given_out == in_plain_python(plan, rank, world_size)[step:]


@pytest.mark.parametrize("options", [{}, {"lanes": 1, "shuffle": False}, {"memory_bytes": 10**8}])
def test_batches_are_the_same_whatever_thread_is_late(tmp_path, monkeypatch, options):
    table = written(tmp_path, [[100, 400, 30], [77] * 9, [500]])
    monkeypatch.setattr(windows, "_FEWEST_ROWS_AT_ONCE", 1)
    with opened(table, **options) as stream:
        expected = real_ids(stream)
    chance = random.Random(5)
    for name in ("_put", "_lane_places"):
        whole = getattr(windows, name)

        def late(*arguments: Any, whole: Any = whole) -> Any:
            time.sleep(chance.choice([0, 0, 0.001, 0.01]))
            return whole(*arguments)

        monkeypatch.setattr(windows, name, late)
    for num_threads in (1, 3, 8):
        with opened(table, workers=num_threads, **options) as stream:
            assert real_ids(stream) == expected


def test_rows_in_table_order_are_views_of_row_groups_that_may_be_written_to(tmp_path):
    table = written(tmp_path, [[40, 40, 25]])
    columns = {"x": ["age", "hours"], "one": "row_id", "same": "row_id", "label": "label"}
    places, taken = [], []
    with opened(table, columns=columns, lanes=1, shuffle=False) as stream:
        for batch in stream:
            places.append(batch["x"].data_ptr())
            for name in columns:
                batch[name] += 1000  # nobody else's memory
            taken.append(batch)
    row_bytes = 2 * 4
    # Batches 0 and 1 lie in the first row group, 2 in two of them, 3 and 4 in the second but for its end.
    assert places[1] - places[0] == places[4] - places[3] == 16 * row_bytes
    one, same = (torch.cat([batch[name] for batch in taken]).tolist() for name in ("one", "same"))
    assert one == same == list(range(1000, 1105))
    assert torch.cat([batch["label"] for batch in taken]).tolist() == [1000 + row % 2 for row in range(105)]


class CountedMemory:
    """Makes arrays, and counts the float32 ones that are alive."""

    def __init__(self) -> None:
        self.alive = self.most = 0

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        memory = np.empty(shape, dtype)
        if dtype == np.float32 and len(memory) == 256:  # "x" of a window
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(memory, self._gone)
        return memory

    def _gone(self) -> None:
        self.alive -= 1

    def clear(self) -> None:
        """For `Stream.close`."""


@pytest.mark.parametrize("num_bytes", [1, 100, 2**18])
@pytest.mark.parametrize("options", [{}, {"lanes": 3, "workers": 3}, {"lanes": 1, "shuffle": False}])
def test_many_columns_become_rows_some_at_a_time(tmp_path, monkeypatch, options, num_bytes):
    table = written(tmp_path, [[100, 400, 30], [1, 77, 1], [500]])
    monkeypatch.setattr(rows_module, "_BYTES_JOINED", num_bytes)
    monkeypatch.setattr(file_columns, "_BYTES_AT_ONCE", num_bytes)
    columns = {"x": ["age", "hours"] * 4, "row_id": "row_id", "mixed": [*["age"] * 8, "row_id"]}
    with opened(table, columns=columns, **options) as stream:
        taken = list(stream)
    for batch in taken:
        ids = batch["row_id"]
        assert torch.equal(batch["x"], torch.stack([ids, ids / 2] * 4, 1).float())
        assert torch.equal(batch["mixed"], torch.stack([ids] * 9, 1).to(batch["mixed"].dtype))
        assert batch["x"].is_contiguous()
    assert sorted(torch.cat([batch["row_id"] for batch in taken]).tolist()) == list(range(1109))


def test_row_groups_go_before_others_are_decoded(tmp_path, monkeypatch):
    """A row group for each worker and one for each thread that copies: however slow these are."""
    table, alive, most = written(tmp_path, [[200] * 30]), set(), []
    matrix, put = Decoder._matrix, windows._put

    def counted(*arguments: Any) -> Any:
        decoded = matrix(*arguments)
        alive.add(id(decoded.base))
        weakref.finalize(decoded.base, alive.discard, id(decoded.base))
        most.append(len(alive))
        return decoded

    def slow(*arguments: Any) -> None:
        time.sleep(0.003)
        put(*arguments)

    monkeypatch.setattr(Decoder, "_matrix", counted)
    monkeypatch.setattr(windows, "_put", slow)
    monkeypatch.setattr(windows, "_FEWEST_ROWS_AT_ONCE", 1)
    for workers in (1, 2):
        most.clear()
        options = {"columns": {"x": ["age"] * 8}, "workers": workers, "read_ahead_bytes": 0}
        with opened(table, lanes=1, shuffle_window_rows=2000, **options) as stream:
            assert sum(len(batch["x"]) for batch in stream) == 6000
        assert max(most) <= 2 * workers


@pytest.mark.parametrize("seconds", [0.0, 0.002])
def test_there_are_two_windows_at_a_time(tmp_path, seconds):
    table = written(tmp_path, [[200] * 10])
    with opened(table) as stream:
        memory = stream._memory = CountedMemory()
        for _ in stream:
            time.sleep(seconds)
    assert memory.most == 2


def test_what_goes_wrong_in_a_thread_names_file_row_group_and_field(tmp_path, monkeypatch):
    table = written(tmp_path, [[100, 100], [100]])
    put = rows_module._put

    def out_of_memory(array: Any, places: Any, field: Any) -> None:
        if field.dtype == np.int32 and 150 % 7 in field and len(field) and field[0] == 100 % 7:
            raise MemoryError("no memory left")
        put(array, places, field)

    monkeypatch.setattr(rows_module, "_put", out_of_memory)
    message = "part-00000.parquet: row group 1: field job cannot be copied .*: MemoryError: no memory left"
    with opened(table, lanes=1) as stream, pytest.raises(DatasetError, match=message) as error:
        list(stream)
    assert isinstance(error.value.__cause__, MemoryError)


def threads_of_streams() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("mlspark-")}


def take_one(stream: Stream, errors: list[DatasetError]) -> None:
    try:
        next(iter(stream))
    except DatasetError as error:
        errors.append(error)


def test_closing_in_the_middle_of_a_window_leaves_no_thread(tmp_path, monkeypatch):
    table = written(tmp_path, [[400] * 10])
    gc.collect()
    before = threads_of_streams()
    is_copying, may_copy = threading.Event(), threading.Event()
    errors: list[DatasetError] = []
    put = windows._put

    def held_up(*arguments: Any) -> None:
        if may_copy.is_set():
            put(*arguments)
            return
        is_copying.set()
        assert may_copy.wait(60)

    with opened(table, workers=3) as stream:
        batches = iter(stream)
        next(batches)
        assert threads_of_streams() > before
        stream.go_to(0)
        assert threads_of_streams() == before
        monkeypatch.setattr(windows, "_put", held_up)
        monkeypatch.setattr(windows, "_FEWEST_ROWS_AT_ONCE", 1)  # else a window is copied by one thread
        waiting = threading.Thread(target=take_one, args=(stream, errors))
        waiting.start()
        assert is_copying.wait(60)
        ahead = stream._batches._ahead
        closing = threading.Thread(target=stream.close)
        closing.start()
        while not ahead._is_closed and closing.is_alive():
            time.sleep(0.001)
        may_copy.set()
        for thread in (closing, waiting):
            thread.join(60)
            assert not thread.is_alive()
        assert threads_of_streams() == before
        assert "was ended by another thread" in str(errors[0])
