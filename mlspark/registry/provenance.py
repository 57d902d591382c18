"""Where a model version comes from, what it cost and how good it was. Driver."""

import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from mlspark import __version__
from mlspark.tasks.metrics import Metrics

_LIBRARIES = ("torch", "xgboost", "pyspark", "delta-spark", "petastorm", "pyarrow", "numpy", "mlflow")


def describe(
    *,
    run_id: str,
    table: str,
    table_version: int,
    metrics: Mapping[str, Metrics],
    train_seconds: float,
    **details: Any,
) -> dict[str, Any]:
    """Return a version's provenance.json.

    Args:
        run_id: MLflow run that trained the model.
        table: feature table, or other table that it was trained on.
        table_version: of it.
        metrics: split -> metrics of the registered weights.
        train_seconds: time in training alone.
        details: further JSON values; strings and whole numbers become tags of the version.
    """
    return {
        "run_id": run_id,
        "table": table,
        "table_version": table_version,
        **details,
        "git_commit": _git_commit(),
        "metrics": {split: of_split.to_json() for split, of_split in metrics.items()},
        "train_seconds": train_seconds,
        "libraries": {"mlspark": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    installed = {distribution.name.lower() for distribution in metadata.distributions() if distribution.name}
    return {name: metadata.version(name) for name in _LIBRARIES if name in installed}


def _git_commit() -> str:
    """Return the commit of the pipeline, in whose folder the job was started; "" outside a checkout."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607
        cwd=Path.cwd(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return revision.stdout.strip() if revision.returncode == 0 else ""
