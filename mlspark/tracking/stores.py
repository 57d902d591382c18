"""Stores of MLflow: where the embedded one is, and what is said of one that cannot be opened. Driver only."""

from pathlib import Path

from mlflow import MlflowClient
from sqlalchemy.exc import DBAPIError

from mlspark import credentials, storage
from mlspark.errors import ConfigError, TrackingError, one_line

_SQLITE = "sqlite:///"


def embedded_uri(root: str) -> str:
    """Return the URI of the store below storage.root; its folder is made.

    Raises:
        ConfigError: storage.root is not local.
        StorageError: the folder cannot be made.
    """
    if not storage.is_local(root):
        raise ConfigError(
            f"storage.root={root} is remote, where the embedded MLflow store cannot be; "
            f"set tracking.uri or MLFLOW_TRACKING_URI to a tracking server"
        )
    folder = embedded_file(root).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        storage.check_writable(str(folder))  # says so in words
        raise
    return f"{_SQLITE}{embedded_file(root)}"


def embedded_file(root: str) -> Path:
    """Return the file of the store below a local storage.root, whether there is one or not."""
    return Path(storage.local_path(root)) / "mlflow" / "mlflow.db"


def opened(uri: str) -> MlflowClient:
    """Return a client of the store at `uri`, which is MLflow's default already.

    Raises:
        TrackingError: the database there is damaged, or none.
    """
    file = Path(uri.removeprefix(_SQLITE).partition("?")[0])
    if uri.startswith(_SQLITE) and file.is_dir():  # MLflow would try to open it for 100 s
        raise TrackingError(f"{file}: is a folder, and no store of MLflow; move it away, or set tracking.uri")
    try:
        return MlflowClient()
    except DBAPIError as error:
        raise TrackingError(
            f"{credentials.masked(uri)}: the store of MLflow cannot be opened ({one_line(str(error.orig))}); restore it or "
            f"move it away, or set tracking.uri to another"
        ) from error
