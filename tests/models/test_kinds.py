"""The union of models is computed from a dict: a new model is one file and one line."""

from typing import Any, Literal

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from mlspark import models
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.models import kinds
from mlspark.models.custom import CustomSettings
from mlspark.models.model import Model
from mlspark.models.tabular import TabularSettings
from mlspark.section import Section

TENSORS = Tensors((TensorSpec("dense", ("age", "hours"), "float32"),))


class Linear(nn.Module):
    def __init__(self, num_dense: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_dense, num_outputs)

    def forward(self, dense: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(dense)
        return outputs


class LinearSettings(Model):
    """A toy: all that a new model needs."""

    kind: Literal["linear"] = "linear"

    def build(self, tensors: Tensors, num_outputs: int) -> nn.Module:
        return Linear(tensors.num_dense, num_outputs)


def test_new_model_is_one_class_and_one_line() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kinds.union(models.KINDS | {"linear": LinearSettings}))
    settings = adapter.validate_python({"kind": "linear"})
    assert models.build(settings, TENSORS, 3)(torch.ones(5, 2)).shape == (5, 3)
    assert adapter.validate_python({"kind": "tabular", "hidden": (4,)}) == TabularSettings(hidden=(4,))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, TabularSettings()),
        ({"dropout": 0.5}, TabularSettings(dropout=0.5)),
        ({"kind": "custom", "factory": "a.b:c"}, CustomSettings(factory="a.b:c")),
    ],
)
def test_kind_may_be_left_out(value: dict[str, Any], expected: Model) -> None:
    class Settings(Section):
        model: models.ModelSettings = TabularSettings()

    assert Settings.model_validate({"model": value}).model == expected
    assert models.from_json(expected.model_dump(mode="json")) == expected
    schema = Settings.model_json_schema()["properties"]["model"]
    assert sorted(schema["discriminator"]["mapping"]) == sorted(models.KINDS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "forest"}, "does not match any of the expected tags: 'tabular', 'tabm', 'custom', 'trees'"),
        ({"kind": "custom"}, "factory\n  Field required"),
        ({"kind": "trees", "hidden": (4,)}, "hidden\n  Extra inputs are not permitted"),
        ({"factory": "a.b:c"}, "factory\n  Extra inputs are not permitted"),
    ],
)
def test_settings_of_another_model_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        models.from_json(value)


def test_every_model_has_its_kind_as_default() -> None:
    for kind, model in models.KINDS.items():
        assert model.model_fields["kind"].default == kind


def test_settings_of_the_tabular_network_reach_it() -> None:
    settings = TabularSettings(hidden=(5,), dense_frequencies=3, dense_embedding_dim=2, dense_scale=1e-9)
    model: Any = models.build(settings, TENSORS, 2)
    assert model.dense_embedding.frequencies.shape == (2, 3)
    assert model.dense_embedding.bias.shape == (2, 2)
    assert float(model.dense_embedding.frequencies.detach().abs().max()) < 1e-6
    assert [layer.out_features for layer in model.layers if isinstance(layer, nn.Linear)] == [5, 2]


def test_trees_are_no_network() -> None:
    with pytest.raises(NotImplementedError, match="TreesSettings is not a network"):
        models.build(models.from_json({"kind": "trees"}), TENSORS, 1)
