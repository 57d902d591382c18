"""Pictures of a batch mixed with each other while a model trains, MixUp and CutMix: settings and effect. Runs anywhere.

MixUp (Zhang et al. 2018, arXiv:1710.09412): the picture is share * picture + (1 - share) * partner. CutMix (Yun et al. 2019,
arXiv:1905.04899): a rectangle of it is the partner's, and share is what is left of its own area. Either way share belongs to
the picture's own target and the rest to the partner's.

Everything is done in whole numbers, on the uint8 pictures, so that a CPU and a GPU give equal bits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from mlspark.pictures.augment import Draws, Share, Strength
from mlspark.section import Section

if TYPE_CHECKING:
    import torch

NUM_DRAWS = 6
"""Random numbers of a picture."""
_STEPS = 128  # a share is a multiple of 1 / this: products with differences of two bytes fit into 16 bits
_CHUNK_BYTES = {
    "cpu": 2**18
}  # of pictures mixed at a time, so that they stay in the cache: 4 times as fast as all at once
_CHUNK_BYTES_ELSEWHERE = 64 * 2**20


class Mix(Section):
    """How the pictures that a model learns from are mixed with each other; not at all unless `mixup` or `cutmix` is set."""

    mixup: Strength = 0.0
    """Pictures are blended with another one of the batch, in shares that follow Beta(mixup, mixup); 0: none are."""
    cutmix: Strength = 0.0
    """Pictures get a rectangle of another one of the batch, whose area is in shares of Beta(cutmix, cutmix); 0: none do."""
    share: Share = 1.0
    """Share of the pictures that are mixed."""
    cutmix_share: Share = 0.5
    """Share of the mixed pictures that get a rectangle and are not blended, where both are set."""

    @model_validator(mode="after")
    def _mixes_something(self) -> "Mix":
        changed = [name for name, usual in (("share", 1.0), ("cutmix_share", 0.5)) if getattr(self, name) != usual]
        if changed and not self.is_on:
            raise ValueError(f"{changed[0]}: nothing is mixed; set mixup or cutmix above 0, or leave it out")
        return self

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup > 0 or self.cutmix > 0


@dataclass(frozen=True)
class Recipe:
    """What becomes of each of n pictures, as far as it does not depend on its partner."""

    share: NDArray[np.float32]
    """(n,): what is left of the picture itself, 1 where it is not mixed; with MixUp a multiple of 1/128."""
    box: NDArray[np.int32]
    """(n, 4): top, left, bottom and right of the partner's rectangle; zeros where there is none."""

    def without(self, rows: NDArray[np.bool_]) -> "Recipe":
        """Return the same with some pictures left as they are."""
        return Recipe(np.where(rows, np.float32(1), self.share), np.where(rows[:, None], np.int32(0), self.box))


def recipe(mix: Mix, draws: Draws, height: int, width: int) -> Recipe:
    """Return what becomes of pictures of this size by their random numbers (n, NUM_DRAWS)."""
    is_mixed = draws[:, 0] < mix.share
    is_cut = draws[:, 1] < (mix.cutmix_share if mix.mixup else 1.0) if mix.cutmix else np.zeros(len(draws), np.bool_)
    blended, cut = (beta(alpha, draws[:, 2:4]) if alpha else np.ones(len(draws)) for alpha in (mix.mixup, mix.cutmix))
    box = _boxes(np.where(is_mixed & is_cut, cut, 1.0), draws[:, 4:6], height, width)
    areas = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    share = np.where(is_cut, 1 - areas / (height * width), np.round(blended * _STEPS) / _STEPS)
    return Recipe(np.where(is_mixed, share, 1.0).astype(np.float32), np.where(areas[:, None] > 0, box, 0))


def beta(alpha: float, draws: Draws) -> NDArray[np.float64]:
    """Return numbers of the distribution Beta(alpha, alpha) from two uniform ones each, (n, 2).

    Exact for every alpha, in two numbers: Devroye 1996, Random variate generation in one line of code, from the way to
    Student's t of Bailey 1994.
    """
    cosine = np.cos(2 * math.pi * draws[:, 1])
    with np.errstate(over="ignore", divide="ignore"):
        odds = ((1 - draws[:, 0]) ** (-1 / alpha) - 1) * cosine**2
        return np.asarray(0.5 + 0.5 * np.copysign(1 / np.sqrt(1 + 1 / odds), cosine))


def _boxes(share: NDArray[np.float64], draws: Draws, height: int, width: int) -> NDArray[np.int32]:
    """Return rectangles whose sides are sqrt(1 - share) of the picture's, (n, 4), around any pixel, cut off at its edges.

    The rule is that of torchvision, whole numbers of pixels on either side of the middle.
    """
    half = 0.5 * np.sqrt(1 - share)
    y, x = np.floor(draws[:, 0] * height), np.floor(draws[:, 1] * width)
    high, wide = np.floor(half * height), np.floor(half * width)
    sides = [
        np.maximum(y - high, 0),
        np.maximum(x - wide, 0),
        np.minimum(y + high, height),
        np.minimum(x + wide, width),
    ]
    return np.stack(sides, axis=1).astype(np.int32)


def partners(sizes: Sequence[int], num_lanes: int) -> NDArray[np.int64]:
    """Return for each row of batches of these sizes, end to end, its partner's place in its own batch: (sum of sizes,).

    It is the row before it of the same lane, of the first row of a lane the last one: each row is a partner once. The rows
    of a rank go round its lanes, so a lane's rows of a batch, and with them the pairs, are the same on any number of ranks.
    The only row of a lane is its own partner.
    """
    parts = []
    for size in sizes:
        row = np.arange(size)
        parts.append(np.where(row >= num_lanes, row - num_lanes, row + (size - 1 - row) // num_lanes * num_lanes))
    return np.concatenate(parts)


def mixed(
    pictures: "torch.Tensor", partner: "torch.Tensor", share: "torch.Tensor", box: "torch.Tensor"
) -> "torch.Tensor":
    """Return pictures (B, C, H, W) uint8 mixed with their partners (B,), by the shares (B,) and boxes (B, 4) of a recipe.

    Runs where the pictures are, and waits for nothing there.
    """
    import torch

    height, width = pictures.shape[2:]
    y = torch.arange(height, device=pictures.device).view(1, 1, height, 1)
    x = torch.arange(width, device=pictures.device).view(1, 1, 1, width)
    result, box = torch.empty_like(pictures), box.view(-1, 4, 1, 1, 1)
    is_cut = box[:, 2] > box[:, 0]
    steps = torch.where(is_cut, _STEPS, (share * _STEPS).round().view(-1, 1, 1, 1)).short()
    rows_at_once = max(1, _CHUNK_BYTES.get(pictures.device.type, _CHUNK_BYTES_ELSEWHERE) // pictures[0].numel())
    for start in range(0, len(pictures), rows_at_once):
        part = slice(start, start + rows_at_once)
        other = pictures[partner[part]]
        blended = pictures[part].short().sub_(other).mul_(steps[part])
        blended = blended.add_(_STEPS // 2).bitwise_right_shift_(7).add_(other)
        top, left, bottom, right = box[part].unbind(1)
        is_others = (y >= top) & (y < bottom) & (x >= left) & (x < right)
        result[part] = torch.where(is_others, other, blended.to(torch.uint8))
    return result
