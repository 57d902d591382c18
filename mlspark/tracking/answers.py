"""Calls to MLflow that are made again while it is down, slow or locked, for a stated time. Driver only."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException

from mlspark.errors import TrackingError

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
_PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "IO_ERROR")
"""MLflow's error codes of what may be gone a moment later; INTERNAL_ERROR stands for lost connections and locks, too."""


def may_pass(error: Exception) -> bool:
    """Return whether the same call may succeed later."""
    if isinstance(error, MlflowException):
        return error.error_code in _PASSING
    return isinstance(error, OSError)  # those of requests are OSErrors


def in_words(error: Exception) -> str:
    """Return what MLflow said, on one line."""
    return " ".join(str(error).split())[:500]


def answered(what: str, call: Callable[[], _Result], *, seconds: float) -> _Result:
    """Return what `call` does; it is made again with growing pauses when it fails for what may pass.

    Args:
        what: what is asked of MLflow, for messages: "register the model".
        call: does the same however often it is made.
        seconds: how long it is tried.

    Raises:
        TrackingError: MLflow refuses, or did not answer for so long.
    """
    deadline, pause, has_warned = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS, False
    while True:
        try:
            return call()
        except Exception as error:
            if not isinstance(error, MlflowException | OSError):
                raise
            if not may_pass(error):
                raise TrackingError(f"MLflow refuses to {what}: {in_words(error)}") from error
            if time.monotonic() + pause > deadline:
                raise TrackingError(
                    f"MLflow did not {what} for {seconds:g} s: {in_words(error)}; see to the server that tracking.uri or "
                    f"MLFLOW_TRACKING_URI names and run again"
                ) from error
            if not has_warned:
                logger.warning("MLflow did not %s, trying again: %s", what, in_words(error))
                has_warned = True
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
