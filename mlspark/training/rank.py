"""What runs in each process of a training run: python -m mlspark.training.rank SPEC_URI. No Spark, no MLflow.

Needs the variables that torchrun sets: RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT (and LOCAL_RANK with several GPUs).
"""

import logging
import os
import socket
import sys
import threading
import time
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist

from mlspark import storage
from mlspark.errors import MlsparkError
from mlspark.training.spec import TrainingSpec
from mlspark.training.trainer import fit


def main(spec_uri: str) -> None:
    """Train as the rank that the environment says, and leave ranks/rank-R.json in the run folder.

    On an exception leaves ranks/rank-R.error.json ("rank", "host", "type", "message", "traceback", "can_be_mended" by
    the user, "time" in seconds since 1970) and raises it again.

    Raises:
        KeyError: a variable of torchrun's is not set.
    """
    rank = int(os.environ["RANK"])
    ranks_uri = storage.join(spec_uri.rsplit("/", 1)[0], "ranks")
    try:
        spec = TrainingSpec.load(spec_uri)
        join_process_group(use_gpu=spec.training.use_gpu, timeout_seconds=spec.training.timeout_seconds)
        result = fit(spec)
        storage.write_json(storage.join(ranks_uri, f"rank-{rank}.json"), result.to_json())
    except Exception as error:
        failure = {
            "rank": rank,
            "host": socket.gethostname(),
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc(),
            "can_be_mended": isinstance(error, MlsparkError),
            "time": time.time(),
        }
        storage.write_json(storage.join(ranks_uri, f"rank-{rank}.error.json"), failure)
        raise
    dist.destroy_process_group()


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
        listener = socket.create_server((host, port)).detach() if rank == 0 else None  # the store closes it
        store = dist.TCPStore(  # type: ignore[attr-defined]
            host, port, world_size, rank == 0, timeout, master_listen_fd=listener
        )
    backend = "nccl" if use_gpu else "gloo"
    if store is None:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, timeout=timeout, store=store, rank=rank, world_size=world_size)


def _end_with_parent() -> None:
    """End this process soon after its parent, so that a killed Spark task leaves no rank behind."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    _end_with_parent()
    try:
        main(sys.argv[1])
    except Exception:
        traceback.print_exc()
        # Not through the interpreter's end: torch may deadlock where it takes a model apart after its process group
        # (seen on Python 3.12), and a rank that does not end would keep the others waiting.
        os._exit(1)
