"""The stream of batches that people open: positions, ranks, memory, refusals."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import deltalake
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

import mlspark.streaming
from mlspark.errors import ConfigError, DatasetError
from mlspark.streaming.device_copies import to_device
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream, Transform

from ..conftest import is_alive
from .conftest import write_snapshot
from .in_workers import add_double

ROOT = Path(__file__).parents[2]
COLUMNS = {"x": ["age", "hours"], "row_id": "row_id"}
SCHEMA = {
    "fields": [
        {"name": name, "type": kind}
        for name, kind in [
            ("age", "float"),
            ("hours", "float"),
            ("job", "integer"),
            ("label", "float"),
            ("row_id", "long"),
        ]
    ]
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    written = write_snapshot(tmp_path_factory.mktemp("table"), [[30, 30, 7], [50], [11, 1], [40, 40, 40]])
    return Snapshot(written.table, 0, SCHEMA, written.files)


def opened(table: Snapshot | str, **options) -> Stream:
    defaults = {"columns": COLUMNS, "batch_size": 16, "seed": 3, "shuffle_window_rows": 64}
    return Stream(table, **(defaults | options))


def real_ids(batches) -> list[list[int]]:
    return [batch["row_id"][~batch["is_padding"]].tolist() for batch in batches]


def merged(ranks: list[list[list[int]]]) -> list[list[int]]:
    assert len({len(steps) for steps in ranks}) == 1
    return [sorted(row for steps in ranks for row in steps[step]) for step in range(len(ranks[0]))]


MODES = [{}, {"memory_bytes": 10**8}]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=4), min_size=1, max_size=4),
    world_sizes=st.lists(st.integers(1, 8), min_size=2, max_size=2, unique=True),
    batch_size=st.integers(8, 30),
    window=st.integers(1, 100),
    seed=st.integers(0, 5),
    mode=st.sampled_from(MODES),
    data=st.data(),
)
def test_union_of_ranks_is_the_table_in_steps_that_no_world_size_changes(
    tmp_path_factory, layout, world_sizes, batch_size, window, seed, mode, data
):
    written = write_snapshot(tmp_path_factory.mktemp("any"), [[*layout[0], 8], *layout[1:]])
    any_table = Snapshot(written.table, 0, SCHEMA, written.files)
    options = {"batch_size": batch_size, "shuffle_window_rows": window, "seed": seed, **mode}
    epochs = []
    for world_size in world_sizes:
        streams = [opened(any_table, rank=rank, world_size=world_size, **options) for rank in range(world_size)]
        epochs.append([merged([real_ids(stream) for stream in streams]) for _ in range(2)])
    assert epochs[0] == epochs[1]
    first, second = (sum(epoch, []) for epoch in epochs[0])
    assert sorted(first) == sorted(second) == list(range(any_table.num_rows))
    # Resumed after any step, on either world size.
    step = data.draw(st.integers(0, len(epochs[0][0])))
    with opened(any_table, **options) as before:
        batches = iter(before)
        for _ in range(step):
            next(batches)
        state = json.loads(json.dumps(before.state_dict()))
    rest = []
    for rank in range(world_sizes[1]):
        stream = opened(any_table, rank=rank, world_size=world_sizes[1], **options)
        stream.load_state_dict(state)
        rest.append(real_ids(stream))
    assert merged(rest) == epochs[0][0][step:]


@pytest.mark.parametrize("mode", MODES)
def test_resumed_twice_in_other_streams_is_the_uninterrupted_run(table, mode):
    with opened(table, **mode) as whole:
        expected = [real_ids(whole) for _ in range(3)]
    given: list[list[int]] = []
    state = None
    for take in (5, len(expected[0]), 1, 100):
        with opened(table, **mode) as stream:
            if state is not None:
                stream.load_state_dict(state)
            for _ in range(3 - stream.epoch):
                for batch in stream:
                    given += real_ids([batch])
                    take -= 1
                    if not take:
                        break
                state = stream.state_dict()
                if not take:
                    break
    assert given == sum(expected, [])


def test_going_on_with_a_broken_off_epoch_in_the_same_stream_loses_nothing(table):
    with opened(table) as whole:
        expected = real_ids(whole)
    with opened(table) as stream:
        given = []
        while stream.epoch == 0:
            stream.load_state_dict(stream.state_dict())
            for batch in stream:
                given += real_ids([batch])
                if len(given) % 3 == 0:
                    break
    assert given == expected


@pytest.mark.parametrize("mode", MODES)
def test_epoch_that_is_broken_off_ends(table, mode):
    with opened(table, **mode) as whole:
        epochs = [real_ids(whole) for _ in range(4)]
    with opened(table, **mode) as stream:
        next(iter(stream))
        assert real_ids(stream) == epochs[1]
        # Broken off at the last batch: zip asks the range first.
        assert real_ids(batch for _, batch in zip(range(stream.num_steps), stream, strict=False)) == epochs[2]
        assert (stream.epoch, stream.step) == (2, stream.num_steps)
        assert real_ids(stream) == epochs[3]
        iter(stream)  # nothing was taken of it
        assert stream.epoch == 4


def test_iteration_that_another_one_ended_says_so(table):
    with opened(table) as stream:
        first = iter(stream)
        next(first)
        next(iter(stream))
        with pytest.raises(DatasetError, match="this iteration was ended by another one of the same stream"):
            next(first)


LEFT_OPEN = """
import sys
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.mixture import Part, open_mixture
from mlspark.streaming.stream import Stream
snapshot = Snapshot.load(sys.argv[1])
one = iter(Stream(snapshot, batch_size=2, columns=["row_id"]))
other = iter(Stream(snapshot, batch_size=2, columns=["row_id"], pool="process", workers=1))
mixed = iter(open_mixture([Part(snapshot, 1, {}), Part(snapshot, 1, {})], batch_size=16, columns=["row_id"]))
print([len(next(batches)["row_id"]) for batches in (one, other, mixed)])
"""


def test_iterators_left_open_at_the_end_of_a_script_print_nothing(table, tmp_path):
    table.save(str(tmp_path / "snapshot.json"))
    command = [sys.executable, "-c", LEFT_OPEN, str(tmp_path / "snapshot.json")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.stdout, done.stderr) == ("[2, 2, 16]\n", "")


@pytest.mark.parametrize("mode", MODES)
def test_epochs_and_seeds_differ_in_order_and_not_in_rows(table, mode):
    with opened(table, **mode) as one, opened(table, **mode, seed=4) as other:
        orders = [sum(real_ids(stream), []) for stream in (one, one, one, other)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(table.num_rows)) for order in orders)


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 32}, {"shuffle_window_rows": 65}, {"memory_bytes": 10**8}]
)
def test_position_of_another_order_is_refused_by_name(table, change):
    (name,) = change
    with (
        opened(table) as one,
        opened(table, **change) as other,
        pytest.raises(DatasetError, match=f"with other {name}"),
    ):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({}, r"version 0 of .*, and this stream is of version 1 of .*; open it with version=0, or begin anew"),
        ({"where": [("id", ">", 1)]}, r"; open it with version=0, where id > 1, or begin anew"),
        ({"version": 1, "where": [("id", ">", 1)]}, r"; open it with where id > 1, or begin anew"),
    ],
)
def test_position_in_another_version_says_how_to_open_it(tmp_path, other, message):
    for ids in ([1, 2], [3]):
        deltalake.write_deltalake(str(tmp_path), pa.table({"id": ids}), mode="append")
    options = {"version": 0, "batch_size": 1} | other
    state = json.loads(json.dumps(Stream(str(tmp_path), **options).state_dict()))
    with pytest.raises(DatasetError, match=f"this position is of .*{message}"):
        Stream(str(tmp_path), batch_size=1).load_state_dict(state)
    Stream(str(tmp_path), **options).load_state_dict(state)


def test_position_of_another_table_names_it(tmp_path):
    for name in ("one", "other"):
        deltalake.write_deltalake(str(tmp_path / name), pa.table({"id": [1]}))
    state = Stream(str(tmp_path / "one"), batch_size=1).state_dict()
    with pytest.raises(DatasetError, match=r"open it with table .*/one, version=0, or begin anew"):
        Stream(str(tmp_path / "other"), batch_size=1).load_state_dict(state)


def test_one_table_is_the_same_by_every_path(tmp_path, monkeypatch):
    table = tmp_path / "a table, 100%"
    deltalake.write_deltalake(str(table), pa.table({"id": [1, 2]}))
    (tmp_path / "link").symlink_to(table)
    monkeypatch.chdir(tmp_path)
    position = Stream(str(table), batch_size=1).state_dict()
    for path in (f"./{table.name}", f"{table.name}/", f"{table}//", table.as_uri(), "link"):
        Stream(path, batch_size=1).load_state_dict(position)


def test_folder_that_deltalake_takes_for_another_is_refused_by_every_path_until_it_is_moved(tmp_path):
    table, moved = tmp_path / "a%41b", tmp_path / "moved"
    deltalake.write_deltalake(str(moved), pa.table({"id": [1, 2]}))
    moved.rename(table)
    (tmp_path / "link").symlink_to(table)
    for path in (table, tmp_path / "link"):
        with pytest.raises(
            ConfigError, match=f"{path.name}.*: deltalake reads %41 .* as 'A'; move the table to a folder"
        ):
            Stream(str(path), batch_size=1)
    table.rename(moved)
    table.symlink_to(moved)
    for path in (table, moved):
        assert len(Stream(str(path), batch_size=1)) == 2


def test_share_that_does_not_fit_the_memory_is_an_error_with_figures(table):
    with (
        opened(table, memory_bytes=1000) as stream,
        pytest.raises(DatasetError, match=r"the 249 rows of rank 0 of 1 need"),
    ):
        next(iter(stream))


def test_epochs_from_memory_read_no_file(table, tmp_path):
    written = write_snapshot(tmp_path, [[30, 30], [40]])
    with opened(Snapshot(written.table, 0, SCHEMA, written.files), memory_bytes=10**8) as stream:
        first = sum(real_ids(stream), [])
        for path in tmp_path.glob("*.parquet"):
            path.unlink()
        second = sum(real_ids(stream), [])
    assert first != second
    assert sorted(first) == sorted(second) == list(range(100))


@pytest.mark.parametrize("mode", MODES)
def test_ranks_without_a_row_in_a_step_get_one_of_their_others(table, mode):
    # 249 rows, batches of 31 on 31 lanes: the last batch has one row, of rank 0.
    options = {"batch_size": 31, "lanes": 31, "world_size": 31, **mode}
    with opened(table, rank=30, **options) as stream:
        *_, before, last = stream
        stream.load_state_dict(stream.state_dict() | {"epoch": 0, "step": 8})
        (resumed,) = stream
    assert before["is_padding"].tolist() == [False]
    for batch in (last, resumed):
        assert batch["is_padding"].tolist() == [True]
        assert batch["row_id"].tolist() == before["row_id"].tolist()
        np.testing.assert_array_equal(batch["x"][:, 0], batch["row_id"])


@pytest.mark.parametrize("mode", MODES)
def test_ranks_without_any_row_take_as_many_steps_with_a_row_of_the_table(tmp_path, mode):
    written = write_snapshot(tmp_path, [[3]])
    few = Snapshot(written.table, 0, SCHEMA, written.files)
    ranks = [list(opened(few, batch_size=8, rank=rank, world_size=8, **mode)) for rank in range(8)]
    assert sorted(row for rank in ranks for step in real_ids(rank) for row in step) == [0, 1, 2]
    assert {batch["row_id"].item() for rank in ranks[3:] for batch in rank} <= {0, 1, 2}
    assert [[len(batch["x"]) for batch in rank] for rank in ranks] == [[1]] * 8


@settings(max_examples=15, deadline=None)
@given(world_size=st.integers(2, 8), extra=st.integers(0, 4), rows=st.integers(20, 60), window=st.integers(1, 40))
def test_batches_of_hardly_more_rows_than_ranks_hold_each_row_once(tmp_path_factory, world_size, extra, rows, window):
    written = write_snapshot(tmp_path_factory.mktemp("tight"), [[rows]])
    tight = Snapshot(written.table, 0, SCHEMA, written.files)
    options = {"batch_size": world_size + extra, "world_size": world_size, "shuffle_window_rows": window}
    streams = [opened(tight, rank=rank, **options) for rank in range(world_size)]
    ranks = [real_ids(stream) for stream in streams]
    assert merged(ranks) == [sorted(step) for step in real_ids(opened(tight, **(options | {"world_size": 1})))]


def test_batches_stay_what_they_were_when_later_ones_are_made(table):
    with opened(table) as stream:
        kept = list(stream)
        copies = [batch["x"].clone() for batch in kept]
        list(stream)
    for batch, copy in zip(kept, copies, strict=True):
        assert torch.equal(batch["x"], copy)
        np.testing.assert_array_equal(batch["x"][:, 0], batch["row_id"])


def test_ragged_fields_have_values_and_offsets(tmp_path):
    words = ["", "a", "bb", "ccc"] * 5
    lists = [[float(n)] * (n % 3) for n in range(20)]
    deltalake.write_deltalake(
        str(tmp_path), pa.table({"id": range(20), "word": words, "list": pa.array(lists, pa.list_(pa.float32()))})
    )
    seen = {}
    with Stream(str(tmp_path), batch_size=8, shuffle_window_rows=7) as stream:
        for batch in stream:
            assert len(batch["word_offsets"]) == len(batch["list_offsets"]) == len(batch["id"]) + 1
            for row, (number, is_padding) in enumerate(zip(batch["id"].tolist(), batch["is_padding"], strict=True)):
                word = bytes(batch["word"][batch["word_offsets"][row] : batch["word_offsets"][row + 1]].tolist())
                numbers = batch["list"][batch["list_offsets"][row] : batch["list_offsets"][row + 1]].tolist()
                assert not is_padding
                seen[number] = (word.decode(), numbers)
    assert seen == {number: (words[number], lists[number]) for number in range(20)}


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_transform_runs_in_the_workers_and_may_read_and_give_columns(table, pool):
    transform = Transform(add_double, reads=["age"], gives={"double": "double"})
    with opened(table, columns=["row_id", "double"], transform=transform, pool=pool) as stream:
        for batch in stream:
            assert torch.equal(batch["double"], batch["row_id"] * 2.0)


def test_data_loader_passes_batches_on_and_refuses_workers(table):
    with opened(table) as stream:
        assert len(list(DataLoader(stream, batch_size=None))) == stream.num_steps == len(stream)
        with pytest.raises(DatasetError, match="set num_workers=0"):
            list(DataLoader(stream, batch_size=None, num_workers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 2, "world_size": 2}, "rank 2 is not among the 2 ranks 0 to 1"),
        ({"world_size": 9, "rank": 0}, "world_size=9 is more than lanes=8"),
        ({"world_size": 5, "rank": 0, "batch_size": 4}, "batch_size=4 is fewer rows than world_size=5 ranks"),
        (
            {"batch_size": 250, "remainder": "drop"},
            "249 rows make no batch of batch_size=250, and remainder='drop' leaves",
        ),
        ({"columns": {"is_padding": "age"}}, "two fields are called is_padding; rename one"),
        ({"fill": {"agee": 0}}, "fill names agee, which is no column; there are age"),
        ({"version": 3}, "a snapshot of version 0 was given"),
    ],
)
def test_what_does_not_fit_is_refused_when_opened(table, options, message):
    with pytest.raises(DatasetError, match=message):
        opened(table, **options)


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_cache_folder_that_cannot_be_made_is_named_when_opened(table, tmp_path, pool):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "in it", Path("/sys/mlspark")):
        with pytest.raises(DatasetError, match=rf"^cache_folder {folder}: cannot be made \(.*\); give another one, or"):
            opened(table, cache_folder=str(folder), pool=pool)


def test_the_package_gives_out_open(table):
    assert mlspark.streaming.open is Stream
    with pytest.raises(AttributeError):
        mlspark.streaming.close  # noqa: B018


def test_on_a_cpu_to_device_gives_the_batches_as_they_are(table):
    with opened(table) as stream:
        first = next(iter(to_device(stream, "cpu")))
    assert first["x"].shape == (16, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_pinned_batches_arrive_on_a_gpu_as_they_are_on_the_host(table):
    with opened(table) as stream:
        expected = [{name: tensor.clone() for name, tensor in batch.items()} for batch in stream]
    with opened(table, pin_memory=True) as stream:
        assert next(iter(stream))["x"].is_pinned()
    with opened(table, pin_memory=True) as stream:
        given = [{name: tensor.cpu() for name, tensor in batch.items()} for batch in to_device(stream, "cuda")]
    assert len(given) == len(expected)
    for one, other in zip(given, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)


def test_pinned_memory_is_ordinary_where_there_is_no_gpu(table):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with opened(table) as one, opened(table, pin_memory=True) as other:
        assert torch.equal(next(iter(one))["x"], next(iter(other))["x"])


ZYGOTE = """
import json, os, signal, sys, time
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:  # a new process for each rank, without the seconds of imports
    ask = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    stream = Stream(Snapshot.load(sys.argv[1]), columns=["row_id"], batch_size=24, seed=1, lanes=24,
                    shuffle_window_rows=600, rank=ask["rank"], world_size=ask["world_size"])
    if ask["state"]:
        stream.load_state_dict(ask["state"])
    with open(ask["out"], "a", buffering=1) as log:
        for batch in stream:
            ids = batch["row_id"][~batch["is_padding"]].tolist()
            log.write(json.dumps({"ids": ids, "state": stream.state_dict()}) + "\\n")  # one write: the line or nothing
            time.sleep(0.002)
        log.write(json.dumps({"state": stream.state_dict()}) + "\\n")
    os._exit(0)
"""


@pytest.mark.slow
def test_ranks_killed_at_30_random_points_lose_and_repeat_no_row(tmp_path):
    written = write_snapshot(tmp_path / "table", [[37] * 40, [100] * 10, [5] * 80, [400] * 40])
    snapshot = Snapshot(written.table, 0, SCHEMA, written.files)
    snapshot.save(str(tmp_path / "snapshot.json"))
    chance, given = random.Random(7), Counter()
    state, num_killed = None, 0
    zygote = subprocess.Popen(
        [sys.executable, "-c", ZYGOTE, str(tmp_path / "snapshot.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    while state is None or state["epoch"] == 0:
        world_size = chance.choice([1, 2, 3])
        outs = [tmp_path / f"log-{num_killed}-{rank}" for rank in range(world_size)]
        ranks = []
        for rank, out in enumerate(outs):
            ask = {"out": str(out), "rank": rank, "world_size": world_size, "state": state}
            print(json.dumps(ask), file=zygote.stdin, flush=True)
            ranks.append(int(zygote.stdout.readline()))
        if num_killed < 30:
            while any(map(is_alive, ranks)) and not all(out.exists() and out.stat().st_size for out in outs):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.03))
            for process in filter(is_alive, ranks):
                os.kill(process, signal.SIGKILL)
            num_killed += 1
        while any(map(is_alive, ranks)):
            time.sleep(0.01)
        steps = [[json.loads(line) for line in out.read_text().splitlines()] for out in outs]
        common = min(map(len, steps))  # a step counts when every rank has taken it
        for step in range(common):
            given.update(row for rank in steps for row in rank[step].get("ids", ()))
        if common:
            assert len({json.dumps(rank[common - 1]["state"]) for rank in steps}) == 1
            state = steps[0][common - 1]["state"]
    zygote.stdin.close()
    zygote.wait(timeout=60)
    print(f"killed {num_killed} times, the last at step {state}")
    assert num_killed == 30
    assert set(given.values()) == {1}
    assert len(given) == snapshot.num_rows


@pytest.mark.parametrize("steps", [0, 3])
def test_threads_of_a_stream_that_nobody_closes_end(table, steps):
    gc.collect()  # what other tests left
    time.sleep(0.2)
    before = threading.active_count()
    batches = iter(opened(table))
    for _ in range(steps):
        next(batches)
    del batches
    gc.collect()
    deadline = time.monotonic() + 120
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before
