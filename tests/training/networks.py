"""Models of a user's own, by name for the ranks' processes."""

import torch
from torch import nn

from mlspark.features.tensors import Tensors


class UnitLength(nn.Module):
    """Scales each row to length 1, which no row of zeros has."""

    def __init__(self, num_dense: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_dense, num_outputs)

    def forward(self, dense: torch.Tensor) -> torch.Tensor:
        lengths = dense.norm(dim=1, keepdim=True)
        if (lengths == 0).any():
            raise RuntimeError("a row of zeros, which the table does not have")
        outputs: torch.Tensor = self.layer(dense / lengths)
        return outputs


class Normalized(nn.Module):
    def __init__(self, num_dense: int, num_outputs: int) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm1d(num_dense), nn.Linear(num_dense, num_outputs)

    def forward(self, dense: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(self.norm(dense))
        return outputs


class Deep(nn.Module):
    """Two blocks with batch norm, and a head."""

    def __init__(self, num_dense: int, num_outputs: int) -> None:
        super().__init__()
        self.low = nn.Sequential(nn.Linear(num_dense, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.high = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, num_outputs)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.high(self.low(dense)))
        return outputs


def deep(tensors: Tensors, num_outputs: int) -> nn.Module:
    return Deep(tensors.num_dense, num_outputs)


def unit_length(tensors: Tensors, num_outputs: int) -> nn.Module:
    return UnitLength(tensors.num_dense, num_outputs)


def normalized(tensors: Tensors, num_outputs: int) -> nn.Module:
    return Normalized(tensors.num_dense, num_outputs)
