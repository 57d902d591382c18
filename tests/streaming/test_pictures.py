"""Streams of pictures: the same pixels for any number of ranks and workers, bounded memory, broken ones named."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet as pq

import mlspark.streaming
from mlspark.errors import ConfigError, DatasetError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.pictures import decoder
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
from mlspark.streaming.feature_table import open_feature_table
from mlspark.streaming.pictures import Picture
from mlspark.streaming.reused_memory import ReusedMemory
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import DataFile, Snapshot

SIZE, ROWS = (16, 20), 61
EVERYTHING = (
    ResizedCrop(),
    Crop(padding=2),
    Flip(vertical=0.2),
    ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    RandAugment(),
    TrivialAugment(),
    Erasing(),
)
Shown = dict[tuple[int, int, int], np.ndarray]
"""(epoch, step, row) -> pixels."""


def photo(number: int, kind: str = "JPEG", size: tuple[int, int] | None = None) -> bytes:
    chance, stream = np.random.default_rng(number), io.BytesIO()
    small = Image.fromarray(chance.integers(0, 255, (4, 5, 3), dtype=np.uint8))
    height, width = size or (18 + number % 7, 22 + number % 5)
    small.resize((width, height), Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


def write(path: Path, pictures: list[bytes], group_rows: int = 8, **columns: Any) -> str:
    table = {"photo": pa.array(pictures, pa.binary()), "number": np.arange(len(pictures))} | columns
    pq.write_table(pa.table(table), path, row_group_size=group_rows)
    return str(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    write(folder / "a.parquet", [photo(number) for number in range(37)])
    write(folder / "b.parquet", [photo(number) for number in range(37, ROWS)], number=np.arange(37, ROWS))
    return str(folder)


def opened(table: str, augment: tuple[Augmentation, ...] = EVERYTHING, **options: Any) -> Any:
    images = {"photo": Picture(size=SIZE, augment=augment)}
    return mlspark.streaming.open(table, **({"images": images, "batch_size": 12, "seed": 5} | options))


def shown(stream: Any, epochs: int = 1) -> Shown:
    pixels: Shown = {}
    for _ in range(epochs):
        for batch in stream:
            assert batch["photo"].shape[1:] == (3, *SIZE)
            assert batch["photo"].is_contiguous()
            numbers = batch["number"].tolist()
            for number, picture, is_padding in zip(numbers, batch["photo"], batch["is_padding"], strict=True):
                if not is_padding:
                    place = stream.epoch, stream.step, number
                    assert place not in pixels
                    pixels[place] = picture.numpy()
    return pixels


def assert_equal(left: Shown, right: Shown) -> None:
    assert left.keys() == right.keys()
    for place, picture in left.items():
        np.testing.assert_array_equal(picture, right[place])


@pytest.fixture(scope="module")
def alone(table: str) -> Shown:
    with opened(table) as stream:
        return shown(stream, epochs=2)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (1, 4), (2, 3), (4, 1)])
def test_epochs_are_equal_on_any_number_of_ranks_and_workers(
    table: str, alone: Shown, world_size: int, workers: int
) -> None:
    together: Shown = {}
    for rank in range(world_size):
        with opened(table, rank=rank, world_size=world_size, workers=workers) as stream:
            together |= shown(stream, epochs=2)
    assert len(together) == 2 * ROWS
    assert_equal(together, alone)


@pytest.mark.parametrize("workers", [1, 2])
def test_epochs_are_equal_with_processes(table: str, alone: Shown, workers: int) -> None:
    with opened(table, pool="process", workers=workers) as stream:
        assert_equal(shown(stream, epochs=2), alone)


def test_epochs_differ_from_each_other(alone: Shown) -> None:
    pictures: dict[int, list[np.ndarray]] = {}
    for (_, _, number), picture in alone.items():
        pictures.setdefault(number, []).append(picture)
    assert len(pictures) == ROWS
    assert sum(np.array_equal(first, second) for first, second in pictures.values()) < 5


@pytest.mark.parametrize("step", [0, 2, 6])
def test_an_epoch_that_is_gone_on_with_has_the_same_pictures(table: str, alone: Shown, step: int) -> None:
    with opened(table) as stream:
        stream.go_to(1)
        batches = iter(stream)
        for _ in range(step):
            next(batches)
        state = json.loads(json.dumps(stream.state_dict()))
    rest: Shown = {}
    for rank in range(2):
        with opened(table, rank=rank, world_size=2, workers=1) as stream:
            stream.load_state_dict(state)
            rest |= shown(stream)
    assert_equal(rest, {place: picture for place, picture in alone.items() if place[0] == 1 and place[1] > step})


def test_a_row_is_changed_in_the_same_way_whatever_the_order_of_the_epoch(table: str, alone: Shown) -> None:
    by_row = {(epoch, number): picture for (epoch, _, number), picture in alone.items()}
    for options in ({"memory_bytes": 10**7}, {"shuffle": False}, {"batch_size": 7, "lanes": 3}):
        with opened(table, **options) as stream:
            for (epoch, _, number), picture in shown(stream, epochs=2).items():
                np.testing.assert_array_equal(picture, by_row[epoch, number])


def test_without_augmentation_pictures_are_those_of_the_decoder(table: str) -> None:
    spec = Picture(size=SIZE).spec
    with opened(table, ()) as stream:
        for (_, _, number), picture in shown(stream).items():
            np.testing.assert_array_equal(picture, decoder.encoded(photo(number), spec))


def test_pixels_are_streamed_and_changed_as_files_of_the_same_pixels_are(tmp_path: Path) -> None:
    files = [photo(number, "PNG", SIZE) for number in range(30)]
    spec = Picture(size=SIZE).spec
    pixels = [decoder.encoded(file, spec).tobytes() for file in files]
    encoded, raw = write(tmp_path / "files.parquet", files), write(tmp_path / "pixels.parquet", pixels)
    for augment in ((), EVERYTHING):
        images = {"photo": Picture(size=SIZE, store="pixels", augment=augment)}
        with opened(encoded, augment) as files_stream, opened(raw, images=images) as pixels_stream:
            expected = shown(files_stream, epochs=2)
            assert_equal(shown(pixels_stream, epochs=2), expected)
    with opened(raw, images=images, pool="process", workers=2) as stream:
        assert_equal(shown(stream, epochs=2), expected)


@pytest.mark.parametrize(
    ("world_size", "batch_size", "lanes"), [(1, 12, 8), (3, 12, 4), (8, 9, 8), (5, 6, 8), (2, 60, 8)]
)
def test_rows_put_in_order_are_those_gathered_from_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world_size: int, batch_size: int, lanes: int
) -> None:
    """Batches across windows, short and empty ones, and rows that come twice among them."""
    chance = np.random.default_rng(3)
    pixels = [each.tobytes() for each in chance.integers(0, 256, (61, 3, *SIZE), dtype=np.uint8)]
    path = write(
        tmp_path / "pixels.parquet", pixels, wide=chance.random(61), words=[f"word {n}"[: n % 9] for n in range(61)]
    )
    options = {
        "columns": {"number": "number", "both": ["wide", "number"]},
        "images": {"photo": Picture(size=SIZE, store="pixels", augment=(Crop(padding=2), Flip()))},
        "batch_size": batch_size,
        "lanes": lanes,
        "shuffle_window_rows": 24,
        "world_size": world_size,
        "seed": 7,
    }

    def everything(most_bytes: int) -> list[dict[str, np.ndarray]]:
        monkeypatch.setattr("mlspark.streaming.windows._MOST_BYTES_IN_ORDER", most_bytes)
        batches = []
        for rank in range(world_size):
            with mlspark.streaming.open(path, rank=rank, **options) as stream:
                stream.go_to(1, 2)
                batches += [*stream, *stream]  # kept while later windows are filled
        return [{name: tensor.numpy() for name, tensor in batch.items()} for batch in batches]

    in_order, gathered = everything(2**28), everything(-1)
    assert len(in_order) == len(gathered)
    for left, right in zip(in_order, gathered, strict=True):
        assert left.keys() == right.keys()
        for name, values in left.items():
            np.testing.assert_array_equal(values, right[name], err_msg=name)


def test_two_pictures_of_a_row_are_changed_differently(tmp_path: Path) -> None:
    pictures = [photo(number) for number in range(20)]
    path = write(tmp_path / "two.parquet", pictures, other=pa.array(pictures, pa.binary()))
    images = {name: Picture(size=16, augment=[ResizedCrop()]) for name in ("photo", "other")}
    with mlspark.streaming.open(path, images=images, batch_size=20) as stream:
        (batch,) = stream
    assert stream.fields == ("number", "photo", "other", "is_padding")
    assert sum(bool((a == b).all()) for a, b in zip(batch["photo"], batch["other"], strict=True)) < 3


def test_pictures_come_under_any_name_beside_the_columns_that_are_asked_for(table: str) -> None:
    images = {"grey": Picture(column="photo", size=8, mode="L", resize="crop")}
    with mlspark.streaming.open(table, columns=["number"], images=images, batch_size=ROWS) as stream:
        (batch,) = stream
    assert list(batch) == ["number", "grey", "is_padding"]
    assert tuple(batch["grey"].shape) == (ROWS, 1, 8, 8)
    with mlspark.streaming.open(table, columns=[], images=images, batch_size=ROWS) as stream:
        assert list(next(iter(stream))) == ["grey", "is_padding"]


def test_a_rank_without_a_row_has_a_picture_that_is_padding(tmp_path: Path) -> None:
    path = write(tmp_path / "few.parquet", [photo(number) for number in range(3)])
    images = {"photo": Picture(size=SIZE)}
    with mlspark.streaming.open(path, images=images, batch_size=8, rank=5, world_size=8) as stream:
        (batch,) = stream
    assert batch["is_padding"].tolist() == [True]
    np.testing.assert_array_equal(batch["photo"][0], decoder.encoded(photo(0), images["photo"].spec))


# A window in bytes


def windows(stream: Any) -> list[int]:
    """Return the bytes of pictures in each window that the stream lays out."""
    from mlspark.streaming import batches

    sizes, blocks = [], batches.Batches._blocks

    def noting(self: Any, first: int) -> Any:
        for block in blocks(self, first):
            block.wait()
            sizes.append(sum(len(picture) for picture in block.rows.fields[stream.fields.index("photo")]))
            yield block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches.Batches, "_blocks", noting)
        for _ in stream:
            pass
    return sizes


def test_a_window_has_no_more_bytes_of_pictures_than_it_may(tmp_path: Path) -> None:
    pictures = [photo(number, size=(60, 80)) for number in range(200)]
    path, total = write(tmp_path / "many.parquet", pictures), sum(map(len, pictures))
    with opened(path) as whole, opened(path, shuffle_window_bytes=total // 10) as narrow:
        assert whole.state_dict()["shuffle_window_rows"] == 400_000
        assert 8 <= narrow.state_dict()["shuffle_window_rows"] <= 20
        assert windows(whole) == [total]
        sizes = windows(narrow)
    assert sum(sizes) == total
    assert max(sizes) < 1.3 * total / 10  # pictures are of about the same size
    with (
        opened(path, shuffle_window_bytes=total // 5) as other,
        pytest.raises(
            DatasetError,
            match=r"shuffle_window_rows \d+ \(now \d+; with pictures, shuffle_window_bytes lowers it\)",
        ),
    ):
        other.load_state_dict(narrow.state_dict())


def test_pixels_count_by_their_own_bytes_and_other_columns_not_at_all(tmp_path: Path) -> None:
    black = [bytes(3 * 16 * 20)] * 100  # as files next to nothing
    path = write(tmp_path / "black.parquet", black)
    images = {"photo": Picture(size=SIZE, store="pixels")}
    with opened(path, images=images, shuffle_window_bytes=40 * 960) as stream:
        assert stream.state_dict()["shuffle_window_rows"] == 40
    with mlspark.streaming.open(path, columns=["photo"], batch_size=8, shuffle_window_bytes=1) as stream:
        assert stream.state_dict()["shuffle_window_rows"] == 400_000  # bytes of any length, not pictures


def test_rows_that_are_left_of_a_row_group_keep_none_of_its_other_pictures(tmp_path: Path) -> None:
    pictures = [photo(number) for number in range(64)]
    path = write(tmp_path / "many.parquet", pictures)
    with opened(path) as stream:
        rows = stream._decoder(pq.read_table(path, columns=["photo", "number"]))
    assert rows.nbytes == sum(map(len, pictures)) + 64 * (8 + 8)
    part = rows.slice(10, 12)
    assert part.nbytes == sum(map(len, pictures[10:12])) + 2 * (8 + 8)
    assert part.fields[1].base is None  # memory of its own, so that the others may go


def test_memory_of_arrays_that_went_is_used_again_and_that_of_views_is_not() -> None:
    memory, kind = ReusedMemory(), np.dtype(np.uint8)
    first = memory((4, 3, 8, 8), kind)
    place, view = first.ctypes.data, first[1:3]
    view[...] = 7
    del first
    second = memory((4, 3, 8, 8), kind)
    assert second.ctypes.data != place
    second[...] = 0
    assert (view == 7).all()
    del view
    assert memory((4, 3, 8, 8), kind).ctypes.data == place
    assert memory((2, 3, 8, 8), kind).shape == (2, 3, 8, 8)


def test_a_batch_that_is_kept_stays_as_it_was(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlspark.streaming.batches._PIECE_BYTES_OF_PICTURES", 1)  # each batch has an array of its own
    places = []
    with opened(table, batch_size=4) as stream:
        for batch in stream:
            places.append(batch["photo"].data_ptr())
            if stream.step == 2:
                kept, copy = batch["photo"][1:3], batch["photo"][1:3].clone()
    assert len(places) == 16
    assert len(set(places)) < 10
    assert bool((kept == copy).all())


# Broken ones


@pytest.mark.parametrize("augment", [(), (ResizedCrop(), Flip())])
def test_a_broken_picture_is_named_by_file_row_group_and_row(tmp_path: Path, augment: Any) -> None:
    pictures = [photo(number) for number in range(20)]
    pictures[13] = pictures[13][:150]
    path = write(tmp_path / "broken.parquet", pictures)
    named = re.escape(f"{path}: row group 1: row 5: column photo: jpeg: ")
    with opened(path, augment) as stream, pytest.raises(DatasetError, match=named) as error:
        list(stream)
    assert len(str(error.value).splitlines()) == 1


def test_a_broken_picture_of_a_feature_table_is_named_by_its_row_id_too(tmp_path: Path) -> None:
    snapshot, tensors = feature_table(tmp_path, broken=3)
    with (
        features(snapshot, tensors) as stream,
        pytest.raises(DatasetError, match="row 3, row_id 1003: column image: no "),
    ):
        list(stream)


def test_nulls_lengths_and_columns_that_are_no_pictures_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "null.parquet", [photo(0), None, photo(2)])  # type: ignore[list-item]
    with opened(path) as stream, pytest.raises(DatasetError, match="column photo holds 1 nulls"):
        list(stream)
    with opened(path, (), fill={"photo": photo(7)}) as stream:
        np.testing.assert_array_equal(
            {number: picture for (_, _, number), picture in shown(stream).items()}[1],
            decoder.encoded(photo(7), Picture(size=SIZE).spec),
        )
    with pytest.raises(DatasetError, match="column number of type long holds no pictures"):
        opened(path, images={"number": Picture(size=8)})
    with pytest.raises(DatasetError, match="no column image; there are photo, number"):
        opened(path, images={"image": Picture(size=8)})
    with pytest.raises(DatasetError, match=r"pictures of photo have size \(0, 8\)"):
        opened(path, images={"photo": Picture(size=(0, 8))})
    with pytest.raises(DatasetError, match="pictures of photo have resize 'fit'; choose one of exact, crop, pad"):
        opened(path, images={"photo": Picture(size=8, resize="fit")})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="augment of photo: resized_crop is number 2"):
        opened(path, (Flip(), ResizedCrop()))
    raw = write(tmp_path / "raw.parquet", [bytes(12), bytes(11)])
    images = {"photo": Picture(size=2, store="pixels")}
    with opened(raw, images=images) as stream, pytest.raises(DatasetError, match="row 1 of the row group has 11 bytes"):
        list(stream)


# Feature tables


def feature_table(
    folder: Path, *, first: int = 0, broken: int | None = None, order: Any = None
) -> tuple[Snapshot, Tensors]:
    numbers = np.arange(40) if order is None else order
    pictures = [photo(number) if number != broken else b"nothing" for number in numbers]
    table = {"image": pa.array(pictures, pa.binary()), "label": numbers.astype(np.float32), "row_id": numbers + 1000}
    pq.write_table(pa.table(table), folder / "part.parquet", row_group_size=10)
    fields = [("image", "binary"), ("label", "float"), ("row_id", "long")]
    schema = {"fields": [{"name": name, "type": kind} for name, kind in fields]}
    file = DataFile("part.parquet", (folder / "part.parquet").stat().st_size, {}, (10, 10, 10, 10))
    tensors = Tensors((TensorSpec("image", ("image",), "uint8", picture=Picture(size=SIZE).spec),))
    return Snapshot(str(folder), 0, schema, (file,)), tensors


def features(snapshot: Snapshot, tensors: Tensors, **options: Any) -> Any:
    return open_feature_table(
        snapshot, tensors, StreamingSettings(), rank=0, world_size=1, global_batch_size=8, seed=3, **options
    )


def by_row_id(stream: Any) -> dict[int, np.ndarray]:
    batches = list(stream)
    assert list(batches[0]) == ["image", "target", "row_id", "is_padding"]
    return {
        number: picture.numpy()
        for batch in batches
        for number, picture in zip(batch["row_id"].tolist(), batch["image"], strict=True)
    }


def test_a_feature_table_draws_by_row_id_wherever_the_row_stands(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir(), (tmp_path / "other").mkdir()
    augment = {"image": EVERYTHING}
    snapshot, tensors = feature_table(tmp_path / "one")
    other, _ = feature_table(tmp_path / "other", order=np.random.default_rng(1).permutation(40))
    with features(snapshot, tensors, augment=augment) as one, features(other, tensors, augment=augment) as two:
        left, right = by_row_id(one), by_row_id(two)
    assert left.keys() == right.keys()
    for row_id, picture in left.items():
        np.testing.assert_array_equal(picture, right[row_id])
    with features(snapshot, tensors) as plain:
        for row_id, picture in by_row_id(plain).items():
            np.testing.assert_array_equal(picture, decoder.encoded(photo(row_id - 1000), Picture(size=SIZE).spec))


def test_augmentation_of_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    snapshot, tensors = feature_table(tmp_path)
    with pytest.raises(
        ConfigError, match=r"training\.augment names photo, which is no feature of pictures; there are image"
    ):
        features(snapshot, tensors, augment={"photo": (Flip(),)})
