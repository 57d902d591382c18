"""All models by their `kind` in YAML: those that are learnt by themselves, and ensembles of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from mlspark.features.tensors import Tensors
from mlspark.models.ensemble import EnsembleSettings
from mlspark.models.model import Model
from mlspark.models.single_kinds import SINGLE, union

if TYPE_CHECKING:
    from torch import nn

KINDS: dict[str, type[Model]] = {**SINGLE, "ensemble": EnsembleSettings}

if TYPE_CHECKING:
    ModelSettings = Model
else:
    ModelSettings = union(KINDS)


def from_json(value: Mapping[str, Any]) -> Model:
    """Return the settings whose `model_dump(mode="json")` is `value`."""
    model: Model = TypeAdapter(ModelSettings).validate_python(dict(value), strict=False)
    return model


def build(settings: Model, tensors: Tensors, num_outputs: int) -> "nn.Module":
    """Return the network that `settings` describe, with random weights; see `Model.build`."""
    return settings.build(tensors, num_outputs)
