"""Made-up pictures of a few shapes, some of them broken on purpose, for trying things without a network.

`write` makes `pictures/train.zip`, with members like circle/00012.jpg, and the folder `pictures/test` of the same kind,
so that both kinds of source have something to read. Shapes have any colour, size and place, on a background with noise;
files are JPEG, PNG, grey, of a palette, of four inks, or turned by their EXIF, and between 28 and 56 pixels wide. The same
arguments yield the same bytes.
"""

import io
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlspark.datasets.made_up import Written, bad_of_train

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

CLASSES = ("circle", "cross", "square", "stripes")
_MADE_AT = (1980, 1, 1, 0, 0, 0)
_TURNED_BY_QUARTER = 6
"""EXIF's number of a picture that is to be turned clockwise."""

Mask = NDArray[np.bool_]


def write(
    folder: Path, *, num_train: int = 1200, num_test: int = 400, seed: int = 0, bad_pictures: int = 32
) -> Written:
    """Return the counts of what was written below `folder`/pictures, about a millisecond and a kilobyte a picture.

    The zip and the folder get their names when they are complete.

    Args:
        folder: what MLSPARK_DATA names.
        num_train: members of train.zip, broken ones included.
        num_test: files of the folder test, broken ones included.
        seed: another seed, other pictures.
        bad_pictures: broken ones over both, in proportion, as many of one kind of `BAD_KINDS` as of the next.

    Raises:
        ConfigError: more broken pictures than pictures, or a number below 0.
    """
    bad_train = bad_of_train(num_train, num_test, bad_pictures, seed, what="pictures")
    target = folder / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    part = target / ".train.zip.part"
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in _files(num_train, bad_train, np.random.default_rng([seed, 0]), 0):
            archive.writestr(zipfile.ZipInfo(name, _MADE_AT), content)
    part.replace(target / "train.zip")
    part = target / ".test.part"
    shutil.rmtree(part, ignore_errors=True)
    for name, content in _files(num_test, bad_pictures - bad_train, np.random.default_rng([seed, 1]), bad_train):
        file = part / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    shutil.rmtree(target / "test", ignore_errors=True)
    part.replace(target / "test")
    return Written(num_train, num_test, bad_pictures)


def _files(count: int, num_bad: int, rng: np.random.Generator, turn: int) -> Iterator[tuple[str, bytes]]:
    """Yield (CLASS/NUMBER.EXTENSION, content) of each picture."""
    bad = dict.fromkeys(rng.permutation(count)[:num_bad].tolist())
    for number, place in enumerate(sorted(bad)):
        bad[place] = list(BAD_KINDS.values())[(turn + number) % len(BAD_KINDS)]
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        picture = _picture(label, rng)
        make = bad.get(number) or _FORMS[int(rng.integers(len(_FORMS)))]
        extension, content = make(picture)
        yield f"{label}/{number:05d}.{extension}", content


def _picture(label: str, rng: np.random.Generator) -> "Picture":
    from PIL import Image

    height, width = (int(side) for side in rng.integers(28, 57, 2))
    rows, columns = np.mgrid[0:height, 0:width]
    half = min(height, width) * rng.uniform(0.25, 0.42)
    y = (rows - rng.uniform(half, height - half)) / half
    x = (columns - rng.uniform(half, width - half)) / half
    mask = _MASKS[label](y, x)
    back, front = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    while abs(int(back.sum()) - int(front.sum())) < 200:  # grey ones must tell them apart, too
        back, front = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
    pixels = np.where(mask[:, :, np.newaxis], front, back) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


_MASKS: Mapping[str, Callable[[NDArray[np.float64], NDArray[np.float64]], Mask]] = {
    "circle": lambda y, x: y * y + x * x <= 1,
    "cross": lambda y, x: (np.maximum(abs(y), abs(x)) <= 1) & (np.minimum(abs(y), abs(x)) <= 0.3),
    "square": lambda y, x: np.maximum(abs(y), abs(x)) <= 0.9,
    "stripes": lambda y, x: (np.maximum(abs(y), abs(x)) <= 1) & (np.floor((y + 1) * 2.5) % 2 == 0),
}


def _saved(picture: "Picture", kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _jpeg(picture: "Picture") -> tuple[str, bytes]:
    return "jpg", _saved(picture, "JPEG", quality=88)


def _turned(picture: "Picture") -> tuple[str, bytes]:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = _TURNED_BY_QUARTER
    return "jpg", _saved(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=88, exif=exif)


_FORMS: tuple[Callable[["Picture"], tuple[str, bytes]], ...] = (
    _jpeg,
    _jpeg,
    _jpeg,
    _turned,
    lambda picture: ("png", _saved(picture, "PNG")),
    lambda picture: ("jpg", _saved(picture.convert("L"), "JPEG", quality=88)),
    lambda picture: ("png", _saved(picture.quantize(16), "PNG")),
    lambda picture: ("jpg", _saved(picture.convert("CMYK"), "JPEG", quality=88)),
    lambda picture: ("jpg", _saved(picture, "PNG")),  # another format than its name says, and good
)


def _bomb(picture: "Picture") -> tuple[str, bytes]:
    """Return a PNG of few bytes whose header promises 3.6 billion pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    start = b"\x89PNG\r\n\x1a\n"
    return "png", start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _sixteen_bits(picture: "Picture") -> tuple[str, bytes]:
    from PIL import Image

    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    return "png", _saved(Image.fromarray(grey), "PNG")


def _animated(picture: "Picture") -> tuple[str, bytes]:
    return "gif", _saved(picture, "GIF", save_all=True, append_images=[picture.rotate(30)], duration=100)


def _cut_off(picture: "Picture") -> tuple[str, bytes]:
    _, content = _jpeg(picture)
    return "jpg", content[: len(content) * 2 // 3]


BAD_KINDS: Mapping[str, Callable[["Picture"], tuple[str, bytes]]] = {
    "cut off": _cut_off,
    "no bytes": lambda picture: ("jpg", b""),
    "text": lambda picture: ("jpg", b"<html>404 not found</html>\n"),
    "a bomb": _bomb,
    "an animation": _animated,
    "sixteen bits": _sixteen_bits,
    "zeros in the middle": lambda picture: ("png", _holed(_saved(picture, "PNG"))),
}
"""Ways in which a picture is broken -> function of a good picture that returns (extension, content)."""


def _holed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(200) + content[middle + 200 :]
