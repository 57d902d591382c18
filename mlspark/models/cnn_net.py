"""A small convolutional network: stages of 3 x 3 convolutions, global average pooling, one linear layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from mlspark.models.pictures import Normalized, by_picture, key
from mlspark.models.test_time import TestTimeViews
from mlspark.pictures.spec import PictureSpec

_GROUP_CHANNELS = 8


class CnnNet(TestTimeViews):
    """Outputs for pictures, and for the floats beside them."""

    def __init__(
        self,
        pictures: Mapping[str, PictureSpec],
        num_dense: int,
        num_outputs: int,
        *,
        widths: Sequence[int],
        depth: int,
        norm: Literal["batch", "group"],
        dropout: float,
        flips: bool = False,
    ) -> None:
        """Build with random weights drawn from torch's global generator.

        Args:
            pictures: tensor -> its pictures, of any size.
            num_dense: F, number of dense columns; may be 0.
            num_outputs: O, outputs of a row.
            widths: channels of each stage; every stage but the first halves height and width.
            depth: convolutions of each stage.
            norm: after each convolution.
            dropout: share of the linear layer's inputs set to 0 in training.
            flips: see `TestTimeViews`.
        """
        super().__init__(flips=flips)
        self._pictures = tuple(pictures)
        self.towers = by_picture({name: _tower(spec, widths, depth, norm) for name, spec in pictures.items()})
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(num_dense + len(pictures) * widths[-1], num_outputs)

    def of_view(
        self, pictures: Mapping[str, torch.Tensor], dense: torch.Tensor | None, ids: torch.Tensor | None
    ) -> torch.Tensor:
        """See `TestTimeViews.of_view`; there are no ids."""
        parts = [self.towers[key(name)](pictures[name]) for name in self._pictures]
        parts += [] if dense is None else [dense]
        outputs: torch.Tensor = self.linear(self.dropout(torch.cat(parts, dim=1)))
        return outputs


def _tower(spec: PictureSpec, widths: Sequence[int], depth: int, norm: Literal["batch", "group"]) -> nn.Sequential:
    """Return what makes (B, widths[-1]) of a picture."""
    layers: list[nn.Module] = [Normalized(spec)]
    width = spec.shape[0]
    for stage, next_width in enumerate(widths):
        for place in range(depth):
            stride = 2 if stage and not place else 1
            layers += [
                nn.Conv2d(width, next_width, 3, stride, padding=1, bias=False),
                _norm(next_width, norm),
                nn.ReLU(),
            ]
            width = next_width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _norm(width: int, norm: Literal["batch", "group"]) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(width)
    return nn.GroupNorm(math.gcd(width, max(1, width // _GROUP_CHANNELS)), width)
