"""What a picture must be: every odd kind is read as declared or refused with its reason, in bounded memory."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mlspark.pictures import decoder, media
from mlspark.pictures.media import Media

from ..conftest import ROOT
from .corpus import CORPUS, Odd, animation, file_of, half, png, scene

DOCUMENTED = ROOT / "docs" / "pictures.md"


def declared(odd: Odd) -> Media:
    return Media.model_validate_json(json.dumps(odd.media))


@pytest.mark.parametrize("odd", CORPUS, ids=lambda odd: odd.kind)
def test_an_odd_picture_is_read_as_declared_or_refused_by_its_rule(odd: Odd) -> None:
    data = odd.make()
    broken = media.problem(data, declared(odd))
    assert (broken[0] if broken else "") == odd.rule
    if broken:
        assert "object at 0x" not in broken[1]
        assert len(broken[1]) < 300
        return
    pixels = decoder.decode(data, "RGB")
    if odd.like is not None:
        expected = np.asarray(odd.like().convert("RGB")).astype(np.int16)
        assert pixels.shape == expected.shape
        assert np.abs(pixels - expected).mean() < 12


def test_the_page_says_what_becomes_of_each_kind() -> None:
    """The table of kinds in docs/pictures.md is what is computed here; a failure shows the rows to put there."""
    rows = []
    for odd in CORPUS:
        data = odd.make()
        broken = media.problem(data, declared(odd))
        if broken is None:
            picture = decoder.probe(data)
            became = f"{picture.format} {picture.mode}, {picture.width} x {picture.height}"
            rows.append(f"| {odd.kind} | {became}{'; ' if odd.note else ''}{odd.note} | |")
        else:
            rule, what = broken
            # The library's own words change with its version.
            shown = re.sub(r"(cannot be decoded|cannot be read): .*", r"\1", what)
            rows.append(f"| {odd.kind} | {odd.note} | `{rule}`: {shown} |".replace("|  |", "| |"))
    written = [line for line in DOCUMENTED.read_text().splitlines() if line.startswith("| ")]
    assert written[-len(rows) :] == rows, "\n".join(["the rows of docs/pictures.md are:", *rows])


def test_settings_that_contradict_are_refused() -> None:
    with pytest.raises(ValidationError, match="min_pixels 10 is more than max_pixels 5"):
        Media(min_pixels=10, max_pixels=5)
    with pytest.raises(ValidationError, match="less than or equal to 100000000"):
        Media(max_pixels=100_000_001)


def test_sixteen_bits_floats_and_frames_are_read_where_they_are_declared() -> None:
    sixteen = file_of(Image.fromarray(np.full((4, 4), 1000, np.uint16)), "PNG")
    assert media.problem(sixteen, Media(modes=("L;16",))) is None
    for kind in ("GIF", "PNG", "WEBP", "AVIF"):
        data = animation(kind)
        assert media.problem(data, Media(max_frames=3)) is None
        assert media.problem(data, Media(max_frames=2))[0] == media.FRAMES  # type: ignore[index]
        first = decoder.decode(data, "RGB").astype(np.int16)
        assert np.abs(first - np.asarray(scene()).astype(np.int16)).mean() < 20


def test_a_header_alone_is_read_where_decoding_is_not_asked_for() -> None:
    cut_off = half("JPEG")
    assert media.problem(cut_off, Media(decodes=False)) is None
    assert media.header_problem(cut_off, Media()) is None
    assert media.problem(cut_off, Media())[0] == media.DECODES  # type: ignore[index]
    assert media.problem(None, Media()) is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {}),
    ],
)
def test_a_file_cut_off_anywhere_is_refused(kind: str, options: dict[str, Any]) -> None:
    data = file_of(scene(), kind, **options)
    assert media.problem(data, Media()) is None
    no_pixel = 2 if kind == "GIF" else 0  # its last bytes say that it ends
    taken = [cut for cut in range(len(data) - no_pixel) if media.problem(data[:cut], Media()) is None]
    assert not taken, f"of {len(data)} bytes the first {taken} are taken for a whole picture"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_whatever_bytes_are_changed_the_verdict_is_a_verdict(kind: str) -> None:
    """Nothing but a rule and words comes of damage, and what is taken decodes in every mode, to the size of its header."""
    random = np.random.default_rng(7)
    data = file_of(scene(), kind)
    for _ in range(150):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        broken = media.problem(bytes(damaged), Media())
        if broken is None:
            picture = decoder.probe(damaged)
            for mode in ("L", "RGB", "RGBA"):
                pixels = decoder.decode(damaged, mode, orientation=False)
                assert pixels.shape[:2] == (picture.height, picture.width)
        else:
            assert broken[0] in (media.FORMAT, media.PIXELS, media.FRAMES, media.MODE, media.DECODES)


PEAK = """
import sys
from pathlib import Path
from mlspark.pictures import media
from mlspark.pictures.media import Media
for path in sys.argv[2:]:
    problem = media.problem(Path(path).read_bytes(), Media(max_pixels=int(sys.argv[1])))
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    print(Path(path).name, problem, int(peak.split()[1]) // 1024, sep="; ")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")  # ru_maxrss is that of the parent, too
def test_checking_the_largest_pictures_takes_less_than_600_mb(tmp_path: Path) -> None:
    largest = scene(64, 64).resize((8_000, 6_250))  # 50 megapixels
    files = {
        "bomb.png": png(20_000, 20_000, bits=1),
        "colours.png": png(8_000, 6_250, colours=2),
        "alpha.png": png(8_000, 6_250, colours=6),
        "large.jpg": file_of(largest, "JPEG", quality=50),
        "progressive.jpg": file_of(largest, "JPEG", quality=50, progressive=True, subsampling=0),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", PEAK, "50000000", *(str(tmp_path / name) for name in files)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    peaks = [int(line.split("; ")[-1]) for line in ended.stdout.splitlines()]
    assert len(peaks) == len(files)
    assert max(peaks) < 600, ended.stdout
    assert ended.stdout.count("; None; ") == len(files) - 1
