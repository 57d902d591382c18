import errno
import gzip
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlspark import storage
from mlspark.errors import DamagedFile, DatasetError
from mlspark.streaming.snapshot import DataFile, Snapshot


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


VALUE = {"b": [1, 2.5, None, True], "a": {"x": "caf\u00e9 \U0001f600", "y": (1, 2)}}


def test_sealed_file_comes_back_and_every_change_of_it_is_noticed(tmp_path: Path) -> None:
    uri = str(tmp_path / "some.json")
    storage.write_sealed(uri, VALUE)
    content = (tmp_path / "some.json").read_bytes()
    assert storage.read_sealed(uri) == {"b": [1, 2.5, None, True], "a": {"x": "caf\u00e9 \U0001f600", "y": [1, 2]}}
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0x40  # a blank becomes a sign, a line end does
        (tmp_path / "some.json").write_bytes(bytes(changed))
        with pytest.raises(DamagedFile, match=r"some\.json: (damaged|changed since it was written): "):
            storage.read_sealed(uri)
    for size in range(len(content) - 1):  # without the line end at its end it is whole
        (tmp_path / "some.json").write_bytes(content[:size])
        with pytest.raises(DamagedFile, match=r"some\.json: "):
            storage.read_sealed(uri)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"b": 1}', '{"sha256": null}', '{"sha256": {}}', "\ufeff{}"])
def test_file_without_a_seal_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "some.json").write_text(content)
    with pytest.raises(DamagedFile):
        storage.read_sealed(str(tmp_path / "some.json"))


def test_damaged_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    snapshot = Snapshot("/table", 3, {"fields": []}, (DataFile("a.parquet", 100, {"split": "train"}, (5, 6)),))
    snapshot.save(str(file))
    assert Snapshot.load(str(file)) == snapshot
    content = json.loads(file.read_text())
    content["files"][0]["row_groups"][0] = 4
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"snapshot\.json: changed since it was written.*; take the snapshot anew"):
        Snapshot.load(str(file))
    with pytest.raises(DatasetError, match=r"absent\.json: no snapshot here"):
        Snapshot.load(str(tmp_path / "absent.json"))
