"""Files on remote stores: as few bytes as where archives are divided asks for, each fetched once where that can be."""

import io
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow import fs

from mlspark import storage
from mlspark.sources import archives, binary_rows, opened_files, tar_members
from mlspark.sources.members import Archive
from mlspark.sources.source import Part, Source
from tests.sources.picture_files import tar_bytes


class Counting(io.BytesIO):
    """A file that counts what is fetched of it."""

    num_bytes = num_reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self.num_bytes += len(found)
        self.num_reads += 1
        return found


def test_a_remote_file_is_what_it_is_however_it_is_read() -> None:
    draw = random.Random(0)
    content = draw.randbytes(5_000_000)
    file = io.BufferedReader(opened_files.Sparing(Counting(content)), 2**20)
    for _ in range(300):
        place = draw.choice([draw.randrange(len(content) + 10), min(file.tell() + draw.randrange(100), len(content))])
        size = draw.choice([1, 512, 70_000, 2_000_000])
        file.seek(place)
        assert file.read(size) == content[place : place + size]
    assert file.seek(-3, io.SEEK_END) == len(content) - 3
    assert file.read() == content[-3:]


def test_large_members_are_skipped_and_small_ones_fetched_in_a_row() -> None:
    def planned(size: int, num: int) -> Counting:
        content = tar_bytes([(f"{number}.jpg", bytes(size)) for number in range(num)])
        counting = Counting(content)
        file = io.BufferedReader(opened_files.Sparing(counting), opened_files.REMOTE_BUFFER)
        assert len(tar_members.spans(Archive(file, len(content), 2**26), 2**22, None)) > 2
        return counting

    large, small = planned(3_000_000, 10), planned(10_000, 2000)
    assert large.num_bytes <= 11 * opened_files.LOCAL_BUFFER
    assert small.num_reads < 20


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Local files as if they were on a remote store, and the files that were opened."""
    opened: list[str] = []

    def counted(uri: str) -> Any:
        opened.append(Path(uri).name)
        return fs.LocalFileSystem(), uri

    monkeypatch.setattr(storage, "is_local", lambda uri: False)
    monkeypatch.setattr(storage, "filesystem", counted)
    return opened


def test_shards_of_webdataset_are_fetched_once(tmp_path: Path, remote: list[str]) -> None:
    members = [("1.jpg", b"x"), ("1.cls", b"3"), ("2.jpg", b"y"), ("1.txt", b"again")]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    piece = archives._to_bytes([archives._Item(str(tmp_path / "a.tar"), (tmp_path / "a.tar").stat().st_size)])
    rows = list(archives._keys(2**20, "", ("jpg", "cls"), piece))
    assert [(row["key"], row.get("jpg"), row["_mlspark_malformed"] is None) for row in rows] == [
        ("1", b"x", False), ("2", b"y", True), ("1", None, False),
    ]  # fmt: skip
    assert remote == ["a.tar"]


def test_remote_tars_are_looked_through_only_where_slots_would_be_idle(
    tmp_path: Path, remote: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spark = SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=2))
    planned: list[str] = []

    class Frame:
        def collect(self) -> list[Any]:
            return []

    def frame(spark: Any, items: list[bytes], *_: Any) -> Frame:
        planned.extend(Path(item.uri).name for piece in items for item in archives._from_bytes(piece))
        return Frame()

    monkeypatch.setattr(binary_rows, "frame", frame)
    size = 10 * binary_rows.TASK_BYTES
    settings = archives.ArchivesSettings(kind="archives", path=str(tmp_path))

    def large(*names: str) -> list[str]:
        planned.clear()
        source = Source(str(tmp_path), settings, tuple(Part(str(tmp_path / name), "", size) for name in names))
        archives._pieces.__wrapped__(spark, source)
        return planned

    many = [f"{number}.tar" for number in range(7)]
    assert large(*many) == []
    assert large(*many, "a.zip") == ["a.zip"]
    assert large("0.tar") == ["0.tar"]
    monkeypatch.setattr(storage, "is_local", lambda uri: True)
    assert large(*many) == many
