"""The embedded store of MLflow: where it is. Driver only; needs no MLflow.

So that who prints its address need not wait for MLflow, which takes seconds to import.
"""

from pathlib import Path

from mlspark import storage
from mlspark.errors import ConfigError

SQLITE = "sqlite:///"


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
    return f"{SQLITE}{embedded_file(root)}"


def embedded_file(root: str) -> Path:
    """Return the file of the store below a local storage.root, whether there is one or not."""
    return Path(storage.local_path(root)) / "mlflow" / "mlflow.db"
