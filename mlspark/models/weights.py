"""Weights as a safetensors file: names, shapes and numbers, no code."""

from collections.abc import Mapping

import torch
from safetensors import torch as safetensors


def to_bytes(weights: Mapping[str, torch.Tensor]) -> bytes:
    """Return the file of a module's `state_dict()`, on any device: equal weights are equal bytes."""
    return bytes(safetensors.save({name: value.detach().cpu().contiguous() for name, value in weights.items()}))


def from_bytes(content: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of the file by name, on the CPU, for `load_state_dict`."""
    return dict(safetensors.load(content))
