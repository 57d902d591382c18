"""What MLflow loads for `mlflow models serve`, `mlflow.pyfunc.load_model` and `spark_udf`. Runs anywhere; needs no Spark.

MLflow calls `_load_pyfunc` of this module by its name (the "loader module" in a version's MLmodel file): nothing is
unpickled, and nothing here imports MLflow.
"""

import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from mlspark.contracts.data_frames import from_pandas
from mlspark.registry.package import DIGEST_TAG, Package
from mlspark.scoring.predictor import Predictor

logger = logging.getLogger(__name__)

_ALLOW_DECODER = "MLSPARK_ALLOW_DECODER"
"""Environment variable: 1 serves pictures with another decoder than that of training."""
_THREADS = "MLSPARK_THREADS"
"""Environment variable: threads that the engine of a served version computes with; else as many as it takes of itself."""


class ServedModel:
    """Checks rows against the version's contract, encodes and scores them."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Return the columns of predictions, rows in order. Raises ContractError, and predicts nothing then."""
        predictions = self._predictor.predict(from_pandas(model_input, self._predictor.contract))
        return pd.DataFrame({name: list(values) if values.ndim > 1 else values for name, values in predictions.items()})


def _load_pyfunc(path: str) -> ServedModel:
    """Return the model in folder `path` of a version."""
    package = Package.load(Path(path), digest=_digest(Path(path)))
    if package.unserved_rules:
        logger.warning(
            "contract %s: rules %s are checked by Spark alone (batch_only): rows that break them are scored",
            package.contract.name, ", ".join(package.unserved_rules),
        )  # fmt: skip
    is_allowed, threads = os.environ.get(_ALLOW_DECODER) == "1", os.environ.get(_THREADS, "")
    return ServedModel(Predictor(package, allow_decoder=is_allowed, threads=int(threads) if threads.isdecimal() else 0))


def _digest(package: Path) -> str:
    """Return the digest that the MLmodel file of a version has of its package; "" where there is no such file."""
    file = package.parents[1] / "MLmodel"
    if not file.is_file():
        return ""
    return str((yaml.safe_load(file.read_text(encoding="utf-8")).get("metadata") or {}).get(DIGEST_TAG, ""))
