"""What raw columns add to the predictions of batches, as a column of the score table. Runs anywhere; needs no Spark."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlspark.registry.package import Package

if TYPE_CHECKING:
    from mlspark.scoring.explain import Explanation

COLUMN = "contributions"
TYPE = "array<struct<column:string,contribution:double>>"
"""Spark type of the column: a row's greatest contributions, by absolute value, the greatest first."""


@dataclass(frozen=True)
class Explaining:
    """What the explanation of a version's batches rests on."""

    top: int
    """Contributions that a row gets at most."""
    reference: Mapping[str, NDArray[Any]]
    """Tensors of the rows at whose mean the way to a row begins; {} where `explain.needs_reference` says so."""


def check(package: Package, explaining: Explaining, *, allow_decoder: bool = False) -> None:
    """Refuse a version that cannot be explained, by explaining a row of zeros.

    Raises:
        AttributionError: says why.
    """
    from mlspark.scoring.explain import Explainer  # torch, which takes seconds

    specs = package.encoder.tensors(package.task).specs
    zeros = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in specs}
    Explainer(package, explaining.reference, allow_decoder=allow_decoder).explain_encoded(zeros)


def column(explanation: "Explanation", top: int) -> pa.ListArray:
    """Return the contributions of n rows, in the type of `TYPE`.

    Args:
        explanation: of the rows.
        top: contributions of a row. Columns that features are made of together stand as one, "a x b".
    """
    values = explanation.values  # (n, columns)
    greatest = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :top]
    names = np.array([" x ".join(columns) for columns in explanation.columns], object)
    structs = pa.StructArray.from_arrays(
        [
            pa.array(names[greatest].ravel(), pa.string()),
            pa.array(np.take_along_axis(values, greatest, axis=1).ravel(), pa.float64()),
        ],
        ["column", "contribution"],
    )
    offsets = np.arange(len(values) + 1, dtype=np.int32) * greatest.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), structs)
