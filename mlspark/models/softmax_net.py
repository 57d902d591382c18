"""One linear layer over pixels and floats."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from mlspark.models.pictures import Normalized, by_picture, key
from mlspark.pictures.spec import PictureSpec


class SoftmaxNet(nn.Module):
    """Outputs that are linear in every pixel."""

    def __init__(self, pictures: Mapping[str, PictureSpec], num_dense: int, num_outputs: int) -> None:
        """Build with zeros, so that every run starts at the same point.

        Args:
            pictures: tensor -> its pictures; may be empty.
            num_dense: F, number of dense columns; may be 0.
            num_outputs: O, outputs of a row.
        """
        super().__init__()
        self._pictures = tuple(pictures)
        self.normalized = by_picture({name: Normalized(spec) for name, spec in pictures.items()})
        num_inputs = num_dense + sum(math.prod(spec.shape) for spec in pictures.values())
        self.linear = nn.Linear(num_inputs, num_outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, dense: torch.Tensor | None = None, **pictures: torch.Tensor) -> torch.Tensor:
        """Return outputs (B, O) float32 for `dense` (B, F) float32 and pictures (B, C, H, W) uint8."""
        parts = [] if dense is None else [dense]
        parts += [self.normalized[key(name)](pictures[name]).flatten(1) for name in self._pictures]
        outputs: torch.Tensor = self.linear(torch.cat(parts, dim=1))
        return outputs
