"""Where a model version comes from, what it cost and how good it was. Driver."""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from mlspark import __version__
from mlspark.tasks.metrics import Metrics

_GIT_SECONDS = 10.0
_LIBRARIES = ("torch", "xgboost", "pyspark", "delta-spark", "petastorm", "pyarrow", "numpy", "mlflow")


def describe(
    *,
    run_id: str,
    table: str,
    table_version: int,
    metrics: Mapping[str, Metrics],
    train_seconds: float,
    pipeline: Path | None = None,
    **details: Any,
) -> dict[str, Any]:
    """Return a version's provenance.json.

    Args:
        run_id: MLflow run that trained the model.
        table: feature table, or other table that it was trained on.
        table_version: of it.
        metrics: split -> metrics of the registered weights.
        train_seconds: time in training alone.
        pipeline: folder of the pipeline's own files, whose commit is kept; the working directory unless given.
        details: further JSON values; strings and whole numbers become tags of the version.
    """
    of_pipeline = revision(pipeline or Path.cwd())
    return {
        "run_id": run_id,
        "table": table,
        "table_version": table_version,
        **details,
        "git_commit": of_pipeline.commit,
        "git_is_changed": of_pipeline.is_changed,
        "metrics": {split: of_split.to_json() for split, of_split in metrics.items()},
        "train_seconds": train_seconds,
        "libraries": {"mlspark": __version__, "python": platform.python_version(), **_versions()},
    }


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that are installed."""
    installed = {distribution.name.lower() for distribution in metadata.distributions() if distribution.name}
    return {name: metadata.version(name) for name in _LIBRARIES if name in installed}


@dataclass(frozen=True)
class Revision:
    """State of a checkout."""

    commit: str
    """SHA of its commit; empty outside a checkout, or where git is not installed."""
    is_changed: bool = False
    """Whether files that git follows differ from the commit."""


def revision(folder: Path) -> Revision:
    """Return the state of the checkout that `folder` is in."""
    commit = _git(folder, "rev-parse", "HEAD")
    return Revision(commit, bool(commit and _git(folder, "status", "--porcelain", "--untracked-files=no")))


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *arguments],  # noqa: S607
            cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=_GIT_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
