"""CIFAR-10 as it was published, records of bytes, made into zips of PNG files that sources can read. Runs anywhere."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlspark.errors import SourceError

ARCHIVE = "cifar-10-binary.tar.gz"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE * _SIDE
_MADE_AT = (1980, 1, 1, 0, 0, 0)
"""Time of each member, so that the same pictures make the same bytes."""


def write_zips(folder: Path) -> list[str]:
    """Return the names of the zips made in `folder` of its `ARCHIVE`; those that are there are left alone.

    train.zip and test.zip have a member like train/airplane/00029.png for each record, numbered in its split from 0:
    lossless, RGB, 32 x 32. A zip gets its name when all of it is there.

    Raises:
        SourceError: the archive does not hold what was published.
    """
    made = []
    for split, names in _FILES.items():
        target = folder / f"{split}.zip"
        if target.exists():
            continue
        part = folder / f".{split}.zip.part"
        with tarfile.open(folder / ARCHIVE) as archive, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as pictures:
            for number, (label, content) in enumerate(_records(archive, names)):
                member = zipfile.ZipInfo(f"{split}/{CLASSES[label]}/{number:05d}.png", _MADE_AT)
                pictures.writestr(member, content)
        part.rename(target)
        made.append(target.name)
    return made


def _records(archive: tarfile.TarFile, names: list[str]) -> Iterator[tuple[int, bytes]]:
    """Yield (label, PNG) of each record of the files `names`, in order."""
    from PIL import Image

    members = {Path(member.name).name: member for member in archive if member.isfile()}
    for name in names:
        file = archive.extractfile(members[name]) if name in members else None
        content = file.read() if file is not None else b""
        records = np.frombuffer(content[: len(content) // _RECORD_BYTES * _RECORD_BYTES], np.uint8)
        if not len(records) or len(content) % _RECORD_BYTES:
            raise SourceError(
                f"{ARCHIVE}: {name}: {len(content)} bytes, expected records of {_RECORD_BYTES}; fetch it again"
            )
        for record in records.reshape(-1, _RECORD_BYTES):
            if record[0] >= len(CLASSES):
                raise SourceError(
                    f"{ARCHIVE}: {name}: label {record[0]}, expected 0 to {len(CLASSES) - 1}; fetch it again"
                )
            png = io.BytesIO()
            pixels = record[1:].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
            Image.fromarray(np.ascontiguousarray(pixels)).save(png, "PNG", compress_level=1)
            yield int(record[0]), png.getvalue()
