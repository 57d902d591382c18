"""The encoder on rows in memory: the same numbers as on Spark, for scoring outside it. Runs anywhere."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.features.encoder import (
    FIRST_ID,
    MISSING_ID,
    UNSEEN_ID,
    CategoricalEncoding,
    Encoder,
    NumericEncoding,
)


def transform(encoder: Encoder, rows: pa.Table) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (dense (n, F), categorical (n, K)) of conformed rows, columns in the layout's order.

    Equal to features.spark.transform bit for bit, but for `log`, where the doubles may differ by one unit in the last
    place before they are rounded to float32.
    """
    dense = np.empty((rows.num_rows, len(encoder.numeric)), np.float32)
    for index, number in enumerate(encoder.numeric):
        dense[:, index] = _encode_number(rows.column(number.column), number)
    categorical = np.empty((rows.num_rows, len(encoder.categorical)), np.int64)
    for index, category in enumerate(encoder.categorical):
        categorical[:, index] = _encode_category(rows.column(category.column), category)
    return dense, categorical


def _encode_number(column: pa.ChunkedArray, encoding: NumericEncoding) -> NDArray[np.float64]:
    values = column.cast(pa.float64()).to_numpy()  # NaN where null
    is_missing = column.is_null().to_numpy()
    if encoding.log:
        values = np.log1p(np.maximum(values, 0.0))
    return np.where(is_missing, 0.0, (values - encoding.mean) / encoding.std)


def _encode_category(column: pa.ChunkedArray, encoding: CategoricalEncoding) -> NDArray[np.int64]:
    place = pc.index_in(column, value_set=pa.array(encoding.values, pa.string()))  # null where unseen or missing
    ids = pc.fill_null(pc.add(place.cast(pa.int64()), FIRST_ID), UNSEEN_ID)
    return np.asarray(pc.if_else(pc.is_null(column), MISSING_ID, ids).to_numpy(), dtype=np.int64)
