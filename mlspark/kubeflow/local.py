"""The pipeline on this machine: no container, no cluster, each step a process of this very Python. Driver."""

import json
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from kfp import components, local

from mlspark.errors import ConfigError, MlsparkError
from mlspark.kubeflow import records
from mlspark.kubeflow.pipeline import pipeline


class PipelineFailed(MlsparkError):
    """A step of the pipeline failed; names it, with its own words."""


def run(settings: str, overrides: Sequence[str] = (), *, file: str = "", root: str = "") -> dict[str, Any]:
    """Run all steps and return what came of them; see `records.summary`.

    Args:
        settings: YAML of all settings.
        overrides: "section.key=value", over them.
        file: a compiled pipeline to run; empty: that of these sources.
        root: folder for the files that the steps hand on, an empty one; "": one that is removed.

    Returns:
        The summary; its `state` is succeeded or failed.

    Raises:
        ConfigError: `file` is no compiled pipeline, or `root` is not empty.
        PipelineFailed: the run ended without a summary.
    """
    if root and Path(root).exists() and any(Path(root).iterdir()):
        raise ConfigError(f"--root {root}: is not empty; give a folder of its own for each run")
    with tempfile.TemporaryDirectory() if not root else nullcontext(root) as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # an image that is not named python
            warnings.simplefilter("ignore", FutureWarning)
            local.init(local.SubprocessRunner(use_venv=False), pipeline_root=folder, raise_on_error=False)
            _loaded(file)(settings=settings, overrides=list(overrides))
        reports = [path for path in Path(folder).rglob("report") if path.is_file() and "sum-up" in str(path)]
        if len(reports) != 1:
            raise PipelineFailed("the pipeline ended without a summary; its output above says why")
        summed: dict[str, Any] = json.loads(reports[0].read_text(encoding="utf-8"))
    return summed


def check(summed: dict[str, Any]) -> None:
    """Raise PipelineFailed unless the run succeeded."""
    if summed["state"] != records.SUCCEEDED:
        raise PipelineFailed(summed["message"])


def _loaded(file: str) -> Any:
    if not file:
        return pipeline
    try:
        return components.load_component_from_file(file)
    except OSError as error:
        raise ConfigError(f"--pipeline {file}: cannot be read ({error.strerror}); give an existing file") from None
    except Exception as error:  # whatever a parser says of what is no pipeline
        raise ConfigError(
            f"--pipeline {file}: is no compiled pipeline ({type(error).__name__}); make one by mlspark kubeflow compile"
        ) from None
