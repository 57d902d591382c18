"""Random numbers that depend on (seed, rank, step) only, and torch set up to compute equal bits each time."""

import os
import random

import numpy as np
import torch


def seed_step(seed: int, rank: int, step: int) -> None:
    """Set all generators that a model may use for one step of one rank."""
    # Two steps of any runs, ranks and positions share a key with a chance of 2^-64 only.
    key = int(np.random.SeedSequence([seed % 2**64, rank, step]).generate_state(1, np.uint64)[0])
    # torch.manual_seed looks for every kind of device: 0.1 ms.
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(key)
    random.seed(key)
    np.random.seed(key % 2**32)


def set_up_torch(threads: int, *, deterministic: bool) -> None:
    """Fix the number of threads, and with it the order of float sums; refuse operations without a deterministic form."""
    torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for on GPUs
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # only costs time
