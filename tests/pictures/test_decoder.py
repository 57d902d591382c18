"""One decoder: Pillow's bits from the faster library, the same pixels by every way, refusals in words."""

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mlspark.errors import PictureError
from mlspark.pictures import decoder, headers
from mlspark.pictures.spec import PictureSpec

from ..conftest import REAL_DATA
from .corpus import ARITHMETIC, file_of, jpeg, oriented, png, scene

FOUR_FOUR_FOUR, FOUR_TWO_TWO, FOUR_TWO_ZERO = 0, 1, 2


def by_pillow(data: bytes, mode: str = "RGB") -> NDArray[np.uint8]:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


@pytest.mark.parametrize("is_progressive", [False, True])
@pytest.mark.parametrize("subsampling", [FOUR_FOUR_FOUR, FOUR_TWO_TWO, FOUR_TWO_ZERO])
@pytest.mark.parametrize("size", [(48, 32), (33, 17), (1, 1), (7, 200)])
def test_a_jpeg_has_the_bits_of_pillow(size: tuple[int, int], subsampling: int, is_progressive: bool) -> None:
    for quality in (30, 75, 95):
        data = file_of(
            scene(*size, seed=quality), "JPEG", quality=quality, subsampling=subsampling, progressive=is_progressive
        )
        np.testing.assert_array_equal(decoder.decode(data, "RGB"), by_pillow(data))
        np.testing.assert_array_equal(decoder.decode(data, "RGBA"), by_pillow(data, "RGBA"))
        brightness = Image.open(io.BytesIO(data))
        brightness.draft("L", size)  # the file's own brightness, not made of its colours
        np.testing.assert_array_equal(decoder.decode(data, "L")[:, :, 0], np.asarray(brightness))


def test_an_arithmetic_coded_jpeg_has_the_pixels_of_its_twin() -> None:
    data = ARITHMETIC.read_bytes()
    np.testing.assert_array_equal(decoder.decode(data, "RGB"), decoder.decode(jpeg(), "RGB"))
    np.testing.assert_array_equal(decoder.decode(data, "RGB"), by_pillow(data))


def test_a_grey_jpeg_has_the_bits_of_pillow_in_every_mode() -> None:
    data = file_of(scene().convert("L"), "JPEG")
    for mode in ("L", "RGB", "RGBA"):
        np.testing.assert_array_equal(decoder.decode(data, mode), by_pillow(data, mode))


def test_real_jpegs_have_the_bits_of_pillow() -> None:
    archive = REAL_DATA / "cifar10-jpeg" / "test.zip"
    if not archive.is_file():
        pytest.skip(f"no cifar10-jpeg in {REAL_DATA}: set MLSPARK_DATA")
    with zipfile.ZipFile(archive) as opened:
        members = [member for member in opened.infolist() if member.filename.endswith(".jpg")]
        files = [opened.read(member) for member in members[:200]]
    assert len(files) == 200
    for data in files:
        np.testing.assert_array_equal(decoder.decode(data, "RGB"), by_pillow(data))


def test_cmyk_is_what_pillow_makes_of_it() -> None:
    data = file_of(scene().convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decoder.decode(data, "RGB"), by_pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says(kind: str, orientation: int) -> None:
    data = oriented(orientation, kind)
    opened = Image.open(io.BytesIO(data))
    expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_array_equal(decoder.decode(data, "RGB"), expected)
    if kind != "TIFF":  # whose orientation belongs to the format
        assert decoder.probe(data).orientation == orientation
        np.testing.assert_array_equal(decoder.decode(data, "RGB", orientation=False), by_pillow(data))


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((640, 480), (480, 640), (480, 640)),
        ((640, 480), (240, 320), (240, 320)),
        ((640, 480), (241, 320), (480, 640)),
        ((640, 480), (100, 100), (120, 160)),
        ((640, 480), (1, 1), (60, 80)),
        ((643, 485), (243, 322), (243, 322)),
        ((643, 485), (244, 322), (485, 643)),
        ((9, 9), (1, 1), (2, 2)),
        ((1, 300), (1, 1), (38, 1)),
        ((640, 480), (1000, 1000), (480, 640)),
    ],
)
def test_a_jpeg_is_reduced_by_2_4_or_8_and_no_further_than_asked(
    size: tuple[int, int], at_least: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = file_of(scene(*size), "JPEG")
    assert decoder.decode(data, "RGB", at_least=at_least).shape == (*expected, 3)


def test_a_reduced_picture_has_the_bits_of_pillow_and_sides_as_seen() -> None:
    data = file_of(scene(640, 480), "JPEG")
    reduced = Image.open(io.BytesIO(data))
    reduced.draft("RGB", (160, 120))
    np.testing.assert_array_equal(decoder.decode(data, "RGB", at_least=(120, 160)), np.asarray(reduced))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = file_of(scene(640, 480), "JPEG", exif=exif)
    assert decoder.decode(turned, "RGB", at_least=(320, 240)).shape == (320, 240, 3)
    assert decoder.decode(turned, "RGB", at_least=(240, 320)).shape == (640, 480, 3)


def test_sixteen_bits_become_their_upper_eight() -> None:
    grey = np.array([[0, 255, 256, 1000, 32768, 65535]], np.uint16)
    data = file_of(Image.fromarray(grey), "PNG")
    assert decoder.probe(data).mode == "L;16"
    assert decoder.decode(data, "L")[0, :, 0].tolist() == [0, 0, 1, 3, 128, 255]
    assert decoder.decode(data, "RGB")[0, 3].tolist() == [3, 3, 3]
    colours = png(2, 1, bits=16, colours=2, row=bytes([3, 232, 0, 255, 255, 0]) * 2)
    assert decoder.probe(colours).mode == "RGB;16"
    assert decoder.decode(colours, "RGB")[0].tolist() == [[3, 0, 255]] * 2


def test_transparent_pixels_keep_their_colour() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 0])
    picture.putpixel((1, 0), 1)
    for transparency in (bytes([0, 128]), 0):
        data = file_of(picture, "PNG", transparency=transparency)
        assert decoder.probe(data).has_transparency
        assert decoder.decode(data, "RGB")[0].tolist() == [[10, 20, 30], [200, 100, 0]]
        alpha = 128 if isinstance(transparency, bytes) else 255
        assert decoder.decode(data, "RGBA")[0].tolist() == [[10, 20, 30, 0], [200, 100, 0, alpha]]
    grey = file_of(Image.merge("LA", [Image.new("L", (1, 1), 7), Image.new("L", (1, 1), 0)]), "PNG")
    assert decoder.decode(grey, "L").tolist() == [[[7]]]
    assert decoder.decode(grey, "RGB").tolist() == [[[7, 7, 7]]]
    assert decoder.decode(grey, "RGBA").tolist() == [[[7, 7, 7, 0]]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_pixels_are_contiguous_and_can_be_written_to(kind: str) -> None:
    data = file_of(scene(), kind)
    for mode in ("L", "RGB", "RGBA"):
        for content in (data, memoryview(data)):
            pixels = decoder.decode(content, mode)
            assert pixels.flags.c_contiguous
            assert pixels.flags.writeable
        tensor = decoder.encoded(data, PictureSpec(mode, 32, 48))
        assert tensor.flags.c_contiguous
        assert tensor.flags.writeable
        np.testing.assert_array_equal(tensor, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_is_resized_as_pillow_does(kind: str) -> None:
    data = file_of(scene(90, 60), kind)
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos"):
        how = Image.Resampling[interpolation.upper()]
        exact = decoder.encoded(data, PictureSpec("RGB", 30, 30, "exact", interpolation))
        np.testing.assert_array_equal(exact, np.asarray(whole.resize((30, 30), how)).transpose(2, 0, 1))
        crop = decoder.encoded(data, PictureSpec("RGB", 30, 30, "crop", interpolation))
        middle = whole.resize((30, 30), how, box=(15, 0, 75, 60))
        np.testing.assert_array_equal(crop, np.asarray(middle).transpose(2, 0, 1))
        pad = decoder.encoded(data, PictureSpec("RGB", 30, 30, "pad", interpolation))
        np.testing.assert_array_equal(pad[:, 5:25], np.asarray(whole.resize((30, 20), how)).transpose(2, 0, 1))
        assert not pad[:, :5].any()
        assert not pad[:, 25:].any()


@pytest.mark.parametrize("size", [(1, 500), (500, 1), (3, 2), (224, 224), (37, 91)])
@pytest.mark.parametrize("resize", ["exact", "crop", "pad"])
def test_every_size_becomes_the_size_of_the_tensor(size: tuple[int, int], resize: str) -> None:
    for kind in ("JPEG", "PNG"):
        for height, width in ((32, 32), (5, 70), (1, 1)):
            spec = PictureSpec("RGB", height, width, resize)  # type: ignore[arg-type]
            assert decoder.encoded(file_of(scene(*size), kind), spec).shape == (3, height, width)


def test_a_table_holds_the_file_or_the_tensor_and_both_give_the_same_pixels() -> None:
    data = file_of(scene(), "JPEG")
    as_file, as_pixels = (PictureSpec("RGB", 16, 24, store=store) for store in ("encoded", "pixels"))  # type: ignore[arg-type]
    tensor = decoder.encoded(data, as_file)
    np.testing.assert_array_equal(decoder.from_stored(data, as_file), tensor)
    np.testing.assert_array_equal(decoder.from_stored(tensor.tobytes(), as_pixels), tensor)
    with pytest.raises(PictureError, match=r"3 bytes are no tensor of \(3, 16, 24\), which has 1,152"):
        decoder.from_stored(b"abc", as_pixels)


def test_pictures_that_look_alike_share_most_of_a_hash() -> None:
    picture = scene(120, 80)
    of_file = decoder.perceptual_hash(file_of(picture, "PNG"))
    again = decoder.perceptual_hash(file_of(picture.resize((90, 60)), "JPEG", quality=60))
    other = decoder.perceptual_hash(file_of(ImageOps.mirror(picture), "PNG"))
    assert (of_file ^ again).bit_count() <= 4
    assert (of_file ^ other).bit_count() >= 20


def test_the_version_names_both_libraries() -> None:
    import simplejpeg

    assert decoder.version() == f"simplejpeg {simplejpeg.__version__}, Pillow {Image.__version__}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no picture that can be read (no bytes at all); read are jpeg, png, gif, webp, bmp, tiff, avif"),
        ("name,age\nZoë,3\n".encode() * 100, "(text)"),
        (b"<?xml version='1.0'?><svg></svg>", "(SVG)"),
        (b"%PDF-1.7 ...", "(a PDF document)"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "(HEIC)"),
        (bytes(range(128, 256)), "(unknown)"),
        (file_of(scene(), "JPEG")[:-2], "jpeg: cannot be decoded: "),
        (file_of(scene(), "JPEG")[:700], "jpeg: cannot be decoded: "),
        (file_of(scene(), "JPEG")[:100], "jpeg: the file ends within its header"),
        (file_of(scene(), "PNG")[:-500], "png: cannot be decoded: "),
        (file_of(scene(), "WEBP")[:-50], "webp: "),
        (file_of(scene(), "PNG")[:20], "png: the file ends within its header"),
        (
            png(20_000, 20_000, bits=1),
            "png: 20000 x 20000 pixels, more than 100,000,000, or 1,000,000 of a side, which nothing here decodes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)
def test_what_cannot_be_read_is_refused_in_words(data: bytes, message: str) -> None:
    with pytest.raises(PictureError) as refused:
        decoder.decode(data, "RGB")
    assert message in str(refused.value)
    with pytest.raises(PictureError) as refused_again:
        decoder.check_decodes(data)
    assert str(refused_again.value) == str(refused.value)


def test_a_header_is_the_same_whatever_was_read_before_it() -> None:
    def told(read: Callable[[], headers.JpegHeader]) -> headers.JpegHeader | str:
        try:
            return read()
        except PictureError as error:
            return str(error)

    files = [jpeg(), jpeg(progressive=True), oriented(6), oriented(3), file_of(scene(31, 18).convert("L"), "JPEG")]
    # The start of one is the start of another: cut off anywhere, and with more behind the cut.
    cuts = [file[:length] for file in files for length in range(4, file.index(b"\xff\xda") + 6)]
    longer = [cut + other[2:] for cut in cuts[::7] for other in files[2:4]]
    for data in (*files, *cuts, *longer, *files):
        expected = told(lambda data=data: headers._jpeg_header(data)[0])  # type: ignore[misc]
        for _ in range(2):
            assert told(lambda data=data: headers.jpeg_header(data)) == expected  # type: ignore[misc]
