"""Ranks as processes of their own that need not import torch again: they are forked off one that has.

They do the same as under torchrun or Spark, bit for bit (test_launcher.py): `mlspark.training.rank`'s `main`, each in a
process of its own, and they meet over gloo. Of the 4.5 processor seconds that a rank takes for 2,000 rows, its imports
take 4.
"""

import logging
import multiprocessing
import os
import socket
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from mlspark.training.rank import IMPORTS
from mlspark.training.spec import TrainingSpec

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(IMPORTS))


@dataclass(frozen=True)
class Ended:
    """How the ranks ended: the first status that is not 0, and what they said."""

    returncode: int
    output: str


def run(spec: TrainingSpec, *, seconds: float = 180.0) -> Ended:
    """Train on `num_processes` forked processes."""
    world_size, spec_uri = spec.training.num_processes, spec.save()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    log = Path(spec.run_uri) / "ranks.log"
    ranks = [
        _SERVER.Process(target=_train, args=(spec_uri, rank, world_size, port, str(log)), daemon=True)
        for rank in range(world_size)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(seconds)
    statuses = [_status(rank) for rank in ranks]
    return Ended(next(filter(None, statuses), 0), log.read_text(errors="replace"))


def _status(rank: BaseProcess) -> int:
    """Return the exit status of a rank; one that did not end is killed."""
    if rank.is_alive():
        rank.kill()
        rank.join()
    assert rank.exitcode is not None
    return rank.exitcode


def _train(spec_uri: str, number: int, world_size: int, port: int, log: str) -> None:
    """Be the rank `number`."""
    from mlspark.training import rank

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.environ |= {
        "RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    os.environ.pop("TORCHELASTIC_RUN_ID", None)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, force=True)
    rank.main(spec_uri, rank.LastLines())
