"""How one raw row becomes its numbers, output by output. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlspark.features.arrow import ArrowEncoder
from mlspark.features.encoder import Bucketed, Cyclic, Encoder, Fitted, Ngrams, Ranked, Scaled, Vector
from mlspark.features.expression import parse


@dataclass(frozen=True)
class Explained:
    """One number of an encoded row."""

    output: str
    """Column of the feature table."""
    position: str
    """Place in a batch: dense[3], categorical[0]."""
    number: float | int
    feature: str
    inputs: Mapping[str, Any]
    """Raw column -> value."""
    meaning: str


def explain(encoder: Encoder, row: pa.Table) -> list[Explained]:
    """Return what each output of one conformed row is, and why, features in order."""
    dense, ids = ArrowEncoder(encoder).transform(row)
    [values] = row.to_pylist()
    explained, num_dense, num_ids = [], 0, 0
    for feature in encoder.features:
        inputs = {column: values[column] for column in columns_of(feature)}
        for output in feature.outputs:
            number: float | int
            if output.ids:
                position, number = f"categorical[{num_ids}]", int(ids[0, num_ids])
                num_ids += 1
            else:
                position, number = f"dense[{num_dense}]", float(dense[0, num_dense])
                num_dense += 1
            explained.append(Explained(output.name, position, number, feature.name, inputs, output.meaning))
    return explained


def columns_of(feature: Fitted) -> list[str]:
    """Return the raw columns that a fitted feature uses."""
    match feature:
        case Scaled() | Ranked() | Bucketed():
            return list(parse(feature.expression).columns)
        case Ngrams() | Cyclic() | Vector():
            return [feature.column]
    return list(feature.columns)
