"""Footers of remote files: read once for all threads, again after an error, within a limit of memory."""

import io
import pickle
import threading
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from pyarrow import fs
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.streaming import row_group_files, shared_footers
from mlspark.streaming.file_columns import FileColumns
from mlspark.streaming.read_ahead import ReadOptions, default_workers
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.schema import TableColumn
from mlspark.streaming.shared_footers import SharedFooters
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream

from .conftest import write_snapshot
from .in_workers import ids_of

ROOT = "hdfs://namenode"


@pytest.fixture
def footer_reads(monkeypatch) -> list[str]:
    """The name of a file for each time that its end was read, where hdfs://namenode is this machine's disk."""
    names: list[str] = []

    class File(io.FileIO):
        def read(self, size=-1):
            content = super().read(size)
            if content and self.tell() == Path(self.name).stat().st_size:
                names.append(Path(self.name).name)
            return content

    class Handler(fs.FSSpecHandler):
        def open_input_file(self, path):
            return pa.PythonFile(File(path), mode="r")

    filesystem = fs.PyFileSystem(Handler(LocalFileSystem()))
    monkeypatch.setattr(storage, "filesystem", lambda uri: (filesystem, uri.removeprefix(ROOT)))
    return names


def remote(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, table=ROOT + snapshot.table)


def twice(snapshot: Snapshot, **options) -> list[list[int]]:
    groups = snapshot.row_group_items()
    epochs = []
    with Workers(["row_id"], ids_of, options=ReadOptions(**options)) as workers:
        for _ in range(2):
            with PlannedReader(workers, groups) as reader:
                epochs.append([row for rows in reader for row in rows])
    return epochs


@pytest.mark.parametrize("workers", [1, 3, 4])
def test_threads_read_the_footer_of_a_remote_file_once_for_all_epochs(tmp_path, footer_reads, workers):
    snapshot = write_snapshot(tmp_path, [[3] * 10, [4] * 10, [5] * 10])
    assert twice(remote(snapshot), workers=workers) == [list(range(120))] * 2
    assert sorted(footer_reads) == [file.path for file in snapshot.files]


def test_footers_are_read_once_where_more_files_are_read_than_stay_open(tmp_path, footer_reads, monkeypatch):
    monkeypatch.setattr(row_group_files, "_OPEN_FILES", 1)
    snapshot = write_snapshot(tmp_path, [[2, 2]] * 10)
    assert twice(remote(snapshot), workers=2) == [list(range(40))] * 2
    assert sorted(footer_reads) == [file.path for file in snapshot.files]


def test_file_is_asked_for_its_footer_again_after_an_error(tmp_path, footer_reads, monkeypatch):
    monkeypatch.setattr(row_group_files, "_FIRST_PAUSE_SECONDS", 0.001)
    real, failures = FileColumns.read, []

    def flaky(self, number):
        if number == 2 and not failures:
            failures.append(number)
            raise OSError("connection reset")
        return real(self, number)

    monkeypatch.setattr(FileColumns, "read", flaky)
    assert twice(remote(write_snapshot(tmp_path, [[3] * 4])), workers=1) == [list(range(12))] * 2
    assert footer_reads == ["part-00000.parquet"] * 2


def test_footers_that_need_too_much_memory_are_forgotten_oldest_first(tmp_path, footer_reads, monkeypatch):
    snapshot = remote(write_snapshot(tmp_path, [[3], [3], [3]]))
    first, second, third = (snapshot.uri(file) for file in snapshot.files)
    footers = SharedFooters()
    size = footers.open(first).metadata.serialized_size
    monkeypatch.setattr(shared_footers, "_MOST_BYTES", int(2.5 * size * shared_footers._PARSED_OVER_STORED))
    for uri in (second, first, third):
        footers.open(uri)
    assert [footers.has(uri) for uri in (first, second, third)] == [True, False, True]


def test_threads_that_open_a_file_at_once_wait_for_one_footer(tmp_path, footer_reads):
    snapshot = remote(write_snapshot(tmp_path, [[3]]))
    footers, begin, opened = SharedFooters(), threading.Barrier(8), []

    def open_it() -> None:
        begin.wait()
        opened.append(footers.open(snapshot.uri(snapshot.files[0])).metadata.num_rows)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (opened, footer_reads) == ([3] * 8, ["part-00000.parquet"])


def test_local_files_are_opened_as_they_are_now(tmp_path):
    snapshot = write_snapshot(tmp_path, [[3]])
    uri, footers = snapshot.uri(snapshot.files[0]), SharedFooters()
    assert footers.open(uri).metadata.num_rows == 3
    pq.write_table(pa.table({"row_id": range(5)}), uri)
    assert (footers.open(uri).metadata.num_rows, footers.has(uri)) == (5, False)


def test_another_process_begins_without_footers(tmp_path, footer_reads):
    snapshot = remote(write_snapshot(tmp_path, [[3]]))
    uri, footers = snapshot.uri(snapshot.files[0]), SharedFooters()
    footers.open(uri)
    assert (footers.has(uri), pickle.loads(pickle.dumps(footers)).has(uri)) == (True, False)


def test_open_remote_file_does_not_keep_what_was_read(tmp_path, monkeypatch):
    # Reads into Arrow's memory, as S3's files do.
    monkeypatch.setattr(storage, "filesystem", lambda uri: (fs.LocalFileSystem(), uri.removeprefix(ROOT)))
    snapshot = remote(write_snapshot(tmp_path, [[100_000, 100_000]]))
    file = FileColumns(SharedFooters().open(snapshot.uri(snapshot.files[0])), [TableColumn.named("row_id")])
    before = pa.total_allocated_bytes()
    rows = file.read(0)
    assert pa.total_allocated_bytes() - before < 1.1 * rows.nbytes
    del rows
    assert pa.total_allocated_bytes() - before < 1000


@pytest.mark.parametrize(
    ("table", "expected"),
    [("lake/clicks", 2), ("file:///lake/clicks", 2), ("s3a://lake/clicks", 4), ("hdfs://namenode/clicks", 4)],
)
def test_remote_tables_have_four_workers_unless_a_number_is_asked_for(table, expected):
    assert default_workers(table) == expected


@pytest.mark.parametrize(("asked", "expected"), [(None, 4), (1, 1), (2, 2)])
def test_stream_of_a_remote_table_has_as_many_threads_as_asked_for(tmp_path, footer_reads, asked, expected):
    schema = {"fields": [{"name": "row_id", "type": "long"}]}
    snapshot = replace(remote(write_snapshot(tmp_path, [[3] * 10])), schema=schema)
    with Stream(snapshot, batch_size=4, workers=asked) as rows:
        assert sorted(row for batch in rows for row in batch["row_id"].tolist()) == list(range(30))
        assert rows._workers.pool.workers_count == expected
