"""What each step of a run did or why it failed, kept for the step that sums up. Runs anywhere.

Kubeflow tells its exit handler that something failed; what and why, on a laptop, it does not.
"""

from collections.abc import Mapping
from typing import Any

from mlspark import storage
from mlspark.errors import one_line
from mlspark.settings.pipeline import Settings

STEPS = ("prepare", "train", "evaluate", "promote", "score")
"""In the order in which they run."""
SUCCEEDED, FAILED = "succeeded", "failed"


def keep(settings: Settings, run: str, step: str, record: Mapping[str, Any]) -> None:
    """Keep the record of a step; of one that Kubeflow runs again the last one counts."""
    storage.write_json(_uri(settings, run, step), dict(record))


def failure(error: BaseException, seconds: float) -> dict[str, Any]:
    """Return the record of a step that failed."""
    message = one_line(str(error)) or type(error).__name__
    return {"state": FAILED, "error": type(error).__name__, "message": message, "seconds": round(seconds, 3)}


def summary(settings: Settings, run: str, state: str, message: str) -> dict[str, Any]:
    """Return what came of a run, and keep it beside the records.

    Args:
        settings: of the pipeline.
        run: id of the run.
        state: as Kubeflow sees it: SUCCEEDED, FAILED, CANCELLED, ...
        message: Kubeflow's own words; used where no step could say why it failed, as one that was killed.

    Returns:
        run, pipeline, state, failed_step and message ("" where nothing failed), steps: step -> its record.
    """
    found = {step: storage.read_json(uri) for step in STEPS if storage.exists(uri := _uri(settings, run, step))}
    failed = next((step for step, record in found.items() if record["state"] == FAILED), "")
    state = state.lower()
    if failed:
        state, message = FAILED, f"{failed}: {found[failed]['message']}"
    elif state == SUCCEEDED:
        message = ""
    summed = {
        "run": run,
        "pipeline": settings.name,
        "state": state,
        "failed_step": failed,
        "message": message,
        "steps": found,
    }
    storage.write_json(_uri(settings, run, "report"), summed)
    return summed


def _uri(settings: Settings, run: str, name: str) -> str:
    return storage.join(settings.root, "kubeflow", run, f"{name}.json")
