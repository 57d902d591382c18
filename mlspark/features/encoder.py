"""The fitted encoder: a JSON file that says how a raw row becomes numbers. Runs anywhere; needs no Spark."""

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from mlspark import storage
from mlspark.contracts.own_columns import OF_FEATURE_TABLE, beside
from mlspark.errors import FeatureError
from mlspark.features.kinds import FittedFeature
from mlspark.features.kinds.image import Image
from mlspark.features.kinds.kind import Output, Part
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.tasks.task import Task

_FORMAT: Literal[3] = 3
_TARGET_DTYPES: dict[str, Literal["float32", "int64", "float64"]] = {
    "float": "float32",
    "int": "int64",
    "double": "float64",
}


class Encoder(Part):
    """All that is fitted for one pipeline."""

    format: Literal[3] = _FORMAT
    pipeline: str
    rows: int
    """Number of training rows that it was fitted on."""
    inputs: dict[str, str]
    """Column that a row must have -> its Spark type."""
    features: tuple[FittedFeature, ...]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All that a row becomes, features in order, each output called like its column of the feature table."""
        outputs = [output for feature in self.features for output in feature.outputs]
        names = beside([output.name for output in outputs], OF_FEATURE_TABLE)
        return tuple(replace(output, name=names[output.name]) for output in outputs)

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The tensors that a row becomes: floats of `outputs` in "dense", ids in "ids", each picture in one of its own."""
        ids = [output for output in self.outputs if output.ids]
        floats = [output for output in self.outputs if not output.ids and output.picture is None]
        specs = (
            TensorSpec("dense", tuple(output.name for output in floats), "float32"),
            TensorSpec(
                "ids",
                tuple(output.name for output in ids),
                "int64",
                cardinalities=tuple(output.ids for output in ids),
            ),
            *(
                TensorSpec(output.feature, (output.name,), "uint8", picture=output.picture)
                for output in self.outputs
                if output.picture is not None
            ),
        )
        return tuple(spec for spec in specs if spec.columns)

    @property
    def images(self) -> tuple[Image, ...]:
        """The features that are pictures."""
        return tuple(feature for feature in self.features if isinstance(feature, Image))

    def tensors(self, task: Task) -> Tensors:
        """Return the tensors of a batch of the feature table: `specs`, and the target and sample weight of `task`."""
        return Tensors(
            specs=self.specs,
            target_dtype=_TARGET_DTYPES[task.label_type],
            weight="weight" if task.weight else None,
        )

    def only(self, tensors: Collection[str]) -> "Encoder":
        """Return the encoder of the features that stand in these tensors; a row must have the same columns."""
        kept = tuple(
            feature for feature in self.features if any(output.tensor in tensors for output in feature.outputs)
        )
        return self.model_copy(update={"features": kept})

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON form."""
        return storage.digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Encoder":
        """Return the encoder of a JSON form.

        Raises:
            FeatureError: written by another version of mlspark, or not an encoder.
        """
        if value.get("format") != _FORMAT:
            raise FeatureError(f"encoder of format {value.get('format')}, expected {_FORMAT}; prepare the table anew")
        try:
            return cls.model_validate_json(json.dumps(value))
        except ValidationError as error:
            raise FeatureError(f"not an encoder: {error.errors()[0]['msg']}; prepare the table anew") from None
