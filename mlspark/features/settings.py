"""The section `features` of a pipeline's YAML: what raw columns become. Runs anywhere."""

from typing import Annotated

from pydantic import Field, model_validator

from mlspark.features.kinds import DeclaredFeature
from mlspark.section import Section


class FeaturesSettings(Section):
    inputs: Annotated[tuple[DeclaredFeature, ...], Field(min_length=1)]
    """Features that the model sees, in this order: floats in one tensor, ids in another."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> "FeaturesSettings":
        names = [name for entry in self.inputs for name in entry.names]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"inputs: features of the same name: {', '.join(twice)}; give one of them another `name`")
        return self
