"""Public data sets of pictures and made-up ones: what is fetched is what was published, what is broken is so on purpose."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlspark.datasets import cifar10, pictures_like
from mlspark.datasets.known import DATA_SETS
from mlspark.errors import ConfigError, SourceError
from mlspark.pictures.media import Media, problem

from ..conftest import REAL_DATA


def test_the_real_mnist_files_are_those_that_are_fetched() -> None:
    folder = REAL_DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set MLSPARK_DATA, or run mlspark fetch mnist")
    for file in DATA_SETS["mnist"].files:
        content = (folder / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.num_bytes, file.sha256)


def archive(folder: Path, records: bytes, *, last: bytes = b"") -> None:
    """A CIFAR-10 archive whose batches have so few records."""
    with tarfile.open(folder / cifar10.ARCHIVE, "w:gz") as written:
        for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
            content = records + (last if name == "test_batch.bin" else b"")
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            written.addfile(member, io.BytesIO(content))


def test_cifar_becomes_zips_of_lossless_pictures(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    archive(
        tmp_path, b"".join(bytes([label]) + picture.tobytes() for label, picture in zip((8, 3), pixels, strict=True))
    )
    assert cifar10.write_zips(tmp_path) == ["train.zip", "test.zip"]
    with zipfile.ZipFile(tmp_path / "train.zip") as train:
        assert len(train.namelist()) == 10
        assert train.namelist()[:3] == ["train/ship/00000.png", "train/cat/00001.png", "train/ship/00002.png"]
        second = np.asarray(Image.open(io.BytesIO(train.read("train/cat/00001.png"))))
    np.testing.assert_array_equal(second.transpose(2, 0, 1), pixels[1])
    before = (tmp_path / "test.zip").read_bytes()
    (tmp_path / "test.zip").unlink()
    assert cifar10.write_zips(tmp_path) == ["test.zip"]
    assert (tmp_path / "test.zip").read_bytes() == before


@pytest.mark.parametrize(("last", "message"), [(b"\0" * 7, "7 bytes|6153 bytes"), (b"\x0a" + bytes(3072), "label 10")])
def test_a_cifar_archive_of_something_else_is_refused(tmp_path: Path, last: bytes, message: str) -> None:
    archive(tmp_path, bytes(2 * 3073), last=last)
    with pytest.raises(SourceError, match=message):
        cifar10.write_zips(tmp_path)
    assert not (tmp_path / "test.zip").exists()


def test_made_up_pictures_are_the_same_bytes_and_broken_as_told(tmp_path: Path) -> None:
    for name in ("one", "two"):
        written = pictures_like.write(tmp_path / name, num_train=80, num_test=24, bad_pictures=14)
    assert (written.num_train, written.num_test, written.num_bad) == (80, 24, 14)
    files = {path.relative_to(tmp_path / "one"): path for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert len(files) == 1 + 24
    for relative, path in files.items():
        assert path.read_bytes() == (tmp_path / "two" / relative).read_bytes()
    with zipfile.ZipFile(tmp_path / "one" / "pictures" / "train.zip") as train:
        contents = [train.read(name) for name in train.namelist()]
    contents += [path.read_bytes() for path in files.values() if path.name != "train.zip"]
    broken = [found[0] for content in contents if (found := problem(content, Media(max_pixels=1_000_000)))]
    assert len(broken) == 14
    assert set(broken) == {
        "media.bytes", "media.decodes", "media.format", "media.frames", "media.mode", "media.pixels",
    }  # fmt: skip
    assert {relative.parent.name for relative in files} == {*pictures_like.CLASSES, "pictures"}


def test_more_bad_pictures_than_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="bad_pictures=3"):
        pictures_like.write(tmp_path, num_train=1, num_test=1, bad_pictures=3)
