"""What a network for pictures costs: parameters, least size, operations, and the time of a picture here. Runs anywhere."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mlspark.models import architectures, backbones
from mlspark.models.backbones import Plan

BATCH = 16
"""Pictures of a batch whose time is taken."""
_TIMES, _LONG_SECONDS = 3, 1.0


@dataclass(frozen=True)
class Figures:
    """What a network costs, for colour pictures."""

    name: str
    family: str
    package: str
    upstream: str
    """Name in the package."""
    parameters: int
    """Number of parameters without the last layer."""
    least_size: int | None
    """Least side of square pictures that it reads, with the stem that they get."""
    size: int
    """Side of the pictures that flops and milliseconds are of."""
    flops: int
    """Operations of a forward pass of one picture; a multiplication and an addition are two."""
    milliseconds: float | None
    """Milliseconds of a forward pass for each picture of a batch of 16, float32, one thread, here; None: not measured."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure(name: str, *, size: int | None = None, is_timed: bool = True) -> Figures:
    """Return the figures of the network of that name.

    Args:
        name: see `architectures.find`.
        size: side of the pictures in pixels; None: the network's own.
        is_timed: whether the time of a picture is measured.

    Raises:
        ConfigError: no such network, or it cannot read pictures of that size.
    """
    architecture = architectures.find(name)
    side = size or max(backbones.own_size(architecture))
    plan = Plan(architecture, 3, side, side)
    trial = backbones.attempt(plan)
    return Figures(
        name=name,
        family=architecture.family,
        package=architecture.package,
        upstream=architecture.upstream,
        parameters=trial.num_parameters,
        least_size=backbones.least_size(plan),
        size=side,
        flops=trial.flops,
        milliseconds=_milliseconds(plan) if is_timed else None,
    )


def _milliseconds(plan: Plan) -> float:
    """Return the median of a few batches, of one where it takes long."""
    network = backbones.make(plan, called="pictures").network.eval()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            pictures = torch.rand(BATCH, plan.channels, plan.height, plan.width)
            network(pictures[:1])  # what is set up once
            times: list[float] = []
            while len(times) < _TIMES and sum(times) < _LONG_SECONDS:
                started = time.perf_counter()
                network(pictures)
                times.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(num_threads)
    return statistics.median(times) * 1000 / BATCH
