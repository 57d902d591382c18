"""Models of pictures: uint8 in, normalised where they compute, floats of the row beside them."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from mlspark import models
from mlspark.engines import eager
from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models.cnn import CnnSettings
from mlspark.models.model import Model
from mlspark.models.pictures import Normalized
from mlspark.models.softmax import SoftmaxSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.trees import TreesSettings
from mlspark.models.vision import VisionSettings
from mlspark.pictures.spec import PictureSpec

SPEC = PictureSpec("RGB", 9, 12, mean=(0.5, 0.25, 0.0), std=(0.25, 0.5, 0.0))
PHOTO = TensorSpec("photo", ("photo",), "uint8", picture=SPEC)
DENSE = TensorSpec("dense", ("age", "hours"), "float32")
IDS = TensorSpec("ids", ("job",), "int64", (7,))


def batch(count: int, *specs: TensorSpec) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(count)
    return {
        spec.name: torch.from_numpy(
            random.integers(0, 256, (count, *spec.shape), np.uint8)
            if spec.picture
            else random.normal(size=(count, *spec.shape)).astype(np.float32)
        )
        for spec in specs
    }


def test_pictures_are_normalised_by_channel() -> None:
    pictures = torch.full((2, 3, 9, 12), 51, dtype=torch.uint8)
    floats = Normalized(SPEC)(pictures)
    assert floats.dtype == torch.float32
    # (0.2 - 0.5) / 0.25, (0.2 - 0.25) / 0.5; a channel without any spread keeps its values.
    torch.testing.assert_close(floats[1, :, 4, 5], torch.tensor([-1.2, -0.1, 0.2]))
    white = torch.tensor([[[[255]]]], dtype=torch.uint8)
    torch.testing.assert_close(Normalized(PictureSpec("L", 1, 1))(white).sum(), torch.tensor(1.0))
    assert not list(Normalized(SPEC).state_dict())


def test_softmax_is_one_linear_layer_that_starts_at_zero() -> None:
    model = models.build(SoftmaxSettings(), Tensors((DENSE, PHOTO)), 4)
    assert sum(weights.numel() for weights in model.parameters()) == (2 + 3 * 9 * 12 + 1) * 4
    assert not model(**batch(5, DENSE, PHOTO)).any()
    one, two = batch(2, PHOTO), batch(2, PHOTO)
    only = models.build(SoftmaxSettings(), Tensors((PHOTO,)), 1)
    torch.nn.init.normal_(only.linear.weight)  # type: ignore[union-attr,arg-type]
    torch.testing.assert_close(only(**one), only(**two))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_cnn_reads_pictures_of_any_size_and_floats(norm: str) -> None:
    settings = CnnSettings.model_validate({"kind": "cnn", "widths": (8, 12), "depth": 2, "norm": norm})
    tiny = TensorSpec("tiny", ("tiny",), "uint8", picture=PictureSpec("L", 1, 1))
    model = models.build(settings, Tensors((DENSE, PHOTO, tiny)), 3)
    rows = batch(6, DENSE, PHOTO, tiny)
    outputs = model.train()(**rows)
    assert outputs.shape == (6, 3)
    outputs.sum().backward()
    assert all(weights.grad is not None for weights in model.parameters())
    changed = dict(rows, photo=rows["photo"].clone())
    changed["photo"][1:] = 0
    alone = torch.allclose(model(**changed)[0], model(**rows)[0])
    assert alone == (norm == "group")  # of batch norm a row in training depends on the others


def test_a_version_of_a_cnn_gives_a_row_the_same_bits_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    # Sixteen inputs of the last layer: see `eager.ROWS_MULTIPLE`.
    settings, tensors = CnnSettings(widths=(8, 14)), Tensors((DENSE, PHOTO))
    model = models.build(settings, tensors, 3)
    model.train()(**batch(40, DENSE, PHOTO))  # statistics that are not those of the start
    files = eager.pack(settings, tensors, 3, model.state_dict())
    engine = eager.load(files)
    rows = {name: value.numpy() for name, value in batch(301, DENSE, PHOTO).items()}
    together = engine.run(rows)
    for row in (0, 7, 150, 300):
        alone = engine.run({name: value[row : row + 1] for name, value in rows.items()})
        np.testing.assert_array_equal(alone[0], together[row])
    with torch.inference_mode():
        expected = model.eval()(**{name: torch.from_numpy(value) for name, value in rows.items()})
    np.testing.assert_allclose(together, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [CnnSettings(widths=(4,), depth=1), VisionSettings(backbone="resnet20")],
    ids=lambda settings: str(settings.kind),
)
def test_a_flip_at_test_time_is_the_mean_of_both_views(settings: Model) -> None:
    torch.manual_seed(0)
    flipping = settings.model_copy(update={"test_time": ("flip",)})
    once, twice = (models.build(each, Tensors((DENSE, PHOTO)), 3) for each in (settings, flipping))
    assert list(once.state_dict()) == list(twice.state_dict())
    twice.load_state_dict(once.state_dict())
    rows = batch(16, DENSE, PHOTO)
    mirrored = dict(rows, photo=rows["photo"].flip(3))
    with torch.inference_mode():
        expected = (once.eval()(**rows) + once(**mirrored)) / 2
        assert torch.equal(twice.eval()(**rows), expected)
        assert torch.equal(twice(**mirrored), (once(**mirrored) + once(**rows)) / 2)
        assert not torch.equal(expected, once(**rows))
    assert torch.equal(twice.train()(**rows), once.train()(**rows))
    engine = eager.load(eager.pack(flipping, Tensors((DENSE, PHOTO)), 3, once.state_dict()))
    values = {name: value.numpy() for name, value in rows.items()}
    alone = engine.run({name: value[3:4] for name, value in values.items()})
    np.testing.assert_array_equal(alone[0], engine.run(values)[3])


@pytest.mark.parametrize(
    ("settings", "specs", "message"),
    [
        (TabularSettings(), (DENSE, PHOTO), "model.kind=tabular takes no pictures (photo); use model.kind=vision, cnn"),
        (TreesSettings(), (PHOTO,), "model.kind=trees takes no pictures (photo)"),
        (CnnSettings(), (DENSE,), "model.kind=cnn needs a picture"),
        (CnnSettings(), (IDS, PHOTO), "model.kind=cnn takes no ids (job); make floats of them"),
        (SoftmaxSettings(), (IDS,), "model.kind=softmax takes no ids (job)"),
    ],
)
def test_a_model_refuses_what_it_cannot_read(settings: Model, specs: tuple[TensorSpec, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.check_tensors(Tensors(specs))
    assert message in str(caught.value)


def test_settings_survive_json() -> None:
    for settings in (CnnSettings(widths=(4,)), SoftmaxSettings()):
        assert models.from_json(settings.model_dump(mode="json")) == settings
    with pytest.raises(Exception, match="at least 1"):
        CnnSettings(widths=())


def own(tensors: Tensors, num_outputs: int) -> torch.nn.Module:
    """A model of a user's own."""

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.normalized = Normalized(tensors.pictures["photo"])
            self.layer = torch.nn.Linear(3 + tensors.num_dense, num_outputs)

        def forward(self, photo: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
            assert photo.dtype == torch.uint8
            outputs: torch.Tensor = self.layer(torch.cat([self.normalized(photo).mean((2, 3)), dense], dim=1))
            return outputs

    return Mean()


def test_a_model_of_ones_own_gets_pictures_as_they_are() -> None:
    settings: Any = models.from_json({"kind": "custom", "factory": f"{__name__}:own"})
    settings.check_tensors(Tensors((DENSE, PHOTO)))
    model = own(Tensors((DENSE, PHOTO)), 2)
    outputs = model(**batch(3, PHOTO, DENSE))
    assert outputs.shape == (3, 2)
    assert math.isfinite(outputs.sum().item())
