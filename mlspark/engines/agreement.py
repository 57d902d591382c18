"""How far outputs may be from those of the model as it was trained. Numpy only; runs anywhere."""

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = 1e-4
"""Most that a float32 output may differ from eager's, relative to it where it is above 1; ten times what float32 sums in
another order gave over the networks that can be chosen by name."""


def difference(outputs: ArrayLike, reference: ArrayLike) -> float:
    """Return the greatest difference of outputs from those of `reference`, of equal shape, relative where they are above 1.

    Not a number where an output is none.
    """
    values, expected = np.asarray(outputs, np.float64), np.asarray(reference, np.float64)
    if not values.size:
        return 0.0
    return float(np.max(np.abs(values - expected) / np.maximum(1.0, np.abs(expected))))
