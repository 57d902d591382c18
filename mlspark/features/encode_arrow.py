"""The encoder on rows in memory: the same numbers as on Spark, for scoring outside it. Runs anywhere."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.features.encoder import Encoder


class ArrowEncoder:
    """An encoder made ready once, for many tables of rows.

    Its float32 have the same bits as those of encode_spark.encode for rows to be scored, but for `log1p` and `power`:
    there the doubles of two libraries may differ in the last place, and so may, rarely, the float32.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._specs = encoder.specs
        self._features = [
            (feature.on_arrow(), [output.tensor for output in feature.outputs]) for feature in encoder.features
        ]

    def transform(self, rows: pa.Table) -> dict[str, NDArray[Any]]:
        """Return the tensors of conformed rows by name; see `Encoder.specs`.

        "dense" (n, F) float32, "ids" (n, K) int64, and each picture (n, C, H, W) uint8.

        Raises:
            FeatureError: a picture cannot be decoded; names column and row.
        """
        tensors: dict[str, NDArray[Any]] = {
            spec.name: np.empty((rows.num_rows, *spec.shape), spec.dtype)
            for spec in self._specs
            if spec.picture is None
        }
        filled = dict.fromkeys(tensors, 0)
        for encode, names in self._features:
            for values, name in zip(encode(rows), names, strict=True):
                if name not in filled:
                    tensors[name] = values
                    continue
                tensors[name][:, filled[name]] = values
                filled[name] += 1
        return {spec.name: tensors[spec.name] for spec in self._specs}
