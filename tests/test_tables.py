"""Delta tables without Spark: what is said of a log that is damaged."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from mlspark import tables
from mlspark.errors import StorageError, TableError


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def garbage(file: Path) -> None:
    file.write_bytes(b"\x00\xff no log")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_another_kind(file: Path) -> None:
    file.write_text('{"metaData": 3}\n')


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("damage", [cut, garbage, empty, of_another_kind])
def test_damaged_log_is_one_message_that_names_the_file(
    tmp_path: Path, damage: Callable[[Path], None], version: int
) -> None:
    table = str(tmp_path / "table")
    for number in range(2):
        write_deltalake(table, pa.table({"x": [number]}), mode="append")
    assert tables.commits(table) == []
    file = tmp_path / "table" / "_delta_log" / f"{version:020d}.json"
    damage(file)
    with pytest.raises(TableError) as refused:
        tables.commits(table)
    assert str(refused.value).startswith(f"{file}: the table's log cannot be read (")
    assert str(refused.value).endswith("; restore the file, or move the table away and run again")
    assert "\n" not in str(refused.value)
    assert "unknown" not in str(refused.value)


def test_file_in_the_place_of_a_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "table").touch()
    with pytest.raises(
        StorageError, match=rf"^{tmp_path}/table: cannot be written \(.*is a file\); .*nothing was written$"
    ):
        tables.exists(str(tmp_path / "table"))
    assert not tables.exists(str(tmp_path / "none"))


def test_log_that_is_gone_is_named(tmp_path: Path) -> None:
    table = str(tmp_path / "table")
    for number in range(2):
        write_deltalake(table, pa.table({"x": [number]}), mode="append")
    (tmp_path / "table" / "_delta_log" / f"{0:020d}.json").unlink()
    with pytest.raises(
        TableError, match=r"_delta_log: the table's log cannot be read \(.*\); restore the file, or move"
    ):
        tables.commits(table)
