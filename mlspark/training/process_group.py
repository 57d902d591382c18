"""How the ranks of a run find each other: torch.distributed, from the variables that torchrun sets. Runs in a rank."""

import os
import socket
import sys
from datetime import timedelta

import torch
import torch.distributed as dist


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
