"""Many networks for rows of a table in one: members that share their weights and differ by scales of their own."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mlspark.models.tabular_net import RowEmbedding


class MembersLinear(nn.Module):
    """A linear layer of each member: one matrix for all of them, its inputs and outputs scaled by each in its own way.

    BatchEnsemble (Wen, Tran and Ba, ICLR 2020): member m computes ((x * r_m) W) * s_m + b_m.
    """

    def __init__(self, members: int, width: int, next_width: int, *, is_first: bool) -> None:
        """Build with random weights drawn from torch's global generator.

        Args:
            members: M.
            width: W, inputs of the layer.
            next_width: V, its outputs.
            is_first: whether inputs are equal for all members, so that signs drawn at random must tell them apart.
        """
        super().__init__()
        bound = width**-0.5
        signs = torch.randint(0, 2, (members, width)) * 2.0 - 1.0
        self.weight = nn.Parameter(torch.empty(width, next_width).uniform_(-bound, bound))
        self.input_scale = nn.Parameter(signs if is_first else torch.ones(members, width))
        self.output_scale = nn.Parameter(torch.ones(members, next_width))
        self.bias = nn.Parameter(torch.empty(members, next_width).uniform_(-bound, bound))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B, M, V) for (B, M, W), or (B, 1, W) where all members have the same inputs."""
        return (values * self.input_scale) @ self.weight * self.output_scale + self.bias


class TabmNet(RowEmbedding):
    """Outputs of M members for each row.

    TabM of Gorishniy, Kotelnikov and Babenko, TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling
    (ICLR 2025), with the periodic embeddings of `RowEmbedding`. In training each member has a loss of its own, of which the
    mean is taken; in evaluation a row's outputs are the means of its members' (logits, values).
    """

    def __init__(
        self,
        num_dense: int,
        cardinalities: Sequence[int],
        *,
        num_outputs: int,
        members: int,
        hidden: Sequence[int],
        dropout: float,
        **embedding: Any,
    ) -> None:
        """Build with random weights drawn from torch's global generator.

        Args:
            num_dense: F, number of dense columns, standardized; may be 0.
            cardinalities: ids of column k run from 0 to cardinalities[k] - 1; may be empty.
            num_outputs: O, outputs of a row.
            members: M.
            hidden: widths of the hidden layers.
            dropout: share of a hidden layer's outputs set to 0 in training.
            embedding: see `RowEmbedding`.
        """
        super().__init__(num_dense, cardinalities, **embedding)
        layers: list[nn.Module] = []
        width = self.width
        for place, next_width in enumerate(hidden):
            layers += [
                MembersLinear(members, width, next_width, is_first=not place),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
            width = next_width
        self.layers = nn.Sequential(*layers)
        bound = 1 / math.sqrt(width)
        self.head = nn.Parameter(torch.empty(num_outputs, members, width).uniform_(-bound, bound))
        self.head_bias = nn.Parameter(torch.empty(members, num_outputs).uniform_(-bound, bound))

    def forward(self, dense: torch.Tensor | None = None, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, O) float32, in training those of each member (B, M, O); see `embedded`."""
        values = self.layers(self.embedded(dense, ids).unsqueeze(1))
        # Sums over each row's own numbers, and no matrix product: that takes another kernel for the last rows of a batch.
        outputs = torch.stack([(values * weight).sum(2) for weight in self.head], dim=2) + self.head_bias
        return outputs if self.training else outputs.mean(1)
