"""Augmentation of batches of pictures, against torchvision and against sums by hand."""

import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from mlspark.errors import ConfigError
from mlspark.pictures import colours
from mlspark.pictures.augment import (
    Augmentation,
    ColorJitter,
    Crop,
    Erasing,
    Flip,
    RandAugment,
    ResizedCrop,
    TrivialAugment,
)
from mlspark.pictures.draws import draw
from mlspark.pictures.filling import Filling, UnreadablePicture
from mlspark.pictures.spec import PictureSpec

CHANCE = np.random.default_rng(0)
OPERATIONS = [
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
    "Posterize", "Solarize", "AutoContrast", "Equalize",
]  # fmt: skip


def photos(count: int, shape: tuple[int, int, int] = (3, 32, 32)) -> np.ndarray:
    """Smooth pictures, as photos are: noise is changed beyond recognition by any resize."""
    channels, height, width = shape
    small = CHANCE.integers(0, 255, (count, 5, 5, channels), dtype=np.uint8)
    images = [Image.fromarray(picture[:, :, 0] if channels == 1 else picture) for picture in small]
    pixels = [np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in images]
    return np.stack([picture.reshape(height, width, channels).transpose(2, 0, 1) for picture in pixels])


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    pixels = picture.transpose(1, 2, 0)
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(stream, kind, quality=95)
    return stream.getvalue()


def drawn(augmentation: Any, count: int, seed: int = 1) -> np.ndarray:
    return draw(seed, 0, np.arange(count), [augmentation.num_draws])[0]


def test_crop_moves_each_picture_by_up_to_the_padding_and_brings_zeros_in() -> None:
    before, crop = photos(300), Crop(padding=3)
    after, draws = before.copy(), drawn(crop, 300)
    crop.apply(after, draws)
    places = np.floor(draws * 7).astype(int)
    assert {tuple(place) for place in places} == {(y, x) for y in range(7) for x in range(7)}
    for picture, moved, (top, left) in zip(before, after, places, strict=True):
        padded = np.pad(picture, ((0, 0), (3, 3), (3, 3)))
        np.testing.assert_array_equal(moved, padded[:, top : top + 32, left : left + 32])


@pytest.mark.parametrize("width", [32, 12, 6, 5])  # by words of 8, 4, 2 and 1 pixels
def test_flip_mirrors_its_shares(width: int) -> None:
    before, flip = photos(400, (3, 8, width)), Flip(horizontal=0.3, vertical=0.6)
    after = before.copy()
    flip.apply(after, drawn(flip, 400))
    kinds = [
        [np.array_equal(picture, mirrored) for mirrored in (old, old[:, :, ::-1], old[:, ::-1], old[:, ::-1, ::-1])]
        for old, picture in zip(before, after, strict=True)
    ]
    assert np.array(kinds).sum(axis=1).tolist() == [1] * 400
    np.testing.assert_allclose(np.array(kinds).mean(axis=0), [0.28, 0.12, 0.42, 0.18], atol=0.07)


def test_erasing_paints_one_rectangle_within_its_bounds() -> None:
    erasing = Erasing(share=0.5, scale=(0.1, 0.3), ratio=(0.5, 2.0), value=7)
    pictures = np.full((400, 3, 40, 40), 200, np.uint8)
    erasing.apply(pictures, drawn(erasing, 400))
    num_erased = 0
    for picture in pictures:
        rows, columns = np.nonzero(picture[0] == 7)
        if len(rows):
            num_erased += 1
            rectangle = picture[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (rectangle == 7).all()
            height, width = rectangle.shape[1:]
            assert 0.09 <= height * width / 1600 <= 0.32
            assert 0.45 <= height / width <= 2.2
            assert (picture == 200).sum() == 3 * (1600 - height * width)
    assert 160 < num_erased < 240


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 100))
def test_parts_of_a_resized_crop_lie_within_pictures_of_any_size(height: int, width: int, seed: int) -> None:
    crop = ResizedCrop()
    boxes = crop.boxes(np.full((50, 2), (height, width)), drawn(crop, 50, seed))
    top, left, high, wide = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (high >= 1).all()
    assert (wide >= 1).all()
    assert (top + high <= height).all()
    assert (left + wide <= width).all()


def test_sizes_and_ratios_of_resized_crops_are_those_of_torchvision() -> None:
    crop = ResizedCrop()
    boxes = crop.boxes(np.full((4000, 2), (375, 500)), drawn(crop, 4000))
    torch.manual_seed(0)
    image, chosen = Image.new("L", (500, 375)), v2.RandomResizedCrop(224)
    theirs = np.array([list(chosen.make_params([image]).values()) for _ in range(4000)])
    for column in range(4):
        ours, other = np.sort(boxes[:, column]), np.sort(theirs[:, column])
        assert np.abs(ours - other).mean() < 8  # pixels between the two distributions
    assert (boxes[:, 2] * boxes[:, 3] >= 0.079 * 375 * 500).all()


@pytest.mark.parametrize("store", ["encoded", "pixels"])
def test_resized_crop_is_that_of_torchvision_at_the_same_place(store: str) -> None:
    shape = (3, 50, 70) if store == "encoded" else (3, 24, 24)
    pictures, crop = photos(20, shape), ResizedCrop(scale=(0.2, 1.0))
    spec = PictureSpec("RGB", 24, 24, store=store)
    values = [encoded(picture) if store == "encoded" else picture.tobytes() for picture in pictures]
    after, draws = np.zeros((20, 3, 24, 24), np.uint8), drawn(crop, 20)
    Filling(spec, (crop,)).fill(after, values, [draws])
    for picture, part, box in zip(pictures, after, crop.boxes(np.full((20, 2), shape[1:]), draws), strict=True):
        expected = functional.resized_crop(torch.from_numpy(picture), *box.tolist(), size=[24, 24])
        np.testing.assert_array_equal(part, expected.numpy())


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_parts_look_as_pillow_resizes_them(mode: Any, interpolation: Any) -> None:
    (picture,) = photos(1, (3, 60, 80))
    image, crop = Image.fromarray(picture.transpose(1, 2, 0)).convert(mode), ResizedCrop()
    stream = io.BytesIO()
    image.save(stream, "PNG")
    spec, draws = PictureSpec(mode, 24, 28, interpolation=interpolation), drawn(crop, 20)
    parts = np.zeros((20, *spec.shape), np.uint8)
    Filling(spec, (crop,)).fill(parts, [stream.getvalue()] * 20, [draws])
    for part, (top, left, high, wide) in zip(parts, crop.boxes(np.full((20, 2), (60, 80)), draws), strict=True):
        whole = image.crop((left, top, left + wide, top + high))
        expected = np.asarray(whole.resize((28, 24), Image.Resampling[interpolation.upper()])).astype(int)
        difference = np.abs(part - expected.reshape(24, 28, -1).transpose(2, 0, 1))
        assert difference.max() <= (2 if interpolation == "bicubic" else 1)


def test_a_large_jpeg_is_decoded_smaller_for_a_small_part_and_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    (picture,), sizes = photos(1, (3, 480, 640)), []
    spec, crop = PictureSpec("RGB", 32, 32), ResizedCrop(scale=(0.5, 1.0))
    from mlspark.pictures import decoder

    decode = decoder.decode

    def noting(*arguments: Any, **options: Any) -> np.ndarray:
        pixels = decode(*arguments, **options)
        sizes.append(pixels.shape)
        return pixels

    monkeypatch.setattr(decoder, "decode", noting)
    after, draws = np.zeros((10, 3, 32, 32), np.uint8), drawn(crop, 10)
    Filling(spec, (crop,)).fill(after, [encoded(picture, "JPEG")] * 10, [draws])
    assert max(sizes) <= (240, 320, 3)
    for part, (top, left, high, wide) in zip(after, crop.boxes(np.full((10, 2), (480, 640)), draws), strict=True):
        whole = Image.fromarray(picture.transpose(1, 2, 0)).crop((left, top, left + wide, top + high))
        expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        assert np.abs(part.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("which", range(14))
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operations_are_those_of_torchvision(mode: str, which: int, sign: float) -> None:
    image = Image.fromarray(photos(1)[0].transpose(1, 2, 0)).convert(mode)
    for theirs, ours in ((v2.RandAugment, colours._RAND), (v2.TrivialAugmentWide, colours._TRIVIAL)):
        transform = theirs()
        magnitudes, is_signed = transform._AUGMENTATION_SPACE[OPERATIONS[which]]
        for level in (0, 9, 30):
            magnitude = 0.0 if magnitudes(31, 32, 32) is None else float(magnitudes(31, 32, 32)[level])
            expected = transform._apply_image_or_video_transform(
                image,
                OPERATIONS[which],
                magnitude * (sign if is_signed else 1),
                interpolation=v2.InterpolationMode.NEAREST,
                fill=transform._fill,
            )
            changed = np.asarray(ours[which](image, level / 30, sign)).astype(int)
            difference = np.abs(changed - np.asarray(expected))  # they round the strength to float32
            assert difference.max() <= 1
            assert difference.mean() < 0.05


def test_jitter_changes_in_the_drawn_order() -> None:
    (picture,) = photos(1)
    image = Image.fromarray(picture.transpose(1, 2, 0))
    jittered = colours.jittered(image, (0.4, 0.3, 0.2, 0.1), [0.0, 1.0, 0.5, 0.25, 0.9, 0.1, 0.3, 0.2])
    expected = functional.adjust_contrast(image, 1.3)  # order: contrast, hue, saturation, brightness
    expected = functional.adjust_hue(expected, -0.05)
    expected = functional.adjust_saturation(expected, 1.0)
    expected = functional.adjust_brightness(expected, 0.6)
    np.testing.assert_array_equal(np.asarray(jittered), np.asarray(expected))
    assert colours.jittered(image, (0.0, 0.0, 0.0, 0.0), [0.5] * 8) is image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation",
    [
        Crop(),
        ResizedCrop(),
        Flip(horizontal=0.7, vertical=0.4),
        ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
        RandAugment(),
        TrivialAugment(),
        Erasing(),
    ],
    ids=lambda augmentation: augmentation.kind,
)
def test_a_picture_is_changed_in_the_same_way_in_any_batch(augmentation: Any, channels: int) -> None:
    pictures = photos(12, (channels, 16, 20))
    filling = Filling(PictureSpec("RGB" if channels == 3 else "L", 16, 20, store="pixels"), (augmentation,))
    draws, together = drawn(augmentation, 12), pictures.copy()
    filling.change(together, [draws])
    assert not np.array_equal(together, pictures)
    alone = pictures.copy()
    for row in reversed(range(12)):
        filling.change(alone[row : row + 1], [draws[row : row + 1]])
    np.testing.assert_array_equal(alone, together)


def test_a_picture_that_cannot_be_read_is_named_by_its_number() -> None:
    values = [encoded(picture) for picture in photos(3)]
    values[1] = values[1][:200]
    for augment in ((), (ResizedCrop(),)):
        filling = Filling(PictureSpec("RGB", 32, 32), augment)
        draws = [drawn(augmentation, 3) for augmentation in augment]
        with pytest.raises(UnreadablePicture, match="png: ") as error:
            filling.fill(np.zeros((3, 3, 32, 32), np.uint8), values, draws)
        assert error.value.number == 1


def test_settings_go_through_json_and_are_refused_where_they_are_wrong() -> None:
    adapter = TypeAdapter(tuple[Augmentation, ...])
    text = '[{"kind": "resized_crop", "scale": [0.3, 1]}, {"kind": "flip"}, {"kind": "rand_augment", "magnitude": 5}]'
    read = adapter.validate_json(text)
    assert read == (ResizedCrop(scale=(0.3, 1.0)), Flip(), RandAugment(magnitude=5))
    assert adapter.validate_json(json.dumps(adapter.dump_python(read, mode="json"))) == read
    for wrong in ('{"kind": "blur"}', '{"kind": "crop", "padding": 0}', '{"kind": "erasing", "scale": [0.5, 0.1]}'):
        with pytest.raises(ValidationError):
            adapter.validate_json(f"[{wrong}]")


@pytest.mark.parametrize(
    ("mode", "augment", "message"),
    [
        ("RGB", (Flip(), ResizedCrop()), "augment of photo: resized_crop is number 2; .* put it first"),
        ("RGBA", (RandAugment(),), "augment of photo: rand_augment changes pictures of mode L and RGB, not RGBA"),
    ],
)
def test_what_does_not_fit_the_pictures_is_refused(mode: Any, augment: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Filling(PictureSpec(mode, 32, 32), augment).check("augment of photo")
