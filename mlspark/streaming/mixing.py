"""Which pictures of a batch are mixed, with which, how much: three more fields of a batch, followed on the device.

They are a function of seed, epoch and the row's id, and of the lane's rows in the batch, so they are the same for any number
of ranks and workers. The pictures themselves stay uint8 as they were decoded until the batch is where the model computes: a
host's cores are what a stream of pictures is short of, and mixing costs a GPU next to nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlspark.errors import ConfigError, DatasetError
from mlspark.pictures import mixing
from mlspark.pictures.draws import draw
from mlspark.pictures.mixing import Mix
from mlspark.streaming.decoding import FieldSpec
from mlspark.streaming.plan import Integers
from mlspark.streaming.rows import Array

if TYPE_CHECKING:
    import torch

PARTNER, SHARE, BOX = FIELDS = ("mix_partner", "mix_share", "mix_box")
"""(B,) int64, the row of the batch that each is mixed with; (B,) float32, what is left of its own; (B, 4) int32, top, left,
bottom and right of the other's rectangle."""
_PLACE = int.from_bytes(hashlib.sha256(b"mixing").digest()[:8], "little")


@dataclass(frozen=True)
class Mixing:
    """How the pictures of a stream are mixed."""

    mix: Mix
    height: int
    width: int
    seed: int

    @classmethod
    def of(
        cls, mix: Mix | None, specs: Sequence[FieldSpec], *, seed: int, batch_size: int, lanes: int
    ) -> "Mixing | None":
        """Return the mixing of a stream of these fields; None where nothing is mixed.

        Raises:
            ConfigError: there is not one field of pictures, or a lane would have a single row of a batch.
        """
        if mix is not None and not isinstance(mix, Mix):
            raise ConfigError(f"mix is {mix!r}; give mlspark.pictures.mixing.Mix, such as Mix(mixup=0.2, cutmix=1.0)")
        if mix is None or not mix.is_on:
            return None
        pictures = {spec.name: spec.picture for spec in specs if spec.picture is not None}
        if len(pictures) != 1:
            found = f"these are {', '.join(pictures)}" if pictures else "there is none"
            raise ConfigError(f"mix: MixUp and CutMix take one field of pictures, {found}; leave mix out")
        check_batch(mix, "mix", batch_size=batch_size, lanes=lanes)
        [picture] = pictures.values()
        return cls(mix, picture.height, picture.width, seed)

    def fields(self, epoch: int, ids: Integers, sizes: Sequence[int], num_lanes: int) -> tuple[Array, ...]:
        """Return the fields of batches of so many rows, end to end, by the ids (n,) of their rows.

        Args:
            epoch: epoch.
            ids: what tells each row from others.
            sizes: rows of each batch.
            num_lanes: lanes whose rows these are.
        """
        (draws,) = draw(self.seed, epoch, ids, [mixing.NUM_DRAWS], place=_PLACE)
        partner = mixing.partners(sizes, num_lanes)
        is_alone = partner == np.concatenate([np.arange(size) for size in sizes])
        recipe = mixing.recipe(self.mix, draws, self.height, self.width).without(is_alone)
        return partner, recipe.share, recipe.box


def check_batch(
    mix: Mix, name: str, *, batch_size: int, lanes: int, batch_name: str = "batch_size", lanes_name: str = "lanes"
) -> None:
    """Raise ConfigError where a lane would have a single row of a batch, with nothing to be mixed with."""
    if mix.is_on and batch_size < 2 * lanes:
        raise ConfigError(
            f"{name}: rows are mixed with others of their lane, and {batch_name}={batch_size} has fewer than two for each "
            f"of {lanes_name}={lanes}; raise {batch_name} to at least {2 * lanes}, or lower {lanes_name}"
        )


def mixed(batch: Mapping[str, "torch.Tensor"], name: str) -> dict[str, "torch.Tensor"]:
    """Return the batch with its pictures `name` mixed, as the stream's `mix` says; in whole numbers, where the batch is.

    The loss of a row is then share * loss(output, y) + (1 - share) * loss(output, y[partner]), with `mix_share` and
    `mix_partner` of the batch: for cross-entropy that of the mixed target, as cross-entropy is linear in it.

    Raises:
        DatasetError: the stream was opened without `mix`.
    """
    if SHARE not in batch or name not in batch:
        raise DatasetError(
            f"a batch of {', '.join(batch)} has no pictures {name} to mix; open the stream with images={{...}} and "
            f"mix=Mix(...)"
        )
    partner, share, box = (batch[field] for field in FIELDS)
    return {**batch, name: mixing.mixed(batch[name], partner, share, box)}
