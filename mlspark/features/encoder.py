"""The fitted encoder: a small JSON file that says how a raw row becomes numbers. Runs anywhere; needs no Spark."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlspark.errors import FeatureError
from mlspark.features.layout import Layout

MISSING_ID = 0
UNSEEN_ID = 1
FIRST_ID = 2

_FORMAT = 1


@dataclass(frozen=True)
class NumericEncoding:
    """Standardized column: (x - mean) / std, x being log(1 + max(value, 0)) when `log`; 0 for a missing value."""

    column: str
    log: bool
    mean: float
    std: float
    """Population standard deviation, or 1 for a constant column."""
    count: int
    """Training rows with a value."""
    nulls: int
    """Training rows without."""


@dataclass(frozen=True)
class CategoricalEncoding:
    """Indexed column: MISSING_ID, UNSEEN_ID, or FIRST_ID + the value's place in `values`."""

    column: str
    values: tuple[str, ...]
    """Known values, sorted by code point."""
    counts: tuple[int, ...]
    """Training rows of each value."""
    nulls: int
    rare: int
    """Training rows whose value has too few rows for an id of its own."""

    @property
    def cardinality(self) -> int:
        return FIRST_ID + len(self.values)


@dataclass(frozen=True)
class Encoder:
    """All that is fitted for one pipeline."""

    pipeline: str
    label_column: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    rows: int
    """Training rows it was fitted on."""
    numeric: tuple[NumericEncoding, ...]
    categorical: tuple[CategoricalEncoding, ...]

    @property
    def layout(self) -> Layout:
        """The order of the encoded columns; each keeps the name of the column it comes from."""
        return Layout(
            dense=tuple(encoding.column for encoding in self.numeric),
            categorical=tuple(encoding.column for encoding in self.categorical),
            cardinalities=tuple(encoding.cardinality for encoding in self.categorical),
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON form."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Encoder":
        """Return the encoder of a JSON form.

        Raises:
            FeatureError: written by another version of mlspark.
        """
        if value.get("format") != _FORMAT:
            raise FeatureError(f"encoder of format {value.get('format')}, expected {_FORMAT}; prepare the table anew")
        return cls(
            pipeline=value["pipeline"],
            label_column=value["label_column"],
            positive=tuple(value["positive"]),
            negative=tuple(value["negative"]),
            rows=value["rows"],
            numeric=tuple(NumericEncoding(**encoding) for encoding in value["numeric"]),
            categorical=tuple(
                CategoricalEncoding(
                    **{**encoding, "values": tuple(encoding["values"]), "counts": tuple(encoding["counts"])}
                )
                for encoding in value["categorical"]
            ),
        )
