"""The encoder on rows in memory: the same numbers as on Spark, for scoring outside it. Runs anywhere."""

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.contracts.own_columns import PREFIX
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.kind import Fitted, Output

_COSTS = {"string": 5, "decimal": 8}
"""Beginning of a Spark type -> how many floats cost as much, see `_cost`."""


class ArrowEncoder:
    """An encoder made ready once, for many tables of rows.

    Its float32 have the same bits as those of encode_spark.encode for rows to be scored, but for `log1p` and `power`:
    there the doubles of two libraries may differ in the last place, and so may, rarely, the float32.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._specs = encoder.specs
        self._features = [
            (feature, feature.on_arrow(), [output.tensor for output in feature.outputs]) for feature in encoder.features
        ]

    @cached_property
    def _left(self) -> set[str]:
        """Names of the features that Spark encodes; rows of no other origin ask for them."""
        return {feature.name for feature in left_to_spark(self.encoder).features}

    def transform(self, rows: pa.Table, *, is_from_spark: bool = False) -> dict[str, NDArray[Any]]:
        """Return the tensors of conformed rows by name; see `Encoder.specs`.

        "dense" (n, F) float32, "ids" (n, K) int64, and each picture (n, C, H, W) uint8.

        Args:
            rows: with the encoder's inputs.
            is_from_spark: whether they have `columns_from_spark` instead.

        Raises:
            FeatureError: a picture cannot be decoded; names column and row.
        """
        tensors: dict[str, NDArray[Any]] = {
            spec.name: np.empty((rows.num_rows, *spec.shape), spec.dtype)
            for spec in self._specs
            if spec.picture is None
        }
        filled = dict.fromkeys(tensors, 0)
        for feature, encode, names in self._features:
            outputs = _encoded(rows, feature) if is_from_spark and feature.name in self._left else encode(rows)
            for values, name in zip(outputs, names, strict=True):
                if name not in filled:
                    tensors[name] = values
                    continue
                tensors[name][:, filled[name]] = values
                filled[name] += 1
        return {spec.name: tensors[spec.name] for spec in self._specs}


def left_to_spark(encoder: Encoder) -> Encoder:
    """Return the encoder of the features that Spark encodes even when rows that it reads are scored elsewhere.

    Those that must be, and those whose outputs cost less on the way than the raw columns would, where these are not needed
    by another feature.
    """
    may_leave = [feature for feature in encoder.features if not feature.stays_on_spark]
    cheaper = [
        each for each in may_leave if len(each.outputs) >= sum(_cost(encoder.inputs[name]) for name in each.inputs)
    ]
    sent = {name for feature in cheaper for name in feature.inputs}
    leaving = {feature.name for feature in may_leave if sent.issuperset(feature.inputs)}
    return encoder.model_copy(
        update={"features": tuple(feature for feature in encoder.features if feature.name not in leaving)}
    )


def columns_from_spark(encoder: Encoder) -> tuple[list[str], list[str]]:
    """Return what is needed of rows that Spark reads: raw columns, and the columns of outputs that it encodes."""
    left = {feature.name: feature for feature in left_to_spark(encoder).features}
    raw = dict.fromkeys(name for each in encoder.features if each.name not in left for name in each.inputs)
    return list(raw), [encoded_name(output) for feature in left.values() for output in feature.outputs]


def _cost(kind: str) -> int:
    """Return how many floats take as long as a column of a Spark type, from Spark into a worker and to be encoded there.

    Measured with Spark 4.2, compiled to its end: a float 52 ns, a text 194 and the search for it, a decimal 111 and its
    way by a text, a timestamp 83. An array takes as long as its elements, which are outputs each.
    """
    return next((cost for start, cost in _COSTS.items() if kind.startswith(start)), 1)


def encoded_name(output: Output) -> str:
    """Return the column of rows from Spark that an output of a feature stands in."""
    return f"{PREFIX}encoded_{output.name}"


def _encoded(rows: pa.Table, feature: Fitted) -> list[NDArray[Any]]:
    """Return a feature's outputs, see `Encode`, of rows whose columns they are."""
    outputs: list[NDArray[Any]] = []
    for output in feature.outputs:
        column = rows.column(encoded_name(output))
        if output.picture is None:
            outputs.append(column.to_numpy())
        else:
            # Not joined to bytes: torch warns of memory that cannot be written to.
            pixels = np.frombuffer(bytearray().join(column.to_pylist()), np.uint8)
            outputs.append(pixels.reshape(len(column), *output.picture.shape))
    return outputs
