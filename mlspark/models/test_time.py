"""Test-time augmentation: outputs of a row that is not trained on are means over several views of its pictures."""

from collections.abc import Mapping

import torch
from torch import nn


class TestTimeViews(nn.Module):
    """A network of pictures that can look at them twice where it is evaluated: as they are, and mirrored left to right."""

    __test__ = False  # pytest takes names that begin so for tests

    def __init__(self, *, flips: bool) -> None:
        """Say whether it `flips`, which changes neither weights nor their names."""
        super().__init__()
        self._flips = flips

    def forward(
        self, dense: torch.Tensor | None = None, ids: torch.Tensor | None = None, **pictures: torch.Tensor
    ) -> torch.Tensor:
        """Return outputs (B, O) float32 for dense (B, F) float32, ids (B, K) int64 and pictures (B, C, H, W) uint8."""
        outputs = self.of_view(pictures, dense, ids)
        if self.training or not self._flips:
            return outputs
        mirrored = {name: picture.flip(3) for name, picture in pictures.items()}
        return (outputs + self.of_view(mirrored, dense, ids)) / 2

    def of_view(
        self, pictures: Mapping[str, torch.Tensor], dense: torch.Tensor | None, ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the outputs (B, O) of one view of the pictures."""
        raise NotImplementedError
