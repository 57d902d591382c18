"""Why ranks ended without a result, in words for people: which rank, on which host, of what. Driver."""

import logging
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from mlspark import storage
from mlspark.training import preflight
from mlspark.training.driver_link import Listener
from mlspark.training.spec import TrainingSpec

logger = logging.getLogger(__name__)

_TAIL_LINES = 50
_LOST_PEER = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out|gloo|nccl|remote process", re.I)
"""What a rank says when another one is gone: an effect, not the cause."""
_CANCELLED = re.compile(r"\bjob \d+ (was )?cancelled", re.I)
_ENDED = re.compile(
    r"rank (?P<rank>\d+) on (?P<host>\S+): Command .*? failed with return code (?P<status>-?\d+)"
    r".*? included below: (?P<output>.*?)(?=\n\s*(?:SQLSTATE|at [\w.$]+\()|\Z)",
    re.S,
)
"""Message that `barrier_stage.run_rank` raises, within the text that Spark puts around it."""
_NOT_PASSING = ("ModuleNotFoundError", "ImportError", "SyntaxError", "AttributeError", "NameError")
"""Exceptions that a restart would meet again."""


class AttemptFailure(Exception):
    """The ranks ended without a result; the message says why."""

    def __init__(self, message: str, *, may_pass: bool, key: str = "") -> None:
        super().__init__(message)
        self.may_pass = may_pass
        self.key = key
        """Equal for two failures of one cause at one place of the run; empty: none was recorded."""


def final_message(message: str, failures: Sequence[AttemptFailure], *, is_repeated: bool) -> str:
    if is_repeated:
        return f"{message}\n(failed twice in the same way at the same step: not started again)"
    return f"{message}\n({len(failures)} starts failed)" if len(failures) > 1 else message


def explained(spec: TrainingSpec, world_size: int, listener: Listener, error: Exception) -> AttemptFailure:
    """Return the cause of a failed barrier stage: what a rank recorded, else how its process ended."""
    text = str(error)
    if _CANCELLED.search(text):
        return AttemptFailure(
            "the Spark job was cancelled; run again to go on from the newest checkpoint", may_pass=False
        )
    failures = {rank: state.failure for rank, state in listener.ranks.items() if state.failure is not None}
    try:  # of ranks that could not reach the driver
        files = [uri for uri in storage.list_files(spec.attempt_uri) if uri.endswith(".error.json")]
        failures = {failure["rank"]: failure for failure in map(storage.read_json, files)} | failures
    except OSError as unreadable:
        logger.warning("%s cannot be read: %s", spec.attempt_uri, unreadable)
    # The first to fail takes the others down, which then report a lost peer.
    first = min(failures.values(), key=lambda failure: (_is_lost_peer(failure), failure["time"]), default=None)
    if first is not None and not _is_lost_peer(first):
        return _recorded(world_size, first)
    ended = _ENDED.search(text)
    if ended is not None and int(ended["rank"]) not in failures:
        if "No module named 'mlspark" in ended["output"]:
            return AttemptFailure(preflight.NO_MLSPARK, may_pass=False)
        head = f"rank {ended['rank']} of {world_size} on {ended['host']}: "
        return AttemptFailure(
            f"{head}{_ending(int(ended['status']))}\n{_tail(ended['output'])}".rstrip(), may_pass=True
        )
    if first is not None:
        silent = [
            f"{rank} on {listener.ranks[rank].host}" if rank in listener.ranks else str(rank)
            for rank in range(world_size)
            if rank not in failures
        ]
        lost = f"lost rank {' or '.join(silent)}, which left no exception (killed?): " if silent else ""
        return AttemptFailure(lost + str(_recorded(world_size, first)), may_pass=True)
    if "No module named 'mlspark" in text:
        return AttemptFailure(preflight.NO_MLSPARK, may_pass=False)
    return AttemptFailure(
        f"the ranks' Spark stage failed: {_tail(text.partition('Driver stacktrace')[0])}", may_pass=True
    )


def _is_lost_peer(failure: Mapping[str, Any]) -> bool:
    return failure["type"] != "TrainingFailed" and _LOST_PEER.search(failure["message"]) is not None


def _recorded(world_size: int, failure: Mapping[str, Any]) -> AttemptFailure:
    head = f"rank {failure['rank']} of {world_size} on {failure['host']}: "
    where = f" ({'; '.join(failure['notes'])})" if failure["notes"] else ""
    message = f"{head}{failure['type']}: {failure['message']}{where}"
    if failure["is_for_user"]:
        return AttemptFailure(message, may_pass=False)
    logged = _tail("\n".join(failure["log"]))
    log = f"\nlogged before:\n{logged}" if logged else ""
    may_pass = failure["type"] not in _NOT_PASSING
    key = f"{failure['type']} {failure['message']}{where}"
    return AttemptFailure(f"{message}\n{_tail(failure['traceback'])}{log}", may_pass=may_pass, key=key)


def _ending(status: int) -> str:
    """Return how a process ended, by its supervisor's status."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"ended with exit status {status} and left no exception"
    name = signal.Signals(number).name
    return f"killed by {name}" + (" (for want of memory?)" if name == "SIGKILL" else "")


def _tail(lines: str) -> str:
    """Return the last lines, without those that only underline the one before."""
    kept = [line for line in lines.rstrip().splitlines() if line.strip(" ^~")]
    return "\n".join(kept[-_TAIL_LINES:])
