"""Networks with random weights, packed as a version holds them, and rows for them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mlspark import models
from mlspark.engines import eager
from mlspark.engines.agreement import difference
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.model import Model
from mlspark.pictures.spec import PictureSpec

NUM_OUTPUTS = 3
DENSE = TensorSpec("dense", ("age", "hours", "gain"), "float32")
IDS = TensorSpec("ids", ("job", "place"), "int64", (7, 300))


def photo(size: int, name: str = "photo") -> TensorSpec:
    spec = PictureSpec("RGB", size, size, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
    return TensorSpec(name, (name,), "uint8", picture=spec)


def files(settings: Model, tensors: Tensors) -> dict[str, bytes]:
    """The files of a network whose batch norms have met some rows, as those of a trained one have."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.build(settings, tensors, NUM_OUTPUTS)
        if not any(weights.any() for weights in network.parameters()):  # a softmax begins with zeros
            for weights in network.parameters():
                nn.init.normal_(weights)
        if tensors.pictures:
            settle(network, {name: torch.from_numpy(value) for name, value in rows(8, tensors).items()})
    return eager.pack(settings, tensors, NUM_OUTPUTS, network.state_dict())


def settle(network: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Give batch norms the statistics of these rows: with those of no rows outputs of deep networks overflow."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = None
    with torch.no_grad():
        network.train()(**values)
    network.eval()


def rounding(packed: dict[str, bytes], values: dict[str, NDArray[Any]]) -> float:
    """How far eager's outputs are from those of the same network in float64: random ones of many layers grow it."""
    network = eager.load(packed).network.double()
    inputs = {name: torch.from_numpy(value) for name, value in values.items()}
    with torch.inference_mode():
        exact = network(**{name: each.double() if each.is_floating_point() else each for name, each in inputs.items()})
    assert exact.dtype == torch.float64
    return difference(eager.load(packed).run(values), exact.numpy())


def rows(count: int, tensors: Tensors, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    values: dict[str, Any] = {}
    for spec in tensors.specs:
        if spec.picture:
            values[spec.name] = random.integers(0, 256, (count, *spec.shape), np.uint8)
        elif spec.cardinalities:
            values[spec.name] = random.integers(0, spec.cardinalities, (count, *spec.shape))
        else:
            values[spec.name] = random.normal(size=(count, *spec.shape)).astype(np.float32)
    return values
