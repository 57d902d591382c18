"""What MLflow loads for `mlflow models serve`, `mlflow.pyfunc.load_model` and `spark_udf`: raw rows in, predictions out.

MLflow keeps this file beside the model and runs it ("models from code"), so that nothing is unpickled.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mlspark.registry.bundle import Bundle, Predictor


class ServingModel(PythonModel):
    """Checks rows against the model's contract, encodes and scores them."""

    def load_context(self, context: PythonModelContext) -> None:
        self._predictor = Predictor(Bundle.load(Path(context.artifacts["bundle"])))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return columns probability and prediction (1 from 0.5 on). Raises ContractError, and predicts nothing then."""
        probability = self._predictor.predict(pa.Table.from_pandas(model_input, preserve_index=False))
        return pd.DataFrame({"probability": probability, "prediction": (probability >= 0.5).astype("int32")})


set_model(ServingModel())
