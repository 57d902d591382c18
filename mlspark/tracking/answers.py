"""Calls to MLflow that are made again while it is down, slow or locked, for a stated time. Driver only."""

import logging
from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_exponential

from mlspark import credentials
from mlspark.errors import TrackingError

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 10.0
_PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "IO_ERROR")
"""MLflow's error codes of what may be gone a moment later; INTERNAL_ERROR stands for lost connections and locks, too."""

_LASTING = (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)


def may_pass(error: BaseException) -> bool:
    """Return whether the same call may succeed later."""
    if isinstance(error, MlflowException):
        return error.error_code in _PASSING
    # Those of requests are OSErrors.
    return isinstance(error, OSError) and not isinstance(error, _LASTING)


def in_words(error: BaseException | None) -> str:
    """Return what MLflow said, on one line; the server's URL, which it repeats, without user and password."""
    return credentials.masked(" ".join(str(error).split()))[:500]


def answered(what: str, call: Callable[[], _Result], *, seconds: float) -> _Result:
    """Return what `call` does; it is made again with growing pauses when it fails for what may pass.

    Args:
        what: what is asked of MLflow, for messages: "register the model".
        call: does the same however often it is made.
        seconds: how long it is tried.

    Raises:
        TrackingError: MLflow refuses, or did not answer for so long.
    """

    def warn(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning("MLflow did not %s, trying again: %s", what, in_words(state.outcome.exception()))

    tries = Retrying(
        retry=retry_if_exception(may_pass),
        stop=stop_before_delay(seconds),
        wait=wait_exponential(multiplier=_FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS),
        before_sleep=warn,
        reraise=True,
    )
    try:
        return tries(call)
    except (MlflowException, OSError) as error:
        if not may_pass(error):
            raise TrackingError(f"MLflow refuses to {what}: {in_words(error)}") from error
        raise TrackingError(
            f"MLflow did not {what} for {seconds:g} s: {in_words(error)}; see to the server that tracking.uri or "
            f"MLFLOW_TRACKING_URI names and run again"
        ) from error
