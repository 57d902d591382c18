"""What runs in each process of a training run: python -m mlspark.training.rank SPEC_URI. No Spark, no MLflow.

In local mode without GPUs that process is a copy of one that has the `IMPORTS` already, see `barrier_stage.run_rank`.

Needs the variables that torchrun sets: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT (and LOCAL_RANK with several GPUs). The
launcher adds the driver's address (`driver_link`) and, for functions that a user passed, a file of them.

What takes long to import (torch, pyarrow) is imported when the driver has had the first heartbeat: on a busy machine that
takes minutes.
"""

import logging
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlspark import child_processes
from mlspark.errors import MlsparkError
from mlspark.training import driver_link
from mlspark.training.driver_link import Link, Stopped

if TYPE_CHECKING:
    from mlspark.training.spec import Functions

IMPORTS = ("mlspark.training.loop", "mlspark.training.process_group", "torch._dynamo", "mlspark.training.barrier_stage")
"""Modules that take seconds to import: of a rank, of torch's optimizers and process groups, of the task that starts it."""
LOG_LINES = 50
_LINE_CHARACTERS, _MESSAGE_CHARACTERS, _TRACEBACK_CHARACTERS = 2_000, 20_000, 50_000
_STOPPED_STATUS = 143  # as of a process that ends on SIGTERM


class LastLines(logging.Handler):
    """Keeps the last lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(shortened(self.format(record), _LINE_CHARACTERS))


def main(spec_uri: str, log: LastLines) -> None:
    """Train as the rank that the environment says, and leave rank-R.json next to the spec.

    On an exception leaves rank-R.error.json ("rank", "host", "type", "message", "traceback", "log" of the last lines,
    "notes" of where in the run it was, "is_for_user" to fix, "time" in seconds since 1970), reports it to the driver, and
    raises it again.

    Raises:
        KeyError: a variable of torchrun's is not set.
        Stopped: the rank was asked to end.
    """
    rank = int(os.environ["RANK"])
    link: Link | None = None
    try:
        heartbeat_seconds = float(os.environ.get(driver_link.HEARTBEAT, "2"))
        link = Link(rank, heartbeat_seconds=heartbeat_seconds, on_loss=lambda: os._exit(1))
        should_stop = link.should_stop
        signal.signal(signal.SIGTERM, lambda *_: should_stop.set())
        _train(spec_uri, rank, link)
    except Stopped as stopped:
        assert link is not None, "it is asked by way of the link"
        link.stopped(stopped.step)
        stopped.is_by_driver = link.is_told_to_stop
        raise
    except Exception as error:
        if link is not None and link.is_told_to_stop:
            os._exit(0)  # rank 0 has ended, as the driver asked, and is lost by the others: no failure
        failure = _record(error, rank, list(log.lines))
        if link is not None:
            link.failed(failure)
        from mlspark import storage

        storage.write_json(storage.join(spec_uri.rpartition("/")[0], f"rank-{rank}.error.json"), failure)
        raise


def _train(spec_uri: str, rank: int, link: Link) -> None:
    """Import what training needs, train, leave the result, and take leave of driver and ranks."""
    import torch.distributed as dist

    from mlspark import storage
    from mlspark.training.loop import fit
    from mlspark.training.process_group import join_process_group
    from mlspark.training.spec import TrainingSpec

    spec = TrainingSpec.load(spec_uri)
    functions = _passed_functions()
    link.ready()
    recovery = spec.training.recovery
    join_process_group(use_gpu=spec.training.use_gpu, timeout_seconds=recovery.collective_seconds)
    result = fit(spec, functions=functions, on_event=link.event, should_stop=link.should_stop.is_set)
    storage.write_json(storage.join(spec_uri.rpartition("/")[0], f"rank-{rank}.json"), result.to_json())
    link.done()
    _end_within(recovery.end_seconds)
    dist.destroy_process_group()
    link.close()


def _passed_functions() -> "Functions":
    """Return the functions that the user passed on the driver, sent by Spark as any function of a Spark job is."""
    from mlspark.training.spec import Functions

    if driver_link.FUNCTIONS not in os.environ:
        return Functions()
    model, loss = pickle.loads(Path(os.environ[driver_link.FUNCTIONS]).read_bytes())  # noqa: S301
    return Functions(model, loss)


def _record(error: Exception, rank: int, log: list[str]) -> Mapping[str, Any]:
    """Return what is to be known of a failure, short enough to be sent and written."""
    return {
        "rank": rank,
        "host": socket.gethostname(),
        "type": type(error).__name__,
        "message": shortened(_message(error), _MESSAGE_CHARACTERS),
        "traceback": shortened(traceback.format_exc(), _TRACEBACK_CHARACTERS),
        "log": log,
        "notes": [shortened(str(note), _LINE_CHARACTERS) for note in getattr(error, "__notes__", [])],
        "is_for_user": isinstance(error, MlsparkError),
        "time": time.time(),
    }


def _message(error: Exception) -> str:
    try:
        return str(error)
    except Exception as why:  # whatever the exception's own code raises
        return f"(its message cannot be read: {type(why).__name__})"


def shortened(text: str, characters: int) -> str:
    """Return `text` so that any file and log can hold it: long ones without their middle, lone surrogates as escapes."""
    if len(text) > characters:
        head, tail = characters * 2 // 3, characters // 3
        text = f"{text[:head]} ... (of {len(text):,} characters) ... {text[-tail:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _end_within(seconds: float) -> None:
    """End this process after `seconds`, should something keep it: a thread of the user's code, a library at its exit."""

    def end() -> None:
        time.sleep(seconds)
        logging.getLogger(__name__).warning("the rank is done and does not end: ended after %.0f s", seconds)
        sys.stderr.flush()
        os._exit(0)

    threading.Thread(target=end, name="end", daemon=True).start()


def _end_with_parent() -> None:
    """End this process and its children soon after its parent, the supervisor, should that be killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    last_lines = LastLines()
    last_lines.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(last_lines)
    logging.getLogger("mlspark").setLevel(logging.INFO)
    child_processes.set_name(f"mlspark rank {os.environ.get('RANK', '')}")
    _end_with_parent()
    try:
        main(sys.argv[1], last_lines)
    except Stopped as stopped:
        # A driver that asked knows why: with another status Spark would write a failure of its task above that.
        os._exit(0 if stopped.is_by_driver else _STOPPED_STATUS)
    except Exception:
        sys.stderr.write(shortened(traceback.format_exc(), _TRACEBACK_CHARACTERS) + "\n")
        sys.stderr.flush()
        # Not through the interpreter's end: torch may deadlock where it takes a model apart after its process group
        # (seen on Python 3.12), and a rank that does not end would keep the others waiting.
        os._exit(1)
