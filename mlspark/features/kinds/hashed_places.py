"""What the kinds share that count things in buckets by their hash. Runs anywhere."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.features import hashing

MOST_FLOATS = 2000
"""Most buckets of a feature whose outputs are floats."""


def sign_sql(hashed: str, is_signed: bool) -> str:
    """Return SQL of what a thing counts, by its hash: 1, or -1 for half of them."""
    return f"IF({hashed} < 0, -1, 1)" if is_signed else "1"


def signs(hashes: NDArray[np.int64], is_signed: bool) -> NDArray[np.float64]:
    """Return the numbers of `sign_sql` (n,)."""
    return np.where(hashes < 0, -1.0, 1.0) if is_signed else np.ones(len(hashes))


def hashes_of(column: pa.ChunkedArray, prefix: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the hash of each text after `prefix` (n,), 0 for a missing one, and whether it is missing (n,)."""
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    values = [prefix + text for text in encoded.dictionary.to_pylist()]
    is_missing = np.asarray(encoded.is_null())
    hashes = np.append(hashing.xxhash64(values), 0)  # the last one for missing texts
    return hashes[np.where(is_missing, len(values), pc.fill_null(encoded.indices, 0).to_numpy())], is_missing
