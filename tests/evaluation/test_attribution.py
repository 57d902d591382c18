"""What columns and pixels add to an output: adds up to it, is zero where nothing is read, and points at what decides."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam
from numpy.typing import NDArray
from torch import nn

from mlspark.engines import eager, trees
from mlspark.engines.eager import Eager
from mlspark.evaluation import attribution
from mlspark.evaluation.attribution import GRAD_CAM, GRADIENTS, SHAP, AttributionError
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import trees as tree_models
from mlspark.models.cnn import CnnSettings
from mlspark.models.softmax import SoftmaxSettings
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.trees import Rows, TreesSettings
from mlspark.models.vision import VisionSettings
from mlspark.pictures.spec import PictureSpec
from mlspark.tasks.kinds import from_settings

BINARY = from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"]})
THREE = from_settings({"kind": "multiclass", "target": "y", "classes": ["a", "b", "c"]})
NUMBER = from_settings(
    {"kind": "regression", "target": "y", "standardise": False, "loss": {"kind": "quantile", "quantiles": [0.1, 0.5]}}
)
COLUMNS = Tensors(
    (TensorSpec("dense", ("age", "hours"), "float32"), TensorSpec("ids", ("job", "town"), "int64", (5, 7)))
)
PICTURE = PictureSpec("RGB", 16, 16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
PHOTO = TensorSpec("photo", ("photo",), "uint8", picture=PICTURE)


def rows(tensors: Tensors, count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    made: dict[str, NDArray[Any]] = {}
    if tensors.num_dense:
        made["dense"] = random.normal(size=(count, tensors.num_dense)).astype(np.float32)
    if tensors.cardinalities:
        made["ids"] = np.stack([random.integers(0, ids, count) for ids in tensors.cardinalities], axis=1)
    for name, picture in tensors.pictures.items():
        made[name] = random.integers(0, 256, (count, *picture.shape), np.uint8)
    return made


def engine(settings: Any, tensors: Tensors, num_outputs: int) -> Eager:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = settings.build(tensors, num_outputs)
        if settings.kind == "softmax":  # begins with zeros
            nn.init.normal_(network.linear.weight, std=0.1)
    return eager.load(eager.pack(settings, tensors, num_outputs, network.state_dict()))


MIXED = Tensors((*COLUMNS.specs, PHOTO))


@pytest.mark.parametrize(
    ("settings", "tensors", "task"),
    [
        (TabularSettings(hidden=(16,), dense_scale=0.1), COLUMNS, BINARY),
        (TabularSettings(hidden=(16,), dense_scale=200.0), COLUMNS, BINARY),  # hundreds of periods on the way
        (TabularSettings(hidden=(16,), dense_frequencies=0), COLUMNS.only(["ids"]), THREE),
        (TabmSettings(hidden=(8,), members=3, dense_scale=0.1), COLUMNS, NUMBER),
        (SoftmaxSettings(kind="softmax"), Tensors((PHOTO,)), THREE),
        (CnnSettings(kind="cnn", widths=(4, 8), depth=1, norm="group"), MIXED.only(["dense", "photo"]), THREE),
        (VisionSettings(kind="vision", backbone="resnet20"), MIXED, BINARY),
    ],
)
def test_contributions_of_a_network_add_up_to_its_output(settings: Any, tensors: Tensors, task: Any) -> None:
    model, some, others = engine(settings, tensors, task.num_outputs), rows(tensors, 5), rows(tensors, 40, seed=1)
    outputs = model.run(some)
    factors = attribution.explained(task, outputs, np.zeros(5))
    found = attribution.contributions(model, some, factors, reference=others, steps=100)
    assert found.method == GRADIENTS
    assert found.columns == tuple(column for spec in tensors.specs for column in spec.columns)
    np.testing.assert_allclose(found.output, (factors * outputs).sum(axis=1), rtol=1e-5, atol=1e-5)
    far = np.abs(found.output - found.start).max()
    assert far > 0.01
    np.testing.assert_allclose(found.start + found.values.sum(axis=1), found.output, atol=0.02 * far)
    for name in tensors.pictures:
        place = found.columns.index(name)
        np.testing.assert_allclose(found.pixels[name].sum(axis=(1, 2)), found.values[:, place], atol=1e-9)
    assert all(not module._forward_hooks for module in model.network.modules())


def test_a_linear_network_adds_weight_times_distance_from_the_mean() -> None:
    tensors = Tensors((PHOTO,))
    model = engine(SoftmaxSettings(kind="softmax"), tensors, 3)
    some, others = rows(tensors, 4), rows(tensors, 30, seed=1)
    factors = attribution.explained(THREE, model.run(some), np.array([0, 1, 2, 0]))
    found = attribution.contributions(model, some, factors, reference=others, steps=3)
    weight = model.network.get_parameter("linear.weight").detach().numpy().reshape(3, 3, 16, 16)
    distance = (some["photo"] - others["photo"].mean(axis=0)) / 255 / np.array(PICTURE.std)[:, None, None]
    expected = np.einsum("no,ochw,nchw->nhw", factors, weight, distance)
    np.testing.assert_allclose(found.pixels["photo"], expected, atol=1e-5)


def test_gradients_and_maps_are_those_of_captum() -> None:
    tensors = MIXED.only(["dense", "photo"])
    model = engine(CnnSettings(kind="cnn", widths=(4, 8), depth=1, norm="group"), tensors, 3)
    some, others = rows(tensors, 4), rows(tensors, 30, seed=1)
    factors = attribution.explained(THREE, model.run(some), np.array([0, 1, 2, 0]))
    found = attribution.contributions(model, some, factors, reference=others, steps=20)
    [maps] = attribution.heat_maps(model, some, factors).values()

    def number(dense: torch.Tensor, photo: torch.Tensor) -> torch.Tensor:
        weights = torch.from_numpy(factors).repeat(len(dense) // len(factors), 1)  # captum runs all steps as one batch
        return (model.network(dense=dense, photo=photo).double() * weights).sum(1)

    ends = tuple(torch.from_numpy(some[name]).float() for name in ("dense", "photo"))
    starts = tuple(torch.from_numpy(others[name]).float().mean(0, keepdim=True) for name in ("dense", "photo"))
    dense, photo = IntegratedGradients(number).attribute(ends, starts, n_steps=20, method="gausslegendre")
    np.testing.assert_allclose(found.values[:, :2], dense.detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.pixels["photo"], photo.detach().sum(1), rtol=1e-4, atol=1e-5)
    spread = [module for module in model.network.modules() if isinstance(module, nn.ReLU)][-1]
    grad_cam = LayerGradCam(number, spread).attribute(ends, relu_attributions=True, attr_dim_summation=True)
    expected = LayerAttribution.interpolate(grad_cam.detach(), (16, 16), "bilinear")[:, 0]
    np.testing.assert_allclose(maps.values, expected / expected.amax((1, 2), keepdim=True), atol=1e-4)


def test_what_is_explained_of_classes_is_the_predicted_one_against_the_true_or_the_next() -> None:
    outputs = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    assert attribution.explained(THREE, outputs, np.array([0, 1, 2])).tolist() == [[1, 0, -1], [1, -1, 0], [0, 1, -1]]
    assert attribution.explained(BINARY, np.array([[2.0]]), np.array([1.0])).tolist() == [[1]]
    assert attribution.explained(NUMBER, np.array([[2.0, 3.0]]), np.array([1.0])).tolist() == [[0, 1]]
    # The median of quantiles in the wrong order.
    assert attribution.explained(NUMBER, np.array([[3.0, 2.0]]), np.array([1.0])).tolist() == [[1, 0]]


@pytest.mark.parametrize("task", [BINARY, THREE])
def test_contributions_of_trees_add_up_and_leave_out_what_they_do_not_read(task: Any) -> None:
    some = rows(COLUMNS, 400)
    target = (some["dense"][:, 0] > 0) + (some["ids"][:, 1] > 3) * (task is THREE)
    settings = TreesSettings(num_rounds=20, early_stopping_rounds=0, threads=1, colsample=1.0, max_depth=2)
    booster = tree_models.grow(settings, task, COLUMNS, train=Rows(some, target), validation=None, seed=1)
    model = trees.load(trees.pack(settings, COLUMNS, task.num_outputs, booster))
    outputs = model.run(some)
    factors = attribution.explained(task, outputs, target)
    found = attribution.contributions(model, some, factors, reference=some)
    assert (found.method, found.columns) == (SHAP, ("age", "hours", "job", "town"))
    np.testing.assert_allclose(found.start + found.values.sum(axis=1), (factors * outputs).sum(axis=1), atol=1e-4)
    by_column = dict(zip(found.columns, np.abs(found.values).mean(axis=0), strict=True))
    assert max(by_column, key=by_column.__getitem__) == "age"
    if task is BINARY:  # town says nothing there
        assert by_column["town"] < 0.1 * by_column["age"]


class Shared(nn.Module):
    """One table of vectors for both columns: what each adds cannot be told."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors, self.linear = nn.Embedding(12, 3), nn.Linear(6, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.linear(self.vectors(ids).flatten(1))
        return outputs


def test_ids_that_share_an_embedding_are_refused_by_name() -> None:
    tensors = COLUMNS.only(["ids"])
    some = rows(tensors, 3)
    with pytest.raises(AttributionError, match=r"ids \(job, town\): this network does not take each column through"):
        attribution.contributions(Eager(Shared(), tensors, 1), some, np.ones((3, 1)), reference=some)


class Other:
    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        return np.zeros((len(tensors["dense"]), 1))


def test_an_engine_of_another_kind_is_refused_by_name() -> None:
    some = rows(COLUMNS, 3)
    with pytest.raises(AttributionError, match="engine Other: only outputs of trees and of networks"):
        attribution.contributions(Other(), some, np.ones((3, 1)), reference=some)
    assert attribution.heat_maps(Other(), some, np.ones((3, 1))) == {}


def squares(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise, half of it with a striped square in the last corner, and which half."""
    random = np.random.default_rng(seed)
    pictures = random.integers(0, 80, (count, 3, 16, 16), np.uint8)
    has_square = np.arange(count) % 2
    pictures[has_square == 1, :, 10:15, 10:15] = np.where(np.arange(5) % 2, 0, 255)
    return pictures, has_square


def test_grad_cam_lights_up_where_the_shape_is() -> None:
    tensors = Tensors((PHOTO,))
    pictures, has_square = squares(100, seed=3)
    settings = CnnSettings(kind="cnn", widths=(8, 8), depth=1, norm="batch", dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = settings.build(tensors, 1)
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        for _ in range(40):
            loss = nn.functional.binary_cross_entropy_with_logits(
                network(photo=torch.from_numpy(pictures))[:, 0], torch.from_numpy(has_square).float()
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    assert loss < 0.1
    model = eager.load(eager.pack(settings, tensors, 1, network.state_dict()))
    shown = {"photo": pictures[has_square == 1][:10]}
    found = attribution.heat_maps(model, shown, attribution.explained(BINARY, model.run(shown), np.ones(10)))
    maps = found["photo"]
    assert maps.method == GRAD_CAM
    assert maps.values.shape == (10, 16, 16)
    assert maps.values.min() >= 0
    assert maps.values.max(axis=(1, 2)) == pytest.approx(np.ones(10))
    in_corner, elsewhere = maps.values[:, 9:, 9:].mean(axis=(1, 2)), maps.values[:, :8, :8].mean(axis=(1, 2))
    assert (in_corner > 3 * elsewhere).all()


def test_a_network_without_convolutions_has_no_such_map() -> None:
    tensors = Tensors((PHOTO,))
    model = engine(SoftmaxSettings(kind="softmax"), tensors, 3)
    some = rows(tensors, 2)
    assert attribution.heat_maps(model, some, np.ones((2, 3))) == {}
