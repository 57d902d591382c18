"""Residual networks for pictures of 32 pixels: He et al., Deep Residual Learning for Image Recognition (2015), section 4.2.

Three stages of n blocks with 16, 32 and 64 channels, n = (depth - 2) / 6; shortcuts have no weights (option A): every other
pixel, and channels of zeros. Names of weights are those of https://github.com/akamaster/pytorch_resnet_cifar10, but for the
linear layer, which a backbone has not.
"""

import torch
from torch import nn
from torch.nn import functional

WIDTHS = (16, 32, 64)


class Block(nn.Module):
    """Two convolutions (3 x 3) and the shortcut around them."""

    def __init__(self, width: int, next_width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, next_width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(next_width)
        self.conv2 = nn.Conv2d(next_width, next_width, 3, 1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(next_width)
        self._stride, self._added = stride, next_width - width

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return (B, next width, H / stride, W / stride) for (B, width, H, W)."""
        hidden = self.bn2(self.conv2(self.bn1(self.conv1(pictures)).relu()))
        shortcut = pictures
        if self._added:
            before = self._added // 2
            skipped = pictures[:, :, :: self._stride, :: self._stride]
            shortcut = functional.pad(skipped, (0, 0, 0, 0, before, self._added - before))
        outputs: torch.Tensor = (hidden + shortcut).relu()
        return outputs


class CifarResNet(nn.Module):
    """The mean over all places of the last stage: 64 numbers for each picture."""

    def __init__(self, depth: int, channels: int) -> None:
        """Build with random weights.

        Args:
            depth: layers with weights, 6 n + 2, the linear one counted.
            channels: of the pictures.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, WIDTHS[0], 3, 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        num_blocks, width = (depth - 2) // 6, WIDTHS[0]
        for stage, next_width in enumerate(WIDTHS, 1):
            blocks = []
            for place in range(num_blocks):
                blocks.append(Block(width, next_width, 2 if stage > 1 and not place else 1))
                width = next_width
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return (B, 64) for `pictures` (B, C, H, W) float32."""
        hidden = self.bn1(self.conv1(pictures)).relu()
        for stage in range(1, len(WIDTHS) + 1):
            hidden = self.get_submodule(f"layer{stage}")(hidden)
        return torch.mean(hidden, (2, 3))
