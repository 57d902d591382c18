"""MixUp and CutMix against torchvision's, with the same strength, and against sums by hand."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torchvision.transforms import v2

from mlspark.pictures import mixing
from mlspark.pictures.draws import draw
from mlspark.pictures.mixing import NUM_DRAWS, Mix, Recipe

PHOTOS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 3, 20, 31), dtype=np.uint8))
LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 0])
ONE_LANE = torch.from_numpy(mixing.partners([7], 1))


def draws(count: int = 20_000) -> np.ndarray:
    return draw(3, 1, np.arange(count), [NUM_DRAWS])[0]


def mixed(recipe: Recipe, photos: torch.Tensor = PHOTOS, partner: torch.Tensor = ONE_LANE) -> torch.Tensor:
    return mixing.mixed(photos, partner, torch.from_numpy(recipe.share), torch.from_numpy(recipe.box))


def soft(share: np.ndarray) -> torch.Tensor:
    """The targets as (B, 3) shares of classes."""
    of_own, own = torch.from_numpy(share)[:, None], torch.nn.functional.one_hot(LABELS, 3).float()
    return of_own * own + (1 - of_own) * own[ONE_LANE]


@pytest.mark.parametrize("steps", [0, 1, 37, 64, 127, 128])
def test_mixup_is_torchvisions_of_the_same_strength(steps: int) -> None:
    share = steps / 128
    theirs = v2.MixUp(num_classes=3)
    params = {"lam": share, "labels": LABELS, "batch_size": 7}
    ours = mixed(Recipe(np.full(7, share, np.float32), np.zeros((7, 4), np.int32)))
    floats = theirs.transform(PHOTOS.float(), params)
    assert ours.dtype == torch.uint8
    assert (ours.float() - floats).abs().max() <= 0.5  # the nearest whole number
    torch.testing.assert_close(soft(np.full(7, share, np.float32)), theirs.transform(LABELS, params))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.93, 1.0])
@pytest.mark.parametrize("middle", [(0.0, 0.0), (0.5, 0.4), (0.99, 0.99)])
def test_cutmix_is_torchvisions_of_the_same_strength_and_place(
    monkeypatch: pytest.MonkeyPatch, share: float, middle: tuple[float, float]
) -> None:
    theirs, (height, width) = v2.CutMix(num_classes=3), PHOTOS.shape[2:]
    theirs._dist = SimpleNamespace(sample=lambda shape: share)
    places = iter([int(middle[1] * width), int(middle[0] * height)])
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(places)]))
    pasted, targets = theirs(PHOTOS, LABELS)
    box = mixing._boxes(np.full(7, share), np.tile(middle, (7, 1)), height, width)
    left = 1 - (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / (height * width)
    ours = Recipe(left.astype(np.float32), np.where(left[:, None] < 1, box, 0).astype(np.int32))
    assert torch.equal(mixed(ours), pasted)
    torch.testing.assert_close(soft(ours.share), targets)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 8.0])
def test_strengths_follow_the_beta_distribution(alpha: float) -> None:
    numbers = mixing.beta(alpha, draws()[:, 2:4])
    places = (np.arange(128) + 0.5) / 128
    below = (numbers[:, None] < places).mean(axis=0)
    # The limit of Kolmogorov and Smirnov for one case in a hundred.
    assert np.abs(below - stats.beta(alpha, alpha).cdf(places)).max() < 1.63 / math.sqrt(len(numbers))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 50.0])
def test_strengths_of_the_least_and_greatest_random_numbers_are_shares(alpha: float) -> None:
    ends = np.array([0.0, 0.25, 0.5, 1 - 2.0**-53])
    numbers = mixing.beta(alpha, np.stack(np.meshgrid(ends, ends), -1).reshape(-1, 2))
    assert ((numbers >= 0) & (numbers <= 1)).all()


@pytest.mark.parametrize(
    ("mix", "blended", "cut"),
    [
        (Mix(mixup=1.0), 1.0, 0.0),
        (Mix(cutmix=1.0), 0.0, 1.0),
        (Mix(mixup=1.0, cutmix=1.0), 0.5, 0.5),
        (Mix(mixup=1.0, cutmix=1.0, share=0.4, cutmix_share=0.25), 0.3, 0.1),
        (Mix(), 0.0, 0.0),
    ],
)
def test_pictures_are_mixed_in_the_shares_that_are_asked_for(mix: Mix, blended: float, cut: float) -> None:
    recipe = mixing.recipe(mix, draws(), 32, 24)
    is_cut, is_mixed = recipe.box[:, 2] > recipe.box[:, 0], recipe.share < 1
    areas = (recipe.box[:, 2] - recipe.box[:, 0]) * (recipe.box[:, 3] - recipe.box[:, 1])
    np.testing.assert_allclose(recipe.share[is_cut], 1 - areas[is_cut] / (32 * 24), rtol=1e-6)
    steps = recipe.share[~is_cut] * 128
    assert (steps == np.round(steps)).all()
    # A strength next to 1 leaves a picture as it is: of Beta(1, 1) one in 256, of boxes some more.
    assert is_cut.mean() == pytest.approx(cut, abs=0.02)
    assert (is_mixed & ~is_cut).mean() == pytest.approx(blended, abs=0.02)
    assert recipe.share.dtype == np.float32
    assert recipe.box.min() >= 0
    assert (recipe.box <= [32, 24, 32, 24]).all()


def test_a_row_is_mixed_with_one_of_its_lane_and_each_is_a_partner_once() -> None:
    # Of three lanes: rows 0, 3, 6 and 1, 4 and 2, 5; then a batch of two lanes with one row each, then one of one row.
    assert mixing.partners([7, 2, 1], 3).tolist() == [6, 4, 5, 0, 1, 2, 3, 0, 1, 0]
    for size in range(1, 30):
        partner = mixing.partners([size], 4)
        assert sorted(partner) == list(range(size))
        assert (partner % 4 == np.arange(size) % 4).all()


def test_a_picture_that_is_its_own_partner_stays_as_it_is() -> None:
    recipe = mixing.recipe(Mix(mixup=1.0, cutmix=1.0), draws(7), 20, 31)
    assert torch.equal(mixed(recipe, partner=torch.arange(7)), PHOTOS)
    left = recipe.without(np.array([True, False] * 3 + [True]))
    assert left.share[::2].tolist() == [1.0] * 4
    assert not left.box[::2].any()
    assert torch.equal(mixed(left)[::2], PHOTOS[::2])
    np.testing.assert_array_equal(left.share[1::2], recipe.share[1::2])


def test_pictures_are_the_same_in_parts_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = mixing.recipe(Mix(mixup=0.5, cutmix=1.0), draws(7), 20, 31)
    whole = mixed(recipe)
    monkeypatch.setattr(mixing, "_CHUNK_BYTES", {"cpu": 2 * 3 * 20 * 31})
    assert torch.equal(mixed(recipe), whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_mixes_the_same_bits() -> None:
    recipe = mixing.recipe(Mix(mixup=0.5, cutmix=1.0), draws(7), 20, 31)
    there = [
        tensor.cuda() for tensor in (PHOTOS, ONE_LANE, torch.from_numpy(recipe.share), torch.from_numpy(recipe.box))
    ]
    assert torch.equal(mixing.mixed(*there).cpu(), mixed(recipe))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.5}, "share: nothing is mixed; set mixup or cutmix above 0"),
        ({"cutmix_share": 0.25}, "cutmix_share: nothing is mixed"),
        ({"mixup": -1.0}, "greater than or equal to 0"),
        ({"mixup": math.inf}, "finite"),
        ({"mixup": 1.0, "share": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Mix.model_validate(settings)
