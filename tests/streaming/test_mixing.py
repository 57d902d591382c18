"""Pictures of a stream mixed with each other: the same pairs, shares and pixels for any number of ranks and workers."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet as pq

import mlspark.streaming
from mlspark.errors import ConfigError, DatasetError
from mlspark.pictures.augment import Crop, Flip, RandAugment
from mlspark.pictures.mixing import Mix
from mlspark.streaming.mixing import mixed
from mlspark.streaming.pictures import Picture

ROWS, SIZE = 61, (12, 10)
MIX = Mix(mixup=0.8, cutmix=1.0, share=0.9)
PHOTO = Picture(size=SIZE, augment=(Crop(padding=2), Flip(), RandAugment()))
Told = dict[tuple[int, int, int], tuple[int, float, bytes]]
"""(epoch, step, row) -> (partner's row, share, pixels)."""


def photo(number: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("photos") / "photos.parquet"
    files = pa.array([photo(number) for number in range(ROWS)], pa.binary())
    pq.write_table(pa.table({"photo": files, "number": np.arange(ROWS)}), path, row_group_size=8)
    return str(path)


def opened(table: str, **options: Any) -> Any:
    defaults: dict[str, Any] = {"images": {"photo": PHOTO}, "mix": MIX, "batch_size": 24, "seed": 5}
    return mlspark.streaming.open(table, **(defaults | options))


def told(stream: Any, epochs: int = 1) -> Told:
    found: Told = {}
    for _ in range(epochs):
        for batch in stream:
            assert list(batch) == ["number", "photo", "mix_partner", "mix_share", "mix_box", "is_padding"]
            after = mixed(batch, "photo")
            numbers = batch["number"]
            partners, shares = numbers[batch["mix_partner"]].tolist(), batch["mix_share"].tolist()
            for place, number in enumerate(numbers.tolist()):
                if batch["is_padding"][place]:
                    assert shares[place] == 1.0
                    continue
                pixels = after["photo"][place].numpy().tobytes()
                found[stream.epoch, stream.step, number] = partners[place], shares[place], pixels
    return found


@pytest.fixture(scope="module")
def alone(table: str) -> Told:
    with opened(table) as stream:
        return told(stream, epochs=2)


@pytest.mark.parametrize(("world_size", "workers"), [(1, 4), (2, 3), (3, 1), (4, 2), (8, 1)])
def test_epochs_are_equal_on_any_number_of_ranks_and_workers(
    table: str, alone: Told, world_size: int, workers: int
) -> None:
    together: Told = {}
    for rank in range(world_size):
        with opened(table, rank=rank, world_size=world_size, workers=workers) as stream:
            together |= told(stream, epochs=2)
    assert together == alone


def test_epochs_are_equal_with_processes(table: str, alone: Told) -> None:
    with opened(table, pool="process", workers=1) as stream:
        assert told(stream, epochs=2) == alone


@pytest.mark.parametrize("step", [1, 2])
def test_an_epoch_that_is_gone_on_with_is_mixed_alike(table: str, alone: Told, step: int) -> None:
    with opened(table) as stream:
        stream.go_to(1)
        batches = iter(stream)
        for _ in range(step):
            next(batches)
        state = json.loads(json.dumps(stream.state_dict()))
    rest: Told = {}
    for rank in range(2):
        with opened(table, rank=rank, world_size=2) as stream:
            stream.load_state_dict(state)
            rest |= told(stream)
    assert rest == {place: row for place, row in alone.items() if place[0] == 1 and place[1] > step}


def test_most_rows_are_mixed_with_another_and_differently_in_each_epoch(alone: Told) -> None:
    assert len(alone) == 2 * ROWS
    rows: dict[int, list[tuple[int, float]]] = {}
    for (_, _, number), (partner, share, _) in alone.items():
        assert share == 1.0 or partner != number
        rows.setdefault(number, []).append((partner, share))
    assert sum(share < 1 for seen in rows.values() for _, share in seen) > 0.6 * 2 * ROWS
    assert sum(first == second for first, second in rows.values()) < 10
    for epoch in (0, 1):  # each row is a partner once
        assert sorted(partner for (of, _, _), (partner, _, _) in alone.items() if of == epoch) == list(range(ROWS))


def test_a_short_last_batch_mixes_its_own_rows_and_a_lone_row_stays_as_it_is(table: str, alone: Told) -> None:
    # 61 rows in 8 lanes, 24 in a batch: the third has 13, of five lanes two and of three lanes one.
    for epoch in (0, 1):
        last = {number: row for (of, step, number), row in alone.items() if (of, step) == (epoch, 3)}
        assert len(last) == 13
        assert {partner for partner, _, _ in last.values()} == set(last)
        lone = [(number, row) for number, row in last.items() if row[0] == number]
        assert len(lone) == 3
        assert all(share == 1.0 for _, (_, share, _) in lone)
        with opened(table, mix=None) as stream:
            stream.go_to(epoch, 2)
            [batch] = stream
        plain = dict(zip(batch["number"].tolist(), batch["photo"], strict=True))
        assert all(plain[number].numpy().tobytes() == pixels for number, (_, _, pixels) in lone)


def test_what_is_decoded_is_the_same_with_and_without_mixing(table: str) -> None:
    with opened(table) as with_mix, opened(table, mix=None) as without:
        for left, right in zip(with_mix, without, strict=True):
            assert torch.equal(left["photo"], right["photo"])
            assert not any(name.startswith("mix_") for name in right)


def test_rows_in_memory_and_pixels_are_mixed_too(table: str, tmp_path: Path) -> None:
    with opened(table, memory_bytes=10**7) as stream:
        rows = told(stream)
    assert len(rows) == ROWS
    assert sum(share < 1 for _, share, _ in rows.values()) > 0.6 * ROWS
    pixels = [np.asarray(Image.open(io.BytesIO(photo(number)))).transpose(2, 0, 1).tobytes() for number in range(ROWS)]
    path = tmp_path / "pixels.parquet"
    pq.write_table(
        pa.table({"photo": pa.array(pixels, pa.binary()), "number": np.arange(ROWS)}), path, row_group_size=8
    )
    same_window: dict[str, Any] = {"shuffle_window_rows": 16}
    images = {"photo": Picture(size=SIZE, store="pixels", augment=PHOTO.augment)}
    with opened(str(path), images=images, **same_window) as raw, opened(table, **same_window) as files:
        assert told(raw) == told(files)


def test_streams_that_cannot_be_mixed_are_refused(table: str) -> None:
    two = {"photo": Picture(size=8), "other": Picture(column="photo", size=8)}
    with pytest.raises(ConfigError, match="take one field of pictures, these are photo, other; leave mix out"):
        opened(table, images=two)
    with pytest.raises(ConfigError, match="take one field of pictures, there is none; leave mix out"):
        opened(table, images=None, columns=["number"])
    with pytest.raises(
        ConfigError, match=r"batch_size=15 has fewer than two for each of lanes=8; raise .* at least 16"
    ):
        opened(table, batch_size=15)
    with (
        opened(table, mix=Mix()) as stream,
        pytest.raises(DatasetError, match="a batch of number, photo, is_padding has no pictures photo to mix"),
    ):
        mixed(next(iter(stream)), "photo")
    with opened(table) as stream, pytest.raises(DatasetError, match="has no pictures image to mix"):
        mixed(next(iter(stream)), "image")
