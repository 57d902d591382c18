"""How one raw row becomes its numbers, output by output. Runs anywhere."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encoder import Encoder


@dataclass(frozen=True)
class Explained:
    """One number, or one picture, of an encoded row."""

    output: str
    """Column of the feature table that holds it."""
    position: str
    """Position in a batch: dense[3], ids[0]; the tensor of a picture: photo."""
    number: float | int | str
    """Number; of a picture, shape and mean of each channel: "3 x 32 x 32, mean 121.3 118.0 97.5"."""
    feature: str
    inputs: Mapping[str, Any]
    """Raw column -> value."""
    meaning: str


def explain(encoder: Encoder, row: pa.Table) -> list[Explained]:
    """Return what each output of one conformed row is, and why, features in order."""
    tensors = ArrowEncoder(encoder).transform(row)
    [values] = row.to_pylist()
    explained, places, outputs = [], Counter[str](), iter(encoder.outputs)
    for feature in encoder.features:
        inputs = {column: values[column] for column in feature.inputs}
        for place, output in enumerate(itertools.islice(outputs, len(feature.outputs))):
            if output.picture is not None:
                seen = {column: _file(value) for column, value in inputs.items()}
                words = _picture(tensors[output.feature][0])
                explained.append(Explained(output.name, output.feature, words, feature.name, seen, output.meaning))
                continue
            name = "ids" if output.ids else "dense"
            number: float | int = tensors[name][0, places[name]].item()
            position = f"{name}[{places[name]}]"
            places[name] += 1
            meaning = feature.words_of(place, number)
            explained.append(Explained(output.name, position, number, feature.name, inputs, meaning))
    return explained


def _picture(tensor: NDArray[np.uint8]) -> str:
    """Return shape and mean of each channel."""
    means = " ".join(f"{mean:.1f}" for mean in tensor.mean(axis=(1, 2)))
    return f"{' x '.join(map(str, tensor.shape))}, mean {means}"


def _file(data: bytes) -> str:
    """Return what is shown of a picture's file."""
    from mlspark.pictures import decoder

    header = decoder.probe(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return f"{header.format} {header.width} x {header.height} {header.mode}, {len(data):,} bytes, SHA-256 {sha256[:12]}"
