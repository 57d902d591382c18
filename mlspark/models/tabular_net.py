"""A network for rows of a table: an embedding per column, dense ones included, then hidden layers."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def embedding_dim(cardinality: int, dim_max: int) -> int:
    """Return the width of a column's embedding: grows with the vocabulary, slower than it, up to `dim_max`."""
    return min(dim_max, round(1.6 * math.pow(cardinality, 0.56)))


class PeriodicEmbedding(nn.Module):
    """A vector for each dense value, by which the layers after it tell close values apart and learn thresholds.

    Sines and cosines of learned frequencies, then a linear layer of each column's own and ReLU: "PLR" of Gorishniy,
    Rubachev and Babenko, On Embeddings for Numerical Features in Tabular Deep Learning (NeurIPS 2022).
    """

    def __init__(self, num_dense: int, *, frequencies: int, dim: int, scale: float) -> None:
        """Build with random weights.

        Args:
            num_dense: F, number of dense columns.
            frequencies: per column.
            dim: D, width of a value's vector.
            scale: standard deviation of the frequencies at the start, in periods per unit of a standardized column.
        """
        super().__init__()
        bound = (2 * frequencies) ** -0.5
        self.frequencies = nn.Parameter(torch.randn(num_dense, frequencies) * scale)
        self.weight = nn.Parameter(torch.empty(num_dense, 2 * frequencies, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_dense, dim).uniform_(-bound, bound))

    def forward(self, dense: torch.Tensor) -> torch.Tensor:
        """Return (B, F * D) float32 for `dense` (B, F) float32."""
        angles = 2 * math.pi * dense.unsqueeze(2) * self.frequencies  # (B, F, frequencies)
        waves = torch.cat([angles.cos(), angles.sin()], dim=2)
        # One matrix product per column: (F, B, 2 * frequencies) x (F, 2 * frequencies, D).
        vectors = torch.baddbmm(self.bias.unsqueeze(1), waves.transpose(0, 1), self.weight)
        return vectors.relu().transpose(0, 1).flatten(1)


class RowEmbedding(nn.Module):
    """What networks for rows of a table begin with: every column as a vector, side by side."""

    def __init__(
        self,
        num_dense: int,
        cardinalities: Sequence[int],
        *,
        embedding_dim_max: int,
        dense_frequencies: int,
        dense_embedding_dim: int,
        dense_scale: float,
    ) -> None:
        """Build with random weights drawn from torch's global generator.

        Args:
            num_dense: F, number of dense columns, standardized; may be 0.
            cardinalities: ids of column k run from 0 to cardinalities[k] - 1; may be empty.
            embedding_dim_max: upper bound of the width of an ids column's embedding.
            dense_frequencies: of each dense column's periodic embedding; 0: dense columns enter as they are, only.
            dense_embedding_dim: width of a dense column's periodic embedding.
            dense_scale: spread of the frequencies at the start, in periods per standard deviation of the column.
        """
        super().__init__()
        dims = [embedding_dim(cardinality, embedding_dim_max) for cardinality in cardinalities]
        self.embeddings = nn.ModuleList(
            nn.Embedding(cardinality, dim) for cardinality, dim in zip(cardinalities, dims, strict=True)
        )
        self.width = num_dense + sum(dims)
        """W, numbers that a row becomes."""
        self.dense_embedding: PeriodicEmbedding | None = None
        if num_dense and dense_frequencies:
            self.dense_embedding = PeriodicEmbedding(
                num_dense, frequencies=dense_frequencies, dim=dense_embedding_dim, scale=dense_scale
            )
            self.width += num_dense * dense_embedding_dim

    def embedded(self, dense: torch.Tensor | None, ids: torch.Tensor | None) -> torch.Tensor:
        """Return rows as (B, W) float32.

        Args:
            dense: (B, F) float32; None where F = 0.
            ids: (B, K) int64; None where K = 0.

        Raises:
            IndexError: an id is not below its column's cardinality (on a GPU: a device-side assertion).
        """
        parts = []
        if dense is not None:
            parts.append(dense)
            if self.dense_embedding is not None:
                parts.append(self.dense_embedding(dense))
        columns = () if ids is None else ids.unbind(1)
        parts += [embedding(column) for embedding, column in zip(self.embeddings, columns, strict=True)]
        return torch.cat(parts, dim=1)


class TabularNet(RowEmbedding):
    """Outputs for each row: what the task takes them for (logits, values).

    Normalises with LayerNorm, not BatchNorm: a row's outputs then depend on no other row, so that they are the same for any
    batch size, number of ranks and padding, in training as in scoring.
    """

    def __init__(
        self,
        num_dense: int,
        cardinalities: Sequence[int],
        *,
        num_outputs: int,
        hidden: Sequence[int],
        dropout: float,
        **embedding: Any,
    ) -> None:
        """Build with random weights drawn from torch's global generator.

        Args:
            num_dense: F, number of dense columns, standardized; may be 0.
            cardinalities: ids of column k run from 0 to cardinalities[k] - 1; may be empty.
            num_outputs: O, outputs of a row.
            hidden: widths of the hidden layers.
            dropout: share of a hidden layer's outputs set to 0 in training.
            embedding: see `RowEmbedding`.
        """
        super().__init__(num_dense, cardinalities, **embedding)
        layers: list[nn.Module] = []
        width = self.width
        for next_width in hidden:
            layers += [nn.Linear(width, next_width), nn.LayerNorm(next_width), nn.SiLU(), nn.Dropout(dropout)]
            width = next_width
        layers.append(nn.Linear(width, num_outputs))
        self.layers = nn.Sequential(*layers)

    def forward(self, dense: torch.Tensor | None = None, ids: torch.Tensor | None = None) -> torch.Tensor:
        """Return outputs (B, O) float32; see `embedded`."""
        outputs: torch.Tensor = self.layers(self.embedded(dense, ids))
        return outputs
