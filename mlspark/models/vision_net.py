"""A backbone for each picture, and a head over their features, the floats and the embedded ids of the row."""

import contextlib
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from mlspark.features.tensors import Tensors
from mlspark.models.backbones import Backbone
from mlspark.models.gradient_checkpoints import CountedOnce
from mlspark.models.pictures import Normalized, by_picture, key
from mlspark.models.tabular_net import embedding_dim
from mlspark.models.test_time import TestTimeViews

_BLOCK = 4
"""Linear layers get a multiple of so many inputs, zeros at the end: see `engines.eager.ROWS_MULTIPLE`."""


class VisionNet(TestTimeViews):
    """Outputs for rows with pictures.

    Parameters are called backbone.PICTURE.NAME, with the network's own names, head.embeddings.NUMBER.weight,
    head.hidden.NUMBER.* and head.linear.*.
    """

    head_name = "head"
    """What is new where a backbone's weights are taken from elsewhere."""

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        tensors: Tensors,
        num_outputs: int,
        *,
        hidden: Sequence[int],
        embedding_dim_max: int,
        dropout: float,
        checkpoint_gradients: bool,
        flips: bool = False,
    ) -> None:
        """Build the head with random weights drawn from torch's global generator.

        Args:
            backbones: picture -> its network.
            tensors: of a row.
            num_outputs: O, outputs of a row.
            hidden: widths of the head's hidden layers.
            embedding_dim_max: upper bound of the width of an ids column's embedding.
            dropout: share of the inputs of the head's linear layer set to 0 in training.
            checkpoint_gradients: whether the backbones compute activations again in the backward pass.
            flips: see `TestTimeViews`.
        """
        super().__init__(flips=flips)
        self._pictures = tuple(backbones)
        self.normalized = by_picture({name: Normalized(tensors.pictures[name]) for name in backbones})
        self.backbone = by_picture({name: backbone.network for name, backbone in backbones.items()})
        self.head = Head(
            sum(backbone.num_features for backbone in backbones.values()) + tensors.num_dense,
            [(cardinality, embedding_dim(cardinality, embedding_dim_max)) for cardinality in tensors.cardinalities],
            num_outputs,
            hidden=hidden,
            dropout=dropout,
        )
        self._counted_once = CountedOnce() if checkpoint_gradients else None

    def of_view(
        self, pictures: Mapping[str, torch.Tensor], dense: torch.Tensor | None, ids: torch.Tensor | None
    ) -> torch.Tensor:
        """See `TestTimeViews.of_view`."""
        with contextlib.nullcontext() if self._counted_once is None else self._counted_once.forward(self.backbone):
            parts = [self.backbone[key(name)](self.normalized[key(name)](pictures[name])) for name in self._pictures]
        parts += [] if dense is None else [dense]
        outputs: torch.Tensor = self.head(torch.cat(parts, dim=1), ids)
        return outputs


class Head(nn.Module):
    """Embeddings of ids, hidden layers with LayerNorm, and a linear one."""

    def __init__(
        self,
        num_floats: int,
        embeddings: Sequence[tuple[int, int]],
        num_outputs: int,
        *,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        """Build with random weights.

        Args:
            num_floats: features of pictures and floats of a row.
            embeddings: (cardinality, width of a vector) of each ids column.
            num_outputs: O.
            hidden: widths of the hidden layers.
            dropout: share of the inputs of the linear layer set to 0 in training.
        """
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(cardinality, width) for cardinality, width in embeddings)
        width = num_floats + sum(width for _, width in embeddings)
        layers: list[nn.Module] = []
        for next_width in hidden:
            layers += [_Linear(width, next_width), nn.LayerNorm(next_width), nn.SiLU()]
            width = next_width
        self.hidden = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.linear = _Linear(width, num_outputs)

    def forward(self, floats: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
        """Return (B, O) for `floats` (B, num_floats) and ids (B, K) int64."""
        columns = () if ids is None else ids.unbind(1)
        embedded = [embedding(column) for embedding, column in zip(self.embeddings, columns, strict=True)]
        outputs: torch.Tensor = self.linear(self.dropout(self.hidden(torch.cat([floats, *embedded], dim=1))))
        return outputs


class _Linear(nn.Linear):
    """A linear layer whose inputs are filled up with zeros."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__(width + -width % _BLOCK, next_width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(values, (0, self.in_features - values.shape[1])))
