"""The kind `image`: a picture decoded, turned to one colour mode and size, as uint8. Runs anywhere."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mlspark.contracts.contract import ColumnRule
from mlspark.contracts.own_columns import PREFIX
from mlspark.errors import FeatureError, PictureError
from mlspark.features.counts import Counts, Sums
from mlspark.features.kinds.kind import PICTURE, Declared, Encode, Fitted, Kind, Output, Use
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.pictures.spec import CHANNELS, MAX_SIDE, Interpolation, Mode, PictureSpec, Resize
from mlspark.tasks.task import Task

OTHER_TENSORS = (
    "dense", "ids", "target", "row_id", "is_padding", "weight",
    "mix_partner", "mix_share", "mix_box", "mix_target", "mix_weight",
)  # fmt: skip
"""Names of a batch's other tensors."""
_PIXELS_UP_TO = 4
"""Pixels are stored up to so many times the bytes of the files: they cost no decoding, in any epoch."""

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class ImageFeature(Declared):
    """A tensor (channels, height, width) of uint8, called like the feature, of each picture."""

    kind: Literal["image"]
    mode: Mode = "RGB"
    """Colour mode: grey, colours, colours with transparency. Pictures of other modes are converted as Pillow does."""
    size: Side | tuple[Side, Side]
    """Height and width of the tensor, in pixels; a single number is both."""
    resize: Resize = "exact"
    """How a picture gets the size. exact: both sides, whatever the ratio. crop: it covers the size, and the centre is cut
    out. pad: it fits into the size, centred on zeros."""
    interpolation: Interpolation = "bilinear"
    """Interpolation of the resize, over all pixels that fall into one."""
    orientation: bool = True
    """Whether the orientation that a camera noted (EXIF) is applied."""
    store: Literal["encoded", "pixels", "auto"] = "auto"
    """What the feature table holds. encoded: the file as it came, which streaming decodes and may crop at full scale.
    pixels: the tensor's bytes, which need no decoding. auto: pixels where they take up to 4 times the bytes of the training
    rows' files, in the mean; the report says which, and both figures."""
    normalize: bool = True
    """Whether mean and standard deviation of each channel, over the training rows, travel with the table: models of ours
    subtract and divide where they compute, tables and batches stay uint8."""

    @model_validator(mode="after")
    def _has_columns(self) -> "ImageFeature":
        self.check_name("", False)
        if taken := sorted({*self.names} & {*OTHER_TENSORS}):
            raise ValueError(
                f"name {taken[0]}: batches have another tensor of this name; give the feature another `name`"
            )
        return self

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys(self.columns, PICTURE)

    @property
    def spec(self) -> PictureSpec:
        """What pictures become, as far as it is declared; `encoded` where that is still to be decided."""
        return PictureSpec.of(self, store="encoded" if self.store == "auto" else self.store)

    def column_problems(self, rule: ColumnRule) -> list[str]:
        problems = []
        if rule.nullable:
            problems.append(
                'a picture that is missing has no pixels; give the column "nullable": false in the contract'
            )
        if rule.media is None:
            problems.append('give the column "media": {} in the contract, by which what is no picture is quarantined')
        return problems

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Sums:
        name = self.names[self.sources.index(source)]
        return Sums(f"{looked_sql(source[0], name)}.sums", size=1 + 2 * CHANNELS[self.mode])

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "Image":
        from mlspark.pictures import decoder

        num_bytes, *sums = counts.sums[name]
        file_bytes = num_bytes / counts.rows
        spec, channels = self.spec, CHANNELS[self.mode]
        if self.store == "auto":
            spec = replace(spec, store="pixels" if spec.num_bytes <= _PIXELS_UP_TO * file_bytes else "encoded")
        if self.normalize:
            values = counts.rows * spec.height * spec.width
            statistics = [_statistics(sums[c], sums[channels + c], values) for c in range(channels)]
            mean, std = zip(*statistics, strict=True)
            spec = replace(spec, mean=mean, std=std)
        return Image(name=name, column=source[0], spec=replace(spec, decoder=decoder.version()), file_bytes=file_bytes)


class Image(Fitted):
    """A picture as a tensor."""

    kind: Literal["image"] = "image"
    column: str
    spec: PictureSpec
    file_bytes: float
    """Bytes of a training row's file, in the mean."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def outputs(self) -> tuple[Output, ...]:
        spec = self.spec
        words = {
            "exact": f"resized to {spec.width} x {spec.height}",
            "crop": f"resized to cover {spec.width} x {spec.height}, its centre cut out",
            "pad": f"resized to fit into {spec.width} x {spec.height}, centred on zeros",
        }
        colours = {"L": "in grey", "RGB": "in colours", "RGBA": "in colours with transparency"}
        meaning = f"picture {self.column} {colours[spec.mode]}, {words[spec.resize]} ({spec.interpolation})"
        return (Output(self.name, self.name, meaning, picture=spec),)

    @property
    def stored_bytes(self) -> float:
        """Bytes of a row in the feature table, in the mean."""
        return self.spec.num_bytes if self.spec.store == "pixels" else self.file_bytes

    def decision(self) -> dict[str, Any]:
        """Return what the feature table holds of a picture, and how large both forms are, for reports."""
        return {"store": self.spec.store, "pixels_bytes": self.spec.num_bytes, "file_bytes": round(self.file_bytes, 1)}

    @property
    def stays_on_spark(self) -> bool:
        """Yes: a picture is decoded once, when it is looked at."""
        return True

    def to_sql(self, steps: SqlSteps) -> list[str]:
        is_pixels = self.spec.store == "pixels"
        return [f"{looked_sql(self.column, self.name)}.pixels" if is_pixels else f"`{self.column}`"]

    def on_arrow(self) -> Encode:
        from mlspark.pictures import decoder

        def encode(rows: pa.Table) -> list[NDArray[Any]]:
            pictures = np.empty((rows.num_rows, *self.spec.shape), np.uint8)
            for row, value in enumerate(rows.column(self.column).to_pylist()):
                try:
                    pictures[row] = decoder.encoded(value, self.spec)
                except PictureError as error:
                    raise FeatureError(f"{self.column}: row {row}: {error}") from error
            return [pictures]

        return encode


def other_decoder(images: Iterable[Image]) -> str:
    """Return in words that pictures were decoded by other libraries than those here; "" where they were not."""
    from mlspark.pictures import decoder

    for image in images:
        if image.spec.decoder != (here := decoder.version()):
            return (
                f"{image.name}: the pictures of the training rows were decoded by {image.spec.decoder}, here is {here}, "
                f"whose pixels may differ"
            )
    return ""


def looked(column: str) -> str:
    """Return the column of rows that holds what was found in pictures of `column`: see `intake.pictures.look`."""
    return f"{PREFIX}picture_{column}"


def looked_sql(column: str, feature: str) -> str:
    """Return SQL of what was found for a feature: a struct of `pixels` and `sums`."""
    return f"`{looked(column)}`.`{feature}`"


def _statistics(values: int, squares: int, count: int) -> tuple[float, float]:
    """Return mean and standard deviation of values / 255, from exact sums."""
    mean = Fraction(values, count)
    variance = Fraction(squares, count) - mean * mean
    return float(mean / 255), math.sqrt(variance / 255**2)


KIND = Kind(ImageFeature, (Image,))
