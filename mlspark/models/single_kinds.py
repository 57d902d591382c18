"""All models but ensembles of them, by their `kind` in YAML: a new one is a file with its settings, and a line here."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from mlspark.models.cnn import CnnSettings
from mlspark.models.custom import CustomSettings
from mlspark.models.model import Model
from mlspark.models.softmax import SoftmaxSettings
from mlspark.models.tabm import TabmSettings
from mlspark.models.tabular import TabularSettings
from mlspark.models.trees import TreesSettings
from mlspark.models.vision import VisionSettings

SINGLE: dict[str, type[Model]] = {
    "tabular": TabularSettings,
    "tabm": TabmSettings,
    "custom": CustomSettings,
    "trees": TreesSettings,
    "softmax": SoftmaxSettings,
    "cnn": CnnSettings,
    "vision": VisionSettings,
}
DEFAULT_KIND = "tabular"


def _kind_of(value: Any) -> Any:
    return value.get("kind", DEFAULT_KIND) if isinstance(value, Mapping) else getattr(value, "kind", None)


def union(kinds: Mapping[str, type[Model]]) -> Any:
    """Return the type of a setting that is one of `kinds`, chosen by `kind`; tabular where that is left out."""

    def name_the_kinds(schema: dict[str, Any]) -> None:
        mapping = {kind: choice["$ref"] for kind, choice in zip(kinds, schema["oneOf"], strict=True)}
        schema["discriminator"] = {"propertyName": "kind", "mapping": mapping}

    # Not a validator that adds the kind: what it returns is no longer JSON, where a list stands for a tuple.
    tagged = [Annotated[model, Tag(kind)] for kind, model in kinds.items()]
    return Annotated[reduce(or_, tagged), Discriminator(_kind_of), Field(json_schema_extra=name_the_kinds)]
