"""The reader on Petastorm's engine: nothing lost, nothing silent, whatever happens to a worker or a file."""

import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from mlspark.errors import DatasetError
from mlspark.streaming import disk_cache, row_group_files
from mlspark.streaming.disk_cache import DiskCache
from mlspark.streaming.file_columns import FileColumns
from mlspark.streaming.read_ahead import ReadOptions
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.snapshot import Snapshot

from .conftest import write_snapshot
from .in_workers import die_at_60, exit_at_60, fail_at_60, ids_of


class Sized(list):
    """Row ids that weigh something."""

    nbytes = 1000


def sized(table: pa.Table) -> Sized:
    return Sized(ids_of(table))


def read(snapshot: Snapshot, decode=ids_of, transform=None, **options) -> list[int]:
    with (
        Workers(["row_id"], decode, transform=transform, options=ReadOptions(**options)) as workers,
        PlannedReader(workers, snapshot.row_group_items()) as reader,
    ):
        return [row for rows in reader for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 5])
def test_thread_pool_gives_every_row_in_order_in_200_fast_reads(tmp_path, num_workers):
    # Stock Petastorm loses row groups of such reads about one time in five.
    snapshot = write_snapshot(tmp_path, [[3] * 40])
    groups = snapshot.row_group_items()
    for _ in range(100):  # new threads for each read ...
        assert read(snapshot, workers=num_workers) == list(range(120))
    with Workers(["row_id"], ids_of, options=ReadOptions(num_workers)) as workers:
        for _ in range(100):  # ... and the same for all
            with PlannedReader(workers, groups) as reader:
                assert sum(reader, []) == list(range(120))


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2, 3, 4, 5])
def test_process_pool_gives_every_row_in_order_in_1000_fast_reads(tmp_path, num_workers):
    snapshot = write_snapshot(tmp_path, [[3] * 40])
    groups = snapshot.row_group_items()
    with Workers(["row_id"], ids_of, options=ReadOptions(num_workers, "process")) as workers:
        for _ in range(1000):
            with PlannedReader(workers, groups) as reader:
                assert sum(reader, []) == list(range(120))


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_workers_serve_reads_that_follow_one_given_up(tmp_path, pool):
    snapshot = write_snapshot(tmp_path, [[3] * 40])
    with Workers(["row_id"], ids_of, options=ReadOptions(2, pool)) as workers:
        for taken in (0, 1, 7):
            with PlannedReader(workers, snapshot.row_group_items()) as reader:
                assert [next(reader) for _ in range(taken)] == [[3 * n, 3 * n + 1, 3 * n + 2] for n in range(taken)]
        with PlannedReader(workers, snapshot.row_group_items()) as reader:
            assert sum(reader, []) == list(range(120))


def test_processes_are_reached_through_a_folder_of_this_user_alone(tmp_path):
    before = {connection.laddr for connection in psutil.Process().net_connections("inet")}
    with Workers(["row_id"], ids_of, options=ReadOptions(1, "process")) as workers:
        folder = Path(workers.pool._sockets.name)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(list(folder.iterdir())) == 3
        # Whoever may connect may send pickles, which are run: no port of the machine is open.
        assert {connection.laddr for connection in psutil.Process().net_connections("inet")} <= before
        with PlannedReader(workers, write_snapshot(tmp_path, [[3] * 4]).row_group_items()) as reader:
            assert sum(reader, []) == list(range(12))
    assert not folder.exists()


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_what_a_worker_raises_names_file_and_row_group_after_all_rows_before_it(tmp_path, pool):
    snapshot = write_snapshot(tmp_path, [[3] * 10, [3] * 30])
    given: list[int] = []
    with (
        Workers(["row_id"], fail_at_60, options=ReadOptions(3, pool)) as workers,
        PlannedReader(workers, snapshot.row_group_items()) as reader,
        pytest.raises(DatasetError, match=r"part-00001\.parquet: row group 10: KeyError: 'no such word'"),
    ):
        given.extend(row for rows in reader for row in rows)
    assert given == list(range(60))


def test_system_exit_in_a_transform_is_an_error_and_no_early_end(tmp_path):
    with pytest.raises(DatasetError, match=r"part-00000\.parquet: row group 20: SystemExit: 3"):
        read(write_snapshot(tmp_path, [[3] * 40]), transform=exit_at_60)


def test_killed_process_is_an_error_that_names_file_and_row_group(tmp_path):
    snapshot = write_snapshot(tmp_path, [[3] * 40])
    started = time.monotonic()
    with pytest.raises(
        DatasetError, match=r"part-00000\.parquet: row group 20: the reader's process was killed by signal 9"
    ):
        read(snapshot, transform=die_at_60, pool="process", workers=2)
    assert time.monotonic() - started < 240


def test_transform_must_keep_the_rows(tmp_path):
    with pytest.raises(DatasetError, match=r"row group 0: the transform made 2 rows of 3"):
        read(write_snapshot(tmp_path, [[3]]), transform=lambda table: table.slice(1))


@pytest.mark.parametrize("damage", ["page", "truncated", "absent"])
def test_unreadable_file_is_named_with_its_row_group(tmp_path, damage, monkeypatch):
    monkeypatch.setattr(row_group_files, "_FIRST_PAUSE_SECONDS", 0.01)
    snapshot = write_snapshot(tmp_path, [[20, 20]])
    path = tmp_path / "part-00000.parquet"
    content = bytearray(path.read_bytes())
    footer = int.from_bytes(content[-8:-4], "little") + 8
    content[4:-footer] = b"\xff" * (len(content) - footer - 4)
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(content if damage == "page" else content[:-100])
    with pytest.raises(DatasetError, match=r"part-00000\.parquet: row group 0 cannot be read"):
        read(snapshot)


def test_file_with_other_rows_than_the_snapshot_has_is_an_error(tmp_path):
    snapshot = write_snapshot(tmp_path, [[20, 20]])
    pq.write_table(pq.read_table(tmp_path / "part-00000.parquet").slice(1), tmp_path / "part-00000.parquet")
    with pytest.raises(DatasetError, match=r"39 rows where the snapshot has 20: the file was changed"):
        read(snapshot)


def test_read_errors_that_pass_are_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(row_group_files, "_FIRST_PAUSE_SECONDS", 0.001)
    snapshot = write_snapshot(tmp_path, [[3] * 10])
    real, failures, lock = FileColumns.read, [], threading.Lock()

    def flaky(self, number):
        with lock:
            if failures.count(number) < 3:
                failures.append(number)
                raise OSError("connection reset")
        return real(self, number)

    monkeypatch.setattr(FileColumns, "read", flaky)
    assert read(snapshot) == list(range(30))
    assert sorted(failures) == sorted([*range(10)] * 3)


def test_read_errors_that_do_not_pass_end_after_four_attempts(tmp_path, monkeypatch):
    monkeypatch.setattr(row_group_files, "_FIRST_PAUSE_SECONDS", 0.001)
    attempts = []

    def broken(self, number):
        attempts.append(number)
        raise OSError("connection reset")

    monkeypatch.setattr(FileColumns, "read", broken)
    with pytest.raises(DatasetError, match=r"row group 0 cannot be read after 4 attempts: OSError: connection reset"):
        read(write_snapshot(tmp_path, [[3]]), workers=1)
    assert attempts == [0] * 4


@pytest.mark.parametrize(("read_ahead", "most"), [(0, 2), (5_000, 5), (10**9, 40)])
def test_read_ahead_is_bounded_in_bytes(tmp_path, read_ahead, most):
    snapshot = write_snapshot(tmp_path, [[3] * 40])
    decoded: list[int] = []

    def count(table: pa.Table) -> Sized:
        rows = sized(table)
        decoded.append(len(rows))
        return rows

    with (
        Workers(["row_id"], count, options=ReadOptions(2, read_ahead_bytes=read_ahead)) as workers,
        PlannedReader(workers, snapshot.row_group_items()) as reader,
    ):
        for taken in range(1, 41):
            next(reader)
            if taken in (10, 20):
                expected, deadline = min(most, 40 - taken), time.monotonic() + 120
                while len(decoded) - taken < expected and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.05)
                assert len(decoded) - taken == expected


def test_cache_is_read_instead_of_the_file_and_by_another_process(tmp_path):
    snapshot = write_snapshot(tmp_path / "table", [[3] * 10])
    options = {"cache_folder": str(tmp_path / "cache"), "cache_bytes": 10**8}
    assert read(snapshot, **options) == list(range(30))
    for path in (tmp_path / "table").iterdir():
        path.write_bytes(b"")
    assert read(snapshot, **options) == list(range(30))
    script = (
        "from mlspark.streaming.reader import PlannedReader, ReadOptions, Workers\n"
        "from mlspark.streaming.snapshot import Snapshot\n"
        f"snapshot = Snapshot.load({str(tmp_path / 'snapshot.json')!r})\n"
        f"with Workers(['row_id'], lambda t: t['row_id'].to_pylist(), options=ReadOptions(**{options})) as w:\n"
        "    with PlannedReader(w, snapshot.row_group_items()) as r: print(sum(r, []) == list(range(30)))"
    )
    snapshot.save(str(tmp_path / "snapshot.json"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "True\n", done.stderr


def test_cache_stays_within_its_limit_and_gives_the_right_tables(tmp_path):
    limit = 2_000_000
    caches = [DiskCache(str(tmp_path), limit) for _ in range(3)]  # as many ranks
    tables = {key: pa.table({"x": [key] * 10_000}) for key in range(60)}

    def use(cache: DiskCache) -> None:
        for key in [*range(60), *range(0, 60, 7)]:
            found = cache.get(str(key), lambda key=key: tables[key])
            assert found.equals(tables[key])

    threads = [threading.Thread(target=use, args=(cache,)) for cache in caches]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert size_of(tmp_path) <= limit
    assert size_of(tmp_path) > limit // 2
    assert not list(tmp_path.glob("*.part"))


def test_damaged_cache_entry_is_read_anew(tmp_path):
    cache, table = DiskCache(str(tmp_path), 10**6), pa.table({"x": [1, 2, 3]})
    cache.get("key", lambda: table)
    (entry,) = tmp_path.glob("*.arrow")
    entry.write_bytes(entry.read_bytes()[:40])
    assert cache.get("key", lambda: table).equals(table)
    assert cache.get("key", lambda: pa.table({"x": [0]})).equals(table)


@pytest.mark.parametrize("place", [0, 20, 47, 64, 70, 200, -300, -40, -1])
def test_cache_entry_with_another_byte_is_read_anew(tmp_path, place):
    table = pa.table({"x": list(range(50)), "text": ["some"] * 50})
    DiskCache(str(tmp_path), 10**6).get("key", lambda: table)
    (entry,) = tmp_path.glob("*.arrow")
    content = bytearray(entry.read_bytes())
    content[place] ^= 0x40
    entry.write_bytes(bytes(content))
    other = pa.table({"x": [0]})
    assert DiskCache(str(tmp_path), 10**6).get("key", lambda: other).equals(other)


def test_cache_gives_the_right_rows_whatever_the_clock_says(tmp_path, monkeypatch):
    """A process whose clock is days ahead takes the file that another one writes for left over."""
    limit = 1 << 16
    other, seal = DiskCache(str(tmp_path), limit), disk_cache._seal

    def swept(key, body):
        monkeypatch.setattr(disk_cache, "_seal", seal)
        with monkeypatch.context() as clock:
            clock.setattr(disk_cache.time, "time", lambda: time.time_ns() / 1e9 + 3 * 86_400)
            other._make_room(limit)
        assert not list(tmp_path.glob("*.part"))
        return seal(key, body)

    table = pa.table({"x": [1, 2, 3]})
    monkeypatch.setattr(disk_cache, "_seal", swept)
    assert DiskCache(str(tmp_path), limit).get("key", lambda: table).equals(table)
    for _ in range(2):
        assert DiskCache(str(tmp_path), limit).get("key", lambda: table).equals(table)
    # The clock was set back: what is there was read in the future.
    for number in range(100):
        of_number = pa.table({"x": [number] * 200})
        cache = DiskCache(str(tmp_path), limit)
        assert cache.get(f"key {number}", lambda: of_number).equals(of_number)  # noqa: B023
        for entry in tmp_path.glob("*.arrow"):
            os.utime(entry, (2e9 + number, 2e9 + number))
        assert size_of(tmp_path) <= limit


def test_cache_entry_of_another_key_is_read_anew(tmp_path):
    cache = DiskCache(str(tmp_path), 10**6)
    cache.get("one", lambda: pa.table({"x": [1]}))
    (one,) = tmp_path.glob("*.arrow")
    cache.get("two", lambda: pa.table({"x": [2]}))
    [two] = {*tmp_path.glob("*.arrow")} - {one}
    two.write_bytes(one.read_bytes())
    assert DiskCache(str(tmp_path), 10**6).get("two", lambda: pa.table({"x": [2]})).column("x").to_pylist() == [2]


def test_checked_entry_is_not_checked_again_and_not_copied(tmp_path, monkeypatch):
    cache, table = DiskCache(str(tmp_path), 10**7), pa.table({"x": list(range(100_000))})
    cache.get("key", lambda: table)
    before = pa.total_allocated_bytes()
    first = cache.get("key", lambda: pa.table({"x": [0]}))
    monkeypatch.setattr(disk_cache, "_seal", None)  # calling it would fail
    again = cache.get("key", lambda: pa.table({"x": [0]}))
    assert first.equals(table)
    assert again.equals(table)
    assert pa.total_allocated_bytes() - before < 100_000  # mapped; the table has 800,000 bytes


@pytest.mark.parametrize(
    ("mode", "of_entries"), [(None, 0o600), (0o755, 0o600), (0o770, 0o640), (0o777, 0o644), (0o1777, 0o600)]
)
def test_cache_is_its_owner_s_alone_unless_its_folder_is_shared_on_purpose(tmp_path, mode, of_entries):
    folder = tmp_path / "cache"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    DiskCache(str(folder), 10**6).get("key", lambda: pa.table({"x": [1]}))
    (entry,) = folder.glob("*.arrow")
    assert stat.S_IMODE(entry.stat().st_mode) == of_entries
    assert mode is not None or stat.S_IMODE(folder.stat().st_mode) == 0o700


def size_of(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.arrow"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
