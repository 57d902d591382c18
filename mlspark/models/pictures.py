"""Pictures where a model computes: uint8 batches become floats on the device, never before."""

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
