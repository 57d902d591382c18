"""Which output position is which feature: the order of a batch's columns. Runs anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layout:
    """The encoded columns in the order in which they stand in a batch."""

    dense: tuple[str, ...]
    """Names of the float32 columns, in order."""
    categorical: tuple[str, ...]
    """Names of the integer id columns, in order."""
    cardinalities: tuple[int, ...]
    """Ids of each categorical column run from 0 to its cardinality - 1."""
    label: str = "label"
    """Name of the 0.0/1.0 float32 label column."""
    row_id: str = "row_id"
    """Name of the int64 hash of the row's content."""

    def to_json(self) -> dict[str, Any]:
        return {
            "dense": list(self.dense),
            "categorical": list(self.categorical),
            "cardinalities": list(self.cardinalities),
            "label": self.label,
            "row_id": self.row_id,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Layout":
        return cls(
            dense=tuple(value["dense"]),
            categorical=tuple(value["categorical"]),
            cardinalities=tuple(value["cardinalities"]),
            label=value["label"],
            row_id=value["row_id"],
        )
