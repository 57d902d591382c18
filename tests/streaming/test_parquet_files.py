"""Plain Parquet files in a stream: what is found, in which types, what does not fit, and files that change."""

import datetime
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import deltalake
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

import mlspark.streaming
from mlspark.errors import DatasetError, StorageError, TableError
from mlspark.streaming import snapshots
from mlspark.streaming.bench import measure
from mlspark.streaming.snapshot import PLAIN_FILES, Snapshot
from mlspark.streaming.stream import Stream

FIRST, SECOND = datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)


def write(path: Path, columns: Mapping[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, **options)
    return str(path)


def ids(table: str | Snapshot, **options: Any) -> list[int]:
    with Stream(table, columns=["id"], batch_size=4, shuffle=False, lanes=1, **options) as rows:
        return [row for batch in rows for row in batch["id"].tolist()]


@pytest.fixture(scope="module")
def hive(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two days of two countries, five rows each: the same rows as `delta`."""
    folder = tmp_path_factory.mktemp("hive")
    for number, (day, country) in enumerate([(d, c) for d in (FIRST, SECOND) for c in ("a b/%", None)]):
        place = {"a b/%": "a b%2F%25", None: "__HIVE_DEFAULT_PARTITION__"}[country]
        rows = np.arange(5 * number, 5 * number + 5)
        write(
            folder / f"day={day}" / f"country={place}" / "part-0.parquet", {"id": rows, "x": rows / 2}, row_group_size=2
        )
    (folder / "_SUCCESS").touch()
    (folder / "day=2024-01-01" / ".part-0.parquet.crc").write_bytes(b"crc")
    return str(folder)


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("delta"))
    rows = np.arange(20)
    days, countries = [FIRST] * 10 + [SECOND] * 10, (["a b/%"] * 5 + [None] * 5) * 2
    deltalake.write_deltalake(
        folder,
        pa.table({"id": rows, "x": rows / 2, "day": days, "country": countries}),
        partition_by=["day", "country"],
    )
    return folder


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", range(20)),
        ("/day=2024-01-02", range(10, 20)),
        ("/*/country=a*", [*range(5), *range(10, 15)]),
        ("/**/part-?.parquet", range(20)),
        ("/day=2024-01-0[13]/**", range(10)),
        ("/day=2024-01-01/country=a b%2F%25/part-0.parquet", range(5)),
    ],
)
def test_folder_glob_or_file(hive, pattern, expected):
    assert sorted(ids(hive + pattern)) == list(expected)


@pytest.mark.parametrize(
    "where",
    [
        [],
        [("day", "=", SECOND)],
        [("country", "=", "a b/%")],
        [("id", ">", 3), ("x", "<=", 8.5), ("day", "<", SECOND)],
        [("id", "in", [0, 7, 11])],
    ],
)
def test_conditions_fill_and_types_are_those_of_a_delta_table_of_the_same_rows(hive, delta, where):
    found = []
    for table in (hive, delta):
        with Stream(
            table, where=where, fill={"country": "?"}, vocabularies={"country": ["?", "a b/%"]}, batch_size=4
        ) as rows:
            batches = list(rows)
        names = ("id", "x", "day", "country")
        found.append(sorted(row for batch in batches for row in zip(*(batch[n].tolist() for n in names), strict=True)))
        assert [str(batches[0][name].dtype) for name in names] == [
            "torch.int64", "torch.float64", "torch.int32", "torch.int64"
        ]  # fmt: skip
    assert found[0] == found[1]
    assert found[0]


def test_positions_go_on_with_the_same_files_and_are_refused_with_others(hive, tmp_path):
    with Stream(hive, columns=["id"], batch_size=3, seed=2, lanes=8) as rows:
        expected = [batch["id"].tolist() for batch in rows]
        rows.go_to(0)
        batches = iter(rows)
        next(batches), next(batches)
        state = json.loads(json.dumps(rows.state_dict()))
    for world_size in (1, 3):
        ranks = []
        for rank in range(world_size):
            with Stream(hive, columns=["id"], batch_size=3, seed=2, rank=rank, world_size=world_size) as rows:
                rows.load_state_dict(state)
                ranks.append([batch["id"][~batch["is_padding"]].tolist() for batch in rows])
        assert [sorted(sum(step, [])) for step in zip(*ranks, strict=True)] == [sorted(step) for step in expected[2:]]
    path = write(tmp_path / "a.parquet", {"id": [1, 2, 3]})
    with Stream(path, columns=["id"], batch_size=3) as rows:
        state = rows.state_dict()
    write(tmp_path / "a.parquet", {"id": [1, 2, 4]})
    with Stream(path, columns=["id"], batch_size=3) as rows, pytest.raises(DatasetError, match="were changed since"):
        rows.load_state_dict(state)


def test_snapshot_is_the_files_and_comes_back_from_its_file(hive, tmp_path):
    taken = snapshots.take(hive)
    assert taken.version == PLAIN_FILES
    taken.save(str(tmp_path / "snapshot.json"))
    again = Snapshot.load(str(tmp_path / "snapshot.json"))
    assert again == taken
    assert again.fingerprint == snapshots.take(hive).fingerprint != snapshots.take(hive + "/*/country=a*").fingerprint


def test_columns_are_those_of_all_files_in_types_that_hold_them(tmp_path):
    write(tmp_path / "a.parquet", {"id": pa.array([1], pa.int32()), "x": pa.array([0.5], pa.float16())})
    write(tmp_path / "b.parquet", {"id": pa.array([2], pa.int64()), "n": pa.array([7], pa.uint8()), "void": [None]})
    write(tmp_path / "c.parquet", {"ID": pa.array([3], pa.uint32()), "s": [{"a": 1}]})
    columns = snapshots.take(str(tmp_path)).columns
    assert {name: column.declared for name, column in columns.items()} == {
        "id": "long", "x": "float", "n": "short", "void": "void", "s": "struct"
    }  # fmt: skip
    with Stream(str(tmp_path), columns=["id", "x", "n"], fill={"x": -1.0, "n": 9}, batch_size=3, shuffle=False) as rows:
        (batch,) = rows
    assert [batch[name].tolist() for name in ("id", "x", "n")] == [[1, 2, 3], [0.5, -1, -1], [9, 7, 9]]
    with pytest.raises(DatasetError, match="column s of type struct cannot be streamed"):
        Stream(str(tmp_path), columns=["s"], batch_size=1)


@pytest.mark.parametrize(("values", "declared"), [
    (["1", "-20"], "integer"), (["1", "3000000000"], "long"), (["007", "1"], "string"), (["1.5"], "string"),
    (["2024-02-30", "2024-01-01"], "string"), (["2024-02-28"], "date"), (["-0"], "string"),
    (["9" * 19, "1"], "string"), (["-9223372036854775808"], "long"), (["__HIVE_DEFAULT_PARTITION__"], "string"),
])  # fmt: skip
def test_partition_columns_have_types_that_lose_nothing(tmp_path, values, declared):
    for value in values:
        write(tmp_path / f"p={value}" / "a.parquet", {"id": [1]})
    assert snapshots.take(str(tmp_path)).columns["p"].declared == declared


def test_column_that_is_in_the_file_too_must_hold_what_its_folder_says(tmp_path):
    for country in ("DE", "FR"):
        write(tmp_path / f"country={country}" / "a.parquet", {"id": [len(country)], "country": [country]})
    assert ids(str(tmp_path), where=[("country", "=", "DE")]) == [2]
    wrong = write(tmp_path / "country=DE" / "b.parquet", {"id": [3], "country": ["FR"]})
    with pytest.raises(
        DatasetError, match=f"{wrong}: column country is in the file, with other values than its folder's"
    ):
        snapshots.take(str(tmp_path))
    assert ids(str(tmp_path / "country=DE")) == [2, 3]  # as the remedy says


def test_links_in_a_circle_are_refused_and_a_glob_looks_only_where_it_leads(tmp_path):
    write(tmp_path / "in" / "more" / "a.parquet", {"id": [1]})
    for folder in ("in", "beside"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name in ("one", "two"):  # files listed without end, were they followed
            (tmp_path / folder / name).symlink_to(".")
    assert ids(str(tmp_path / "i*" / "more")) == [1]
    with pytest.raises(StorageError, match=r"in/one: is a link to .*, a folder that it is in, .*; remove it"):
        snapshots.take(str(tmp_path / "in"))


def test_what_does_not_fit_is_named(tmp_path, delta):
    for source in (str(tmp_path / "none"), str(tmp_path), str(tmp_path / "*.parquet")):
        with pytest.raises(TableError, match="no Delta table and no Parquet files here"):
            snapshots.take(source)
    for source in (f"{delta}/**/*.parquet", f"{delta}/day=2024-01-01", f"{delta[:-1]}*"):
        with pytest.raises(
            TableError, match=rf"{delta} is a Delta table, whose folder has files of other versions too"
        ):
            snapshots.take(source)
    write(tmp_path / "a.parquet", {"id": [1]})
    with pytest.raises(DatasetError, match="no Delta table here, which version=2 is for; leave it out"):
        mlspark.streaming.open(str(tmp_path), version=2, batch_size=1)
    assert ids(str(tmp_path)) == [1]
    write(tmp_path / "b.parquet", {"id": ["text"]})
    with pytest.raises(DatasetError, match=r"column id is long in .*a\.parquet and string in .*b\.parquet; write one"):
        snapshots.take(str(tmp_path))
    (tmp_path / "b.parquet").write_bytes(b"id\n1\n2\n3\n4\n5\n")
    with pytest.raises(DatasetError, match=r"b\.parquet: 13 bytes that do not end as a Parquet file does"):
        snapshots.take(str(tmp_path))
    (tmp_path / "b.parquet").write_bytes(b"PAR1garbagegarbage\xff\x00\x00\x00PAR1")
    with pytest.raises(DatasetError, match=r"b\.parquet: the footer of this Parquet file cannot be read"):
        snapshots.take(str(tmp_path))
    write(tmp_path / "b.parquet", {"id": pa.array([], pa.int64())})
    with pytest.raises(DatasetError, match="the files have no rows"):
        Stream(str(tmp_path / "b.parquet"), batch_size=1)
    (tmp_path / "b.parquet").unlink()
    write(tmp_path / "p=1" / "b.parquet", {"id": [2]})
    with pytest.raises(DatasetError, match=r"lie in folders of different partition columns \(none; p\)"):
        snapshots.take(str(tmp_path))


@pytest.mark.parametrize("change", ["rewritten", "same size and time", "cut", "gone"])
def test_file_that_changes_between_two_epochs_is_named(tmp_path, change):
    other = write(tmp_path / "other" / "a.parquet", {"id": [9, 8, 7, 6]}, row_group_size=2)
    path = write(tmp_path / "files" / "a.parquet", {"id": [1, 2, 3, 4]}, row_group_size=2)
    before = os.stat(path)
    reopens = change == "same size and time"
    with Stream(path, columns=["id"], batch_size=4) as rows:
        (batch,) = rows
        assert sorted(batch["id"].tolist()) == [1, 2, 3, 4]
        if change == "gone":
            os.unlink(path)
        elif change == "cut":
            os.truncate(path, before.st_size // 2)
        else:
            assert os.stat(other).st_size == before.st_size
            Path(path).write_bytes(Path(other).read_bytes())
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + (0 if reopens else 10**9)))
        if reopens:
            rows.close()  # new readers look at the footer
        message = {
            "gone": "is not there any more",
            "cut": r"had \d+ bytes and has",
            "rewritten": "has another time of change",
            "same size and time": "has another footer",
        }
        with pytest.raises(DatasetError, match=f"{path}: .*this file {message[change]}.*open it anew"):
            list(rows)


def test_bench_measures_files_too(hive):
    assert measure(hive, seconds=0.1).rows == 20
