"""Networks of a user's own, found by their module as on a cluster."""

from typing import Any

import torch
from torch import nn


class UnusedLayer(nn.Module):
    """Has a layer that forward leaves out."""

    def __init__(self, tensors: Any, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(tensors.num_dense, num_outputs)
        self.spare = nn.Linear(3, 3)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.layer(dense)


class Branches(nn.Module):
    """Uses one of two layers, in turn."""

    def __init__(self, tensors: Any, num_outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(tensors.num_dense, num_outputs) for _ in range(2))
        self.common = nn.Linear(num_outputs, num_outputs)
        self.calls = 0

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 1:  # when all parameters are looked for
            return self.common(self.layers[0](dense) + self.layers[1](dense))
        return self.common(self.layers[self.calls % 2](dense))
