import errno
import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlspark import storage


def test_bytes_come_back_as_they_were_whatever_the_name(tmp_path: Path) -> None:
    content = gzip.compress(b"rows")  # by its name alone pyarrow would unpack it
    storage.write_bytes(str(tmp_path / "trace.json.gz"), content)
    assert storage.read_bytes(str(tmp_path / "trace.json.gz")) == content


def test_folders_are_listed_and_deleted(tmp_path: Path) -> None:
    for name in ("b", "a"):
        storage.write_bytes(str(tmp_path / name / "file"), b"")
    storage.write_bytes(str(tmp_path / "file"), b"")
    assert storage.list_folders(str(tmp_path)) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert storage.list_folders(str(tmp_path / "absent")) == []
    storage.delete_folder(str(tmp_path / "a"))
    assert storage.list_folders(str(tmp_path)) == [str(tmp_path / "b")]


def test_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "file")
    storage.write_bytes(uri, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No space left"):
            storage.write_bytes(uri, b"new" * 1000)
        with pytest.raises(OSError, match="No space left"):
            storage.create(str(tmp_path / "another"), b"new" * 1000)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert storage.read_bytes(uri) == b"old"


def test_leftovers_of_killed_writers_are_swept_and_nothing_else(tmp_path: Path) -> None:
    kept = (".hidden", "state-0123.pt", ".gitignore.old")
    for name in (*kept, ".manifest.json." + "0" * 32, ".state-0123.pt." + "ab" * 16):
        (tmp_path / name).touch()
    storage.sweep(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    storage.sweep(str(tmp_path / "absent"))


def test_of_many_that_create_a_file_one_does(tmp_path: Path) -> None:
    def create(number: int) -> list[bool]:
        return [storage.create(str(tmp_path / "new" / f"file{place}"), f"{number}".encode()) for place in range(50)]

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    for place, of_file in enumerate(zip(*created, strict=True)):
        assert sum(of_file) == 1
        assert storage.read_bytes(str(tmp_path / "new" / f"file{place}")) == str(of_file.index(True)).encode()
    assert len(list((tmp_path / "new").iterdir())) == 50
