"""Stores of MLflow: what is said of one that cannot be opened. Driver only."""

import os
from importlib import import_module
from pathlib import Path

from mlflow import MlflowClient
from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy.exc import DBAPIError

from mlspark import credentials
from mlspark.errors import TrackingError, one_line
from mlspark.tracking.embedded import SQLITE


def import_ahead(uri: str) -> None:
    """Import what MLflow imports when it opens a store, where that takes seconds: a database, as the embedded store is.

    Args:
        uri: `tracking.uri`; empty as there.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI", SQLITE)
    if uri.partition(":")[0].partition("+")[0] in DATABASE_ENGINES:
        import_module("mlflow.store.tracking.sqlalchemy_store")
        import_module("mlflow.store.model_registry.sqlalchemy_store")


def opened(uri: str) -> MlflowClient:
    """Return a client of the store at `uri`, which is MLflow's default already.

    Raises:
        TrackingError: the database there is damaged, or none.
    """
    file = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if uri.startswith(SQLITE) and file.is_dir():  # MLflow would try to open it for 100 s
        raise TrackingError(f"{file}: is a folder, and no store of MLflow; move it away, or set tracking.uri")
    try:
        return MlflowClient()
    except DBAPIError as error:
        raise TrackingError(
            f"{credentials.masked(uri)}: the store of MLflow cannot be opened ({one_line(str(error.orig))}); restore it or "
            f"move it away, or set tracking.uri to another"
        ) from error
