"""What runs in each process of a training run: python -m mlspark.training.rank SPEC_URI. No Spark, no MLflow.

Needs the variables that torchrun sets: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT (and LOCAL_RANK with several GPUs). The
launcher adds the driver's address (`driver_link`) and, for functions that a user passed, a file of them.
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
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from mlspark import storage
from mlspark.errors import MlsparkError
from mlspark.training import driver_link
from mlspark.training.driver_link import Link
from mlspark.training.loop import fit
from mlspark.training.spec import Functions, TrainingSpec
from mlspark.training.state import Stopped

LOG_LINES = 50
_STOPPED_STATUS = 143  # as of a process that ends on SIGTERM


class LastLines(logging.Handler):
    """Keeps the last lines that were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LOG_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def main(spec_uri: str, log: LastLines) -> None:
    """Train as the rank that the environment says, and leave rank-R.json next to the spec.

    On an exception leaves rank-R.error.json ("rank", "host", "type", "message", "traceback", "log" of the last lines,
    "notes" of where in the run it was, "is_for_user" to fix, "time" in seconds since 1970), reports it to the driver, and
    raises it again.

    Raises:
        KeyError: a variable of torchrun's is not set.
    """
    rank = int(os.environ["RANK"])
    folder = spec_uri.rsplit("/", 1)[0]
    link: Link | None = None
    try:
        spec = TrainingSpec.load(spec_uri)
        link = Link(rank, heartbeat_seconds=spec.training.recovery.silent_seconds / 4)
        should_stop = link.should_stop
        signal.signal(signal.SIGTERM, lambda *_: should_stop.set())
        functions = _passed_functions()
        join_process_group(use_gpu=spec.training.use_gpu, timeout_seconds=spec.training.recovery.collective_seconds)
        result = fit(spec, functions=functions, on_event=link.event, should_stop=should_stop.is_set)
        storage.write_json(storage.join(folder, f"rank-{rank}.json"), result.to_json())
        link.done()
    except Stopped:
        raise
    except Exception as error:
        failure = {
            "rank": rank,
            "host": socket.gethostname(),
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc(),
            "log": list(log.lines),
            "notes": getattr(error, "__notes__", []),
            "is_for_user": isinstance(error, MlsparkError),
            "time": time.time(),
        }
        if link is not None:
            link.failed(failure)
        storage.write_json(storage.join(folder, f"rank-{rank}.error.json"), failure)
        raise
    dist.destroy_process_group()
    link.close()


def join_process_group(*, use_gpu: bool, timeout_seconds: float) -> None:
    """Initialise torch.distributed from torchrun's variables: nccl with one GPU per rank, else gloo.

    Listens on no other address than MASTER_ADDR, where torch by itself would take all of this machine's.
    """
    rank, world_size, host = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ["MASTER_ADDR"]
    if use_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    elif host in ("localhost", "127.0.0.1"):
        # All ranks are on this machine: no need to be seen on its network, nor to have one.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    timeout = timedelta(seconds=timeout_seconds)
    store = None
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # torchrun has a store of its own
        port = int(os.environ["MASTER_PORT"])
        try:
            listener = socket.create_server((host, port)).detach() if rank == 0 else None  # the store closes it
        except OSError as error:
            raise OSError(f"port {port} of {host}, chosen for the ranks to meet at, cannot be used: {error}") from error
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, world_size, rank == 0, timeout, master_listen_fd=listener
        )
    backend = "nccl" if use_gpu else "gloo"
    if store is None:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)


def _passed_functions() -> Functions:
    """Return the functions that the user passed on the driver, sent by Spark as any function of a Spark job is."""
    if driver_link.FUNCTIONS not in os.environ:
        return Functions()
    model, loss = pickle.loads(Path(os.environ[driver_link.FUNCTIONS]).read_bytes())  # noqa: S301
    return Functions(model, loss)


def _end_with_parent() -> None:
    """End this process soon after its parent, the supervisor, should that be killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    last_lines = LastLines()
    last_lines.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(last_lines)
    logging.getLogger("mlspark").setLevel(logging.INFO)
    _end_with_parent()
    try:
        main(sys.argv[1], last_lines)
    except Stopped:
        os._exit(_STOPPED_STATUS)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        # Not through the interpreter's end: torch may deadlock where it takes a model apart after its process group
        # (seen on Python 3.12), and a rank that does not end would keep the others waiting.
        os._exit(1)
