"""How one raw row becomes its numbers, output by output. Runs anywhere."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlspark.features.encode_arrow import ArrowEncoder
from mlspark.features.encoder import Encoder


@dataclass(frozen=True)
class Explained:
    """One number of an encoded row."""

    output: str
    """Column of the feature table that holds the number."""
    position: str
    """Position in a batch: dense[3], ids[0]."""
    number: float | int
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
            name = "ids" if output.ids else "dense"
            number: float | int = tensors[name][0, places[name]].item()
            position = f"{name}[{places[name]}]"
            places[name] += 1
            meaning = feature.words_of(place, number)
            explained.append(Explained(output.name, position, number, feature.name, inputs, meaning))
    return explained
