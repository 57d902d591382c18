"""Pictures where a model computes: uint8 batches become floats on the device, never before."""

from collections.abc import Mapping

import torch
from torch import nn

from mlspark.pictures.spec import PictureSpec


class Normalized(nn.Module):
    """Floats of a picture: values / 255, less the mean of the training rows, over their standard deviation, by channel."""

    def __init__(self, spec: PictureSpec) -> None:
        """Take the statistics of `spec`; where it has none, or a channel is the same everywhere, values stay as they are."""
        super().__init__()
        channels = spec.shape[0]
        mean = torch.tensor(spec.mean or [0.0] * channels, dtype=torch.float64)
        std = torch.tensor([value or 1.0 for value in spec.std] or [1.0] * channels, dtype=torch.float64)
        # Not weights: they travel with the tensors that the model is made for.
        self.register_buffer("scale", (1 / (255 * std)).float().view(1, channels, 1, 1), persistent=False)
        self.register_buffer("shift", (-mean / std).float().view(1, channels, 1, 1), persistent=False)
        self.scale: torch.Tensor
        self.shift: torch.Tensor

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W) float32 for `pictures` (B, C, H, W) uint8."""
        return pictures.to(self.scale.dtype) * self.scale + self.shift


def by_picture(modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """Return a module for each picture, under its `key`."""
    return nn.ModuleDict({key(name): module for name, module in modules.items()})


def key(picture: str) -> str:
    """Return the key of a picture's module: its name; with a line behind it where torch has something of that name."""
    return (
        f"{picture}_" if picture.endswith("_") or hasattr(nn.ModuleDict, picture) or picture == "training" else picture
    )
