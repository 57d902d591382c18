"""How long a version takes for one raw row, checked, encoded and predicted. Runs anywhere; needs no Spark."""

import statistics
import time

import pandas as pd

from mlspark.contracts.data_frames import from_pandas
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor

_WARM_UPS, _TRIES = 5, 30


def milliseconds(package: Package, row: pd.DataFrame, *, allow_decoder: bool = False) -> float:
    """Return the median time of 30 predictions of `row` on this machine, in milliseconds, after 5 that do not count.

    Args:
        package: the version.
        row: one raw row that its contract takes.
        allow_decoder: see `Predictor`.

    Raises:
        ContractError: the row breaks the contract.
        RegistryError: see `Predictor`.
    """
    predictor = Predictor(package, allow_decoder=allow_decoder)

    def predict() -> float:
        started = time.perf_counter()
        predictor.predict(from_pandas(row, predictor.contract))
        return time.perf_counter() - started

    for _ in range(_WARM_UPS):
        predict()
    return 1000 * statistics.median(predict() for _ in range(_TRIES))
