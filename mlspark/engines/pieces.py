"""Batches run piece by piece, so that memory is bounded whatever the number of rows. Numpy only; runs anywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlspark.features.tensors import Tensors

TABLE_ROWS, PICTURE_ROWS = 512, 64
"""Rows of a piece without pictures, and with them: what a network computes between its layers stays in the caches.

Eager, one thread, 40,000 rows at once beside pieces of 4,096, 1,024 and 256 on a busy machine: kind tabular 6,000, 15,600,
17,800 and 15,400 rows/s, tabm 2,700, 9,600, 11,500 and 17,600.
"""


def rows_at_once(tensors: Tensors) -> int:
    """Return the number of rows of a piece."""
    return PICTURE_ROWS if tensors.pictures else TABLE_ROWS


class PieceEngine:
    """An engine of a network that computes rows piece by piece."""

    def __init__(self, tensors: Tensors, num_outputs: int) -> None:
        self._tensors, self._num_outputs = tensors, num_outputs

    @property
    def tensors(self) -> Tensors:
        """What the network reads of a row."""
        return self._tensors

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the outputs (n, O) float32 of the encoder's tensors, each (n, ...); it may get more than it reads."""
        picked = {name: np.ascontiguousarray(value) for name, value in self._tensors.pick(tensors).items()}
        num_rows, at_once = len(next(iter(picked.values()))), rows_at_once(self._tensors)
        outputs = np.empty((num_rows, self._num_outputs), np.float32)
        for start in range(0, num_rows, at_once):
            piece = slice(start, start + at_once)
            outputs[piece] = self._piece({name: value[piece] for name, value in picked.items()})
        return outputs

    def _piece(self, values: dict[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the outputs of a piece, one row or more, by the arrays that `tensors` names, each contiguous."""
        raise NotImplementedError
