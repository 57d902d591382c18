"""Pictures on Spark: each looked at once, for the contract's verdict and for what features need of it. Driver, lazy."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.contracts import check_spark
from mlspark.contracts.contract import Contract
from mlspark.errors import ConfigError, PictureError
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.image import ImageFeature, looked
from mlspark.features.settings import FeaturesSettings
from mlspark.pictures.media import DECODES, Media, header_problem
from mlspark.pictures.spec import PictureSpec

_FOUND = "struct<pixels:binary,sums:array<bigint>>"
_BATCH_BYTES = 32 * 2**20
"""Bytes of pixels that a worker hands over at a time."""


@dataclass(frozen=True)
class PictureFeature:
    """What a feature needs of the pictures of a column."""

    name: str
    column: str
    spec: PictureSpec
    keeps_pixels: bool = True
    """Whether the tensor's bytes are kept, and not looked at alone."""


def declared(settings: FeaturesSettings) -> tuple[PictureFeature, ...]:
    """Return the pictures of features that are still to be fitted."""
    return tuple(
        PictureFeature(name, source[0], entry.spec, keeps_pixels=entry.store != "encoded")
        for entry in settings.inputs
        if isinstance(entry, ImageFeature)
        for name, source in entry.features
    )


def fitted(encoder: Encoder, *, for_model: bool = False) -> tuple[PictureFeature, ...]:
    """Return the pictures of fitted features: as the feature table stores them, or `for_model` all as pixels."""
    return tuple(
        PictureFeature(image.name, image.column, image.spec, for_model or image.spec.store == "pixels")
        for image in encoder.images
    )


def look(raw: DataFrame, contract: Contract, pictures: Sequence[PictureFeature]) -> tuple[DataFrame, dict[str, str]]:
    """Return rows as they were read with a column for each column of pictures, and {column of pictures: that column}.

    It is a struct of `rule` and `what` (which rule of the contract the picture breaks, null for a good one) and, called like
    each feature, a struct of `pixels` (the tensor's bytes, or null) and `sums` (bytes of the file, then the sum of each
    channel's values, then of their squares). Each picture is decoded once for each feature. Lazy; one Arrow UDF per column.

    Raises:
        ConfigError: this Spark has no such functions.
    """
    arrow_udf = getattr(F, "arrow_udf", None)
    if pictures and arrow_udf is None:
        raise ConfigError(f"columns of pictures need Spark 4.1 or later, this is {raw.sparkSession.version}")
    columns = [name for name in dict.fromkeys(picture.column for picture in pictures) if name in raw.columns]
    rules = {column.name: column for column in contract.columns}
    for column in columns:
        features = tuple(picture for picture in pictures if picture.column == column)
        kind = ",".join(["rule:string", "what:string", *(f"`{feature.name}`:{_FOUND}" for feature in features)])
        media = rules[column].media
        assert media is not None, column  # a feature's column has one: `ImageFeature.column_problems`
        looks: Callable[[Column], Column] = arrow_udf(_looking(features, media), f"struct<{kind}>")  # type: ignore[misc]
        raw = raw.withColumn(looked(column), looks(check_spark.typed(raw, rules[column])))
    return raw, {column: looked(column) for column in columns}


def _looking(pictures: Sequence[PictureFeature], media: Media) -> Callable[[Iterator[pa.Array]], Iterator[pa.Array]]:
    """Return what looks at the pictures of a column, on an executor."""
    kept_bytes = sum(picture.spec.num_bytes for picture in pictures if picture.keeps_pixels)
    num_rows = max(1, _BATCH_BYTES // max(1, kept_bytes))

    def look_at(batches: Iterator[pa.Array]) -> Iterator[pa.Array]:
        for batch in batches:
            for start in range(0, max(1, len(batch)), num_rows):
                yield _found(batch.slice(start, num_rows), pictures, media)

    return look_at


def _found(values: pa.Array, pictures: Sequence[PictureFeature], media: Media) -> pa.Array:
    """Return the struct of `look` for each value."""
    from mlspark.pictures import decoder

    problems: list[tuple[str | None, str | None]] = []
    pixels: list[list[bytes | None]] = [[] for _ in pictures]
    sums: list[list[NDArray[np.int64] | None]] = [[] for _ in pictures]
    for value in values:
        data: bytes | None = value.as_py()
        tensors: Sequence[NDArray[np.uint8] | None] = [None] * len(pictures)
        problem = None if data is None else header_problem(data, media)
        if problem is None and data is not None:
            try:
                tensors = [decoder.encoded(data, picture.spec) for picture in pictures]
            except PictureError as error:
                problem = (DECODES, str(error))
        problems.append(problem or (None, None))
        for place, (picture, tensor) in enumerate(zip(pictures, tensors, strict=True)):
            pixels[place].append(tensor.tobytes() if tensor is not None and picture.keeps_pixels else None)
            sums[place].append(None if tensor is None else _sums(tensor, len(data or b"")))
    found = [
        pa.StructArray.from_arrays(
            [pa.array(of_pixels, pa.binary()), pa.array(of_sums, pa.list_(pa.int64()))], names=["pixels", "sums"]
        )
        for of_pixels, of_sums in zip(pixels, sums, strict=True)
    ]
    rules, whats = zip(*problems, strict=True) if problems else ((), ())
    return pa.StructArray.from_arrays(
        [pa.array(rules, pa.string()), pa.array(whats, pa.string()), *found],
        names=["rule", "what", *(picture.name for picture in pictures)],
    )


def _sums(tensor: NDArray[np.uint8], num_bytes: int) -> NDArray[np.int64]:
    """Return bytes of the file, then of each channel the sum of its values, then that of their squares."""
    values = tensor.reshape(len(tensor), -1)
    squares = values.astype(np.uint32) ** 2
    return np.concatenate([[num_bytes], values.sum(axis=1, dtype=np.int64), squares.sum(axis=1, dtype=np.int64)])
