import gzip
from pathlib import Path

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
