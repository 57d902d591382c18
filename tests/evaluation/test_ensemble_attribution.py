"""What columns and pixels add to an ensemble's output: captum's of the same combination, and sums over its members."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam
from torch import nn
from torch.nn import functional

from mlspark.engines import trees
from mlspark.engines.combination import Combination
from mlspark.engines.ensemble import Ensemble
from mlspark.evaluation import attribution, member_factors
from mlspark.evaluation.attribution import GRADIENTS, SHAP, AttributionError
from mlspark.features.tensors import Tensors
from mlspark.models import trees as tree_models
from mlspark.models.cnn import CnnSettings
from mlspark.models.softmax import SoftmaxSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.trees import Rows, TreesSettings

from .test_attribution import BINARY, COLUMNS, PHOTO, THREE, engine, rows

MEAN = {"kind": "mean", "weights": (0.7, 0.0, 0.3)}
COMBINATIONS = [
    (Combination(link="softmax", **MEAN), 3),
    (Combination(link="logistic", **MEAN), 1),
    (Combination(link="none", **MEAN), 2),
    (
        Combination(
            "linear", "softmax", coefficients=((1.0, 0.5, 0.0) * 3, (0.2,) * 9, (-1.0,) * 9), intercepts=(1.0,) * 3
        ),
        3,
    ),
    (Combination("linear", "logistic", coefficients=((0.5, 0.2, 2.0),), intercepts=(1.0,)), 1),
    (Combination("linear", "none", coefficients=((0.5, 0.2, 2.0),), intercepts=(1.0,)), 1),
]


def combined(rule: Combination, outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """What `Combination.apply` returns, in torch and by the definitions."""
    if rule.kind == "linear":
        of_link = {"softmax": lambda z: z.log_softmax(1), "logistic": lambda z: z, "none": lambda z: z.sort(1).values}
        features = torch.cat([of_link[rule.link](each) for each in outputs], dim=1)
        return features @ torch.tensor(rule.coefficients).double().T + torch.tensor(rule.intercepts)
    pairs = list(zip(rule.weights, outputs, strict=True))
    if rule.link == "softmax":
        return sum((weight * each.softmax(1) for weight, each in pairs), torch.zeros(())).log()
    if rule.link == "logistic":
        return torch.logit(sum((weight * each.sigmoid() for weight, each in pairs), torch.zeros(())))
    return sum((weight * each.sort(1).values for weight, each in pairs), torch.zeros(()))


@pytest.mark.parametrize(("rule", "num_outputs"), COMBINATIONS)
def test_factors_of_members_are_integrated_gradients_of_the_combination(rule: Combination, num_outputs: int) -> None:
    random = np.random.default_rng(3)
    starts, ends = ([random.normal(size=(5, num_outputs)) for _ in range(3)] for _ in range(2))
    of_ensemble = random.normal(size=(5, len(rule.intercepts) or num_outputs))
    found = member_factors.factors(rule, starts, ends, of_ensemble)

    def number(*outputs: torch.Tensor) -> torch.Tensor:
        return (combined(rule, outputs) * torch.from_numpy(of_ensemble).repeat(len(outputs[0]) // 5, 1)).sum(1)

    tensors = [tuple(map(torch.from_numpy, each)) for each in (ends, starts)]
    expected = IntegratedGradients(number).attribute(*tensors, n_steps=64, method="gausslegendre")
    for factor, start, end, of_member in zip(found, starts, ends, expected, strict=True):
        np.testing.assert_allclose(factor * (end - start), of_member, atol=1e-10)
    np.testing.assert_allclose(number(*tensors[0]), (rule.apply(ends) * of_ensemble).sum(1), atol=1e-6)
    for slope, factor in zip(member_factors.slopes(rule, ends, of_ensemble), found, strict=True):
        assert slope.shape == factor.shape


def grown(task: Any) -> trees.Trees:
    """Trees that read columns."""
    some = rows(COLUMNS, 300)
    target = (some["dense"][:, 0] > 0) + (some["ids"][:, 1] > 3) * (task is THREE)
    settings = TreesSettings(num_rounds=10, early_stopping_rounds=0, threads=1, max_depth=2)
    booster = tree_models.grow(settings, task, COLUMNS, train=Rows(some, target), validation=None, seed=1)
    return trees.load(trees.pack(settings, COLUMNS, task.num_outputs, booster))


@pytest.mark.parametrize("task", [BINARY, THREE])
@pytest.mark.parametrize("kind", ["mean", "linear"])
def test_contributions_of_trees_and_networks_add_up_to_the_output_of_both(task: Any, kind: Any) -> None:
    count = task.num_outputs
    of_ids = COLUMNS.only(["ids"])
    members = [
        grown(task),
        engine(TabularSettings(hidden=(16,), dense_scale=0.1), COLUMNS, count),
        engine(TabularSettings(hidden=(8,), dense_frequencies=0), of_ids, count),
    ]
    rule = Combination(
        kind,
        task.link,
        weights=(0.5, 0.3, 0.2),
        coefficients=tuple(map(tuple, np.random.default_rng(0).normal(size=(count, 3 * count)).tolist())),
        intercepts=(0.3,) * count,
    )
    model = Ensemble(members, rule, COLUMNS)
    some, others = rows(COLUMNS, 5), rows(COLUMNS, 40, seed=1)
    outputs = model.run(some)
    factors = attribution.explained(task, outputs, np.zeros(5))
    found = attribution.contributions(model, some, factors, reference=others, steps=50)
    assert found.method == f"{SHAP} and {GRADIENTS}"
    assert found.columns == ("age", "hours", "job", "town")
    np.testing.assert_allclose(found.output, (factors * outputs).sum(axis=1))
    far = np.abs(found.output - found.start).max()
    assert far > 0.01
    np.testing.assert_allclose(found.start + found.values.sum(axis=1), found.output, atol=0.02 * far)


def test_a_mean_of_numbers_has_the_mean_of_what_its_members_have() -> None:
    members = [engine(TabularSettings(hidden=(width,), dense_scale=0.1), COLUMNS, 1) for width in (8, 16)]
    some, others = rows(COLUMNS, 4), rows(COLUMNS, 40, seed=1)
    alone = [attribution.contributions(each, some, np.ones((4, 1)), reference=others, steps=8) for each in members]
    model = Ensemble(members, Combination("mean", "none", weights=(0.75, 0.25)), COLUMNS)
    found = attribution.contributions(model, some, np.ones((4, 1)), reference=others, steps=8)
    assert found.method == GRADIENTS
    np.testing.assert_allclose(found.values, 0.75 * alone[0].values + 0.25 * alone[1].values, atol=1e-6)
    np.testing.assert_allclose(found.start, 0.75 * alone[0].start + 0.25 * alone[1].start, atol=1e-6)


def test_pictures_of_an_ensemble_have_the_map_that_captum_adds_up() -> None:
    tensors = Tensors((PHOTO,))
    members = [
        engine(CnnSettings(kind="cnn", widths=(4, width), depth=1, norm="group"), tensors, 3) for width in (8, 16)
    ]
    model = Ensemble(members, Combination("mean", "softmax", weights=(0.6, 0.4)), tensors)
    some = rows(tensors, 4)
    factors = attribution.explained(THREE, model.run(some), np.array([0, 1, 2, 0]))
    found = attribution.heat_maps(model, some, factors)["photo"]

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.networks = nn.ModuleList(each.network for each in members)

        def forward(self, photo: torch.Tensor) -> torch.Tensor:
            first, second = (network(photo=photo).double() for network in self.networks)
            numbers: torch.Tensor = combined(model.combination, [first, second]) * torch.from_numpy(factors)
            return numbers.sum(1)

    both, photo, expected = Both(), torch.from_numpy(some["photo"]).float(), torch.zeros(4, 1, 16, 16)
    for network in both.networks:
        spread = [module for module in network.modules() if isinstance(module, nn.ReLU)][-1]
        grad_cam = LayerGradCam(both, spread).attribute(photo, relu_attributions=True, attr_dim_summation=True)
        expected += LayerAttribution.interpolate(functional.relu(grad_cam.detach()), (16, 16), "bilinear")
    np.testing.assert_allclose(found.values, (expected / expected.amax((2, 3), keepdim=True))[:, 0], atol=1e-4)


def test_pixels_of_an_ensemble_are_the_sums_of_its_members() -> None:
    tensors = Tensors((PHOTO,))
    members = [engine(SoftmaxSettings(kind="softmax"), tensors, 3) for _ in range(2)]
    rule = Combination(
        "linear", "softmax", coefficients=tuple(map(tuple, np.eye(3, 6).tolist())), intercepts=(0.0,) * 3
    )
    some, others = rows(tensors, 4), rows(tensors, 30, seed=1)
    factors = attribution.explained(THREE, members[0].run(some), np.array([0, 1, 2, 0]))
    alone = attribution.contributions(members[0], some, factors, reference=others)
    found = attribution.contributions(Ensemble(members, rule, tensors), some, factors, reference=others)
    # Differences of logarithms of probabilities are those of logits, and the second member counts nothing.
    np.testing.assert_allclose(found.pixels["photo"], alone.pixels["photo"], atol=1e-6)
    np.testing.assert_allclose(found.values, alone.values, atol=1e-5)
    assert attribution.heat_maps(Ensemble(members, rule, tensors), some, factors) == {}


def test_votes_are_not_explained() -> None:
    tensors = Tensors((PHOTO,))
    members = [engine(CnnSettings(kind="cnn", widths=(4, 8), depth=1, norm="group"), tensors, 3) for _ in range(2)]
    model, some = Ensemble(members, Combination("vote", "softmax"), tensors), rows(tensors, 2)
    with pytest.raises(AttributionError, match=r"model.combine=vote: shares of votes change in jumps"):
        attribution.contributions(model, some, np.ones((2, 3)), reference=some)
    assert attribution.heat_maps(model, some, np.ones((2, 3))) == {}
