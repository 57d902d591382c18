"""Small files and snapshots on HDFS and S3."""

import io
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as pq
from pyspark.sql import SparkSession

from mlspark import storage, tables
from mlspark.errors import DatasetError
from mlspark.sources import catalog
from mlspark.sources.csv import CsvSettings
from mlspark.stages import training_mark
from mlspark.streaming import delta_files
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.snapshot import DataFile, Snapshot
from mlspark.streaming.stream import Stream
from tools.cluster import loading
from tools.cluster.hdfs import Hdfs
from tools.cluster.s3 import S3

from ..conftest import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["hdfs", "s3"])
def root(request: pytest.FixtureRequest, hdfs: Hdfs, s3: S3) -> str:
    """A folder of its own for each test, on either."""
    return storage.join({"hdfs": hdfs, "s3": s3}[request.param].url, "storage", request.node.originalname)


def test_file_comes_back_and_is_replaced(root: str) -> None:
    uri = storage.join(root, "deep", "file.bin")
    for content in (b"", b"abc", bytes(range(256)) * 20_000):  # 5 MB: more than one packet, more than one S3 part
        storage.write_bytes(uri, content)
        assert storage.read_bytes(uri) == content
    assert storage.list_files(storage.join(root, "deep")) == [uri]


def test_what_is_absent_is_absent(root: str) -> None:
    assert not storage.exists(storage.join(root, "none"))
    assert storage.list_files(storage.join(root, "none")) == []
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "none"))


def test_listing_has_the_files_of_one_folder(root: str) -> None:
    for name in ("b", "a", "sub/c"):
        storage.write_json(storage.join(root, name), {"name": name})
    assert storage.list_files(root) == [storage.join(root, "a"), storage.join(root, "b")]
    assert storage.exists(storage.join(root, "sub"))
    assert storage.read_json(storage.join(root, "sub", "c")) == {"name": "sub/c"}


def test_plain_parquet_files_stream_and_one_that_is_written_again_is_named(root: str) -> None:
    content = io.BytesIO()
    pq.write_table(pa.table({"id": range(10)}), content, row_group_size=4)
    for day in (1, 2):
        storage.write_bytes(storage.join(root, f"day={day}", "part 0%20.parquet"), content.getvalue())
    with Stream(storage.join(root, "day=*", "*.parquet"), where=[("id", ">", 5)], batch_size=8) as rows:
        assert sorted(
            row for batch in rows for row in zip(batch["id"].tolist(), batch["day"].tolist(), strict=True)
        ) == [(number, day) for number in range(6, 10) for day in (1, 2)]
        time.sleep(1.1)  # S3's times are whole seconds
        storage.write_bytes(storage.join(root, "day=2", "part 0%20.parquet"), content.getvalue())
        with pytest.raises(DatasetError, match=r"day=2/part 0%20\.parquet: this file has another time of change"):
            list(rows)


@pytest.mark.parametrize("name", ["census-0", "census-1", "census-2"])  # two of three times S3 gave it to several
def test_of_many_at_once_one_has_the_mark_of_a_training(root: str, name: str) -> None:
    begin, results = threading.Barrier(4), []

    def train() -> None:
        begin.wait()
        try:
            with training_mark.held(root, name) as mark:
                mark.set_run("abc")
                results.append("trains")
                wait_until(lambda: len(results) == 4)
        except Exception as error:
            results.append("refused" if "is being trained by process" in str(error) else str(error))

    threads = [threading.Thread(target=train) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * 3 + ["trains"]
    with training_mark.held(root, name) as mark:
        assert mark.run_id == "abc"  # which was not finished
        mark.check()
        mark.finish()
    assert [uri for uri in (*storage.list_files(root), *storage.list_folders(root)) if name in uri] == []


def test_file_that_is_replaced_at_once_by_one_of_its_size_is_another_source(
    cluster_spark: SparkSession, root: str
) -> None:
    """S3's times are whole seconds, HDFS's milliseconds."""
    identities = []
    for text in (b"1\n", b"2\n"):
        storage.write_bytes(storage.join(root, "a.csv"), text)
        identities.append(catalog.find(cluster_spark, CsvSettings(kind="csv", path=root), root="").identity)
    assert identities[0]["sha256"] != identities[1]["sha256"]


def test_names_stand_for_themselves(cluster_spark: SparkSession, root: str) -> None:
    """As Spark takes them: a partition folder is called part=50%25, and a#b is not a."""
    uris = [storage.join(root, name) for name in ("50%25", "a", "a b", "a#b", "a?b", "ü")]
    for uri in uris:
        storage.write_bytes(uri, uri.encode())
    assert storage.list_files(root) == uris
    assert [storage.read_bytes(uri).decode() for uri in uris] == uris
    assert sorted(row.value for row in cluster_spark.read.text(root).collect()) == uris


def test_reader_gets_one_state_whole_of_a_file_that_is_being_replaced(root: str) -> None:
    uri = storage.join(root, "state.json")
    storage.write_json(uri, [])
    seen, is_done = [], threading.Event()

    def read() -> None:
        while not is_done.is_set():
            try:
                seen.append(storage.read_json(uri))
            except Exception as error:
                seen.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 11 if root.startswith("hdfs:") else 101):  # half a second each on HDFS: DataNodes report
        storage.write_json(uri, [number] * (number % 11 * 50 + 1))
    is_done.set()
    reader.join()
    assert [value for value in seen if not isinstance(value, list)] == []
    numbers = [value[0] if value else 0 for value in seen]
    assert numbers == sorted(numbers)
    assert seen == [[number] * (number % 11 * 50 + 1) if number else [] for number in numbers]


def test_file_stands_in_the_root_of_hdfs(hdfs: Hdfs) -> None:
    storage.write_bytes(f"{hdfs.url}/file", b"here")
    assert storage.read_bytes(f"{hdfs.url}/file") == b"here"


def test_process_that_has_used_storage_can_fork(root: str) -> None:
    """As when it starts Spark's JVM. fsspec's own way with hdfs-native hangs in the child."""
    uri = storage.join(root, "file")
    storage.write_bytes(uri, b"here")
    forks = f"""
import multiprocessing, subprocess
from mlspark import storage
assert storage.exists({uri!r})
subprocess.run(["true"], preexec_fn=int, check=True)
child = multiprocessing.get_context("fork").Process(target=lambda: print(storage.read_bytes({uri!r})))
child.start()
child.join()
"""
    done = subprocess.run([sys.executable, "-c", forks], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout == "b'here'\n", done.stderr


def test_folder_is_uploaded_with_its_subfolders(root: str, tmp_path: Path) -> None:
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "adult.data").write_text("39, State-gov\n")
    (tmp_path / "read me.txt").write_text("")
    loading.upload(tmp_path, root)
    assert storage.list_files(root) == [storage.join(root, "read me.txt")]
    assert storage.read_bytes(storage.join(root, "adult", "adult.data")) == b"39, State-gov\n"


def test_snapshot_counts_the_rows_of_a_delta_version(cluster_spark: SparkSession, root: str) -> None:
    parts = ["a b", "c#d?e", "50%", "x/y:z=ü", None]
    rows = cluster_spark.createDataFrame([(index, part) for index, part in enumerate(parts)], "id int, part string")
    tables.write(rows, root, metadata={"id": "first"}, mode="overwrite", partition_by=["part"])
    tables.write(rows, root, metadata={"id": "second"}, mode="append", partition_by=["part"])
    assert [commit.version for commit in tables.commits(root)] == [1, 0]
    first, latest = delta_files.take(root, version=0), delta_files.take(root)
    assert (first.version, first.num_rows, latest.version, latest.num_rows) == (0, 5, 1, 10)
    assert sorted(str(file.partition["part"]) for file in first.files) == sorted(map(str, parts))
    assert all(storage.exists(first.uri(file)) for file in first.files)
    saved = storage.join(root, "_mlspark", "snapshot.json")
    first.save(saved)
    assert Snapshot.load(saved) == first


def test_planned_reader_reads_row_groups(cluster_spark: SparkSession, root: str) -> None:
    rows = cluster_spark.range(1000).selectExpr("id", "id % 3 as part")
    tables.write(rows, root, metadata={"id": "rows"}, mode="overwrite", partition_by=["part"])
    items = delta_files.take(root).row_group_items()
    with Workers(["id"], lambda group: group["id"].to_pylist()) as workers, PlannedReader(workers, items) as groups:
        read = list(groups)
    assert len(read) == len(items)
    assert sorted(number for group in read for number in group) == list(range(1000))


def test_s3_is_asked_for_size_and_footer_of_a_file_once_and_once_for_a_row_group(s3: S3, tmp_path: Path) -> None:
    root = storage.join(s3.url, "storage", "requests")
    files = []
    for number in range(3):
        columns = {name: range(100 * number, 100 * number + 100) for name in ("id", "age", "hours")}
        pq.write_table(pa.table(columns), tmp_path / "file", row_group_size=25)
        path = f"{number}.parquet"
        storage.write_bytes(storage.join(root, path), (tmp_path / "file").read_bytes())
        files.append(DataFile(path, (tmp_path / "file").stat().st_size, {}, (25,) * 4))
    schema = {"fields": [{"name": name, "type": "long"} for name in ("id", "age", "hours")]}
    _recorder(s3, "reset-recording")
    _recorder(s3, "start-recording")
    try:
        with Stream(Snapshot(root, 0, schema, tuple(files)), batch_size=10, lanes=1) as rows:  # four threads
            for _ in range(2):
                assert sorted(row for batch in rows for row in batch["id"].tolist()) == list(range(300))
    finally:
        _recorder(s3, "stop-recording")
    requests = Counter(json.loads(line)["method"] for line in _recorder(s3, "download-recording").splitlines())
    assert requests == {"HEAD": 3, "GET": 3 + 2 * 12}


def _recorder(s3: S3, command: str) -> bytes:
    """Return what the server's recorder of requests answers."""
    method = "GET" if command.startswith("download") else "POST"
    request = urllib.request.Request(f"{s3.endpoint}/moto-api/recorder/{command}", method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read()


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_stream_gives_every_row_once_and_again_from_the_cache(root: str, tmp_path: Path, pool: str) -> None:
    schema = {"fields": [{"name": "id", "type": "long"}, {"name": "part", "type": "string"}]}
    files = []
    for number, part in enumerate(("a b", "50%#?", "ü")):
        pq.write_table(pa.table({"id": range(100 * number, 100 * number + 100)}), tmp_path / "file", row_group_size=30)
        path = f"part={part}/{number}.parquet"
        storage.write_bytes(storage.join(root, path), (tmp_path / "file").read_bytes())
        size = (tmp_path / "file").stat().st_size
        files.append(DataFile(path, size, {"part": part}, (30, 30, 30, 10)))
    table = Snapshot(root, 0, schema, tuple(files))
    cache = str(tmp_path / "cache")
    for is_first in (True, False):
        with Stream(
            table, batch_size=10, pool=pool, cache_folder=cache, vocabularies={"part": ["a b", "50%#?", "ü"]}
        ) as rows:
            ids = [
                (row, part)
                for batch in rows
                for row, part in zip(batch["id"].tolist(), batch["part"].tolist(), strict=True)
            ]
        assert sorted(ids) == [(row, 2 + row // 100) for row in range(300)]
        if is_first:  # what follows is read from the cache
            for file in files:
                storage.write_bytes(table.uri(file), b"")
