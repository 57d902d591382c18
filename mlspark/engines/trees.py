"""Trees grown by XGBoost, run on the CPU. Runs anywhere; needs no Spark.

The outputs are margins: what a sigmoid or softmax is applied to, as for a network. A row's outputs are sums over its own
path through each tree, in the order of the trees, so they depend on no other row and on no number of threads.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlspark.errors import RegistryError
from mlspark.features.tensors import Tensors

if TYPE_CHECKING:
    from xgboost import Booster

    from mlspark.models.trees import TreesSettings

REQUIRES: tuple[str, ...] = ("xgboost",)
"""Distributions that this engine needs, besides those that every version needs."""


def pack(settings: "TreesSettings", tensors: Tensors, num_outputs: int, booster: "Booster") -> dict[str, bytes]:
    """Return the files of grown trees: model.json and model.ubj.

    Args:
        settings: of the model, every one of them.
        tensors: the inputs.
        num_outputs: O.
        booster: the trees, none of which is to be left out in scoring.
    """
    description = {
        "engine": "trees",
        "model": settings.model_dump(mode="json"),
        "tensors": tensors.to_json(),
        "num_outputs": num_outputs,
    }
    return {
        "model.json": (json.dumps(description, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode(),
        "model.ubj": bytes(booster.save_raw("ubj")),
    }


def load(files: Mapping[str, bytes], *, threads: int = 0) -> "Trees":
    """Return the engine of a version's files, computing with so many threads; 0: one.

    Raises:
        RegistryError: the files are not those of trees.
    """
    import xgboost

    description = json.loads(files["model.json"])
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(files["model.ubj"]))
    except (KeyError, xgboost.core.XGBoostError) as error:
        raise RegistryError(
            f"model.ubj: missing, or no trees of XGBoost {xgboost.__version__} ({str(error).splitlines()[0]}); register "
            f"the model anew"
        ) from error
    tensors = Tensors.from_json(description["tensors"])
    return Trees(booster, tensors, description["num_outputs"], threads=threads or 1)


class Trees:
    """Trees in memory."""

    def __init__(self, booster: "Booster", tensors: Tensors, num_outputs: int, *, threads: int = 1) -> None:
        from mlspark.models import trees

        self._booster, self._tensors, self._num_outputs = booster, tensors, num_outputs
        self._features, self._types = trees.features, trees.feature_types(tensors)
        self._threads = threads  # one by default: else each single row wakes a pool of them
        self._booster.set_param({"nthread": threads})

    @property
    def tensors(self) -> Tensors:
        """What the trees read of a row."""
        return self._tensors

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return the margins (n, O) float32 of the encoder's tensors, each (n, ...); they may get more than they read."""
        import xgboost

        columns = self._features(self._tensors.pick(tensors))
        if not len(columns):
            return np.empty((0, self._num_outputs), np.float32)
        data = xgboost.DMatrix(columns, feature_types=self._types, enable_categorical=True, nthread=self._threads)
        margins = self._booster.predict(data, output_margin=True)
        return np.asarray(margins, np.float32).reshape(len(columns), self._num_outputs)

    def contributions(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Return what each column adds to each output, (n, O, F + K + 1): dense, ids, then the mean output of the trees.

        SHAP values of XGBoost (Lundberg et al. 2018): a row's sum is its output.
        """
        import xgboost

        columns = self._features(self._tensors.pick(tensors))
        data = xgboost.DMatrix(columns, feature_types=self._types, enable_categorical=True, nthread=self._threads)
        values = self._booster.predict(data, pred_contribs=True, strict_shape=True)
        return np.asarray(values, np.float64)
