"""Contracts: what raw data must be, read from schemas/*.json. Runs anywhere; needs no Spark."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlspark.errors import ContractError

_TYPES = (
    r"^(smallint|int|bigint|float|double|string|boolean|date|timestamp|decimal\(\d{1,2},\d{1,2}\)"
    r"|array<float>|array<double>)$"
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ColumnRule(_Part):
    """One column: its Spark type and what its values must satisfy."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    type: Annotated[str, Field(pattern=_TYPES)]
    nullable: bool = True
    min: float | str | None = None
    """Smallest value; for a date or timestamp as text, "1990-01-01"."""
    max: float | str | None = None
    allowed: tuple[str, ...] | None = None
    pattern: str | None = None
    """Regular expression (Java's and Python's common part) that the whole text must match."""
    min_length: Annotated[int, Field(ge=0)] | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    """Most characters of a text, or most elements of an array; an array's elements are all there and finite."""
    max_missing_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Share of missing values above which the data as a whole is refused; unset: refused when every value is missing."""

    @property
    def is_text(self) -> bool:
        return self.type == "string"

    @property
    def is_array(self) -> bool:
        return self.type.startswith("array")

    @property
    def is_number(self) -> bool:
        return self.type.startswith(("smallint", "int", "bigint", "float", "double", "decimal"))

    @model_validator(mode="after")
    def _rules_fit_the_type(self) -> "ColumnRule":
        for name in ("min", "max"):
            bound = getattr(self, name)
            if bound is None:
                continue
            if self.type in ("date", "timestamp"):
                if not isinstance(bound, str):
                    raise ValueError(f"{self.name}: {name} of a {self.type} is a text like 1990-01-31, got {bound}")
            elif not self.is_number:
                raise ValueError(f"{self.name}: {name} needs a number, date or timestamp, not {self.type}")
            elif isinstance(bound, str):
                raise ValueError(f"{self.name}: {name} of a {self.type} is a number, got {bound!r}")
        for name in ("allowed", "pattern", "min_length", "max_length"):
            is_of_arrays = self.is_array and name.endswith("length")
            if getattr(self, name) is not None and not self.is_text and not is_of_arrays:
                raise ValueError(f"{self.name}: {name} needs type string, not {self.type}")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"{self.name}: pattern {self.pattern!r}: {error}") from None
        return self


class RowRule(_Part):
    """A condition over the columns of a row."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    expression: str
    """SQL over the contract's columns; a row for which it is false is bad (unknown, for a missing value, is not)."""


class Freshness(_Part):
    """How old the newest row may be."""

    column: str
    """Date or timestamp column."""
    max_age_hours: Annotated[float, Field(gt=0.0)]


class DriftPolicy(_Part):
    """What to do when a source's columns are not the contract's; whatever is found is named in the report."""

    extra: Literal["refuse", "ignore"] = "ignore"
    """Columns that the contract does not name: left out when ignored."""
    missing: Literal["refuse", "ignore"] = "refuse"
    """Columns that the source lacks: null when ignored."""
    retyped: Literal["refuse", "cast"] = "cast"
    """Columns of another type: cast, and a value that does not survive is a bad row."""
    reordered: Literal["refuse", "ignore"] = "ignore"
    """Columns in another order, where they have names."""


class Contract(_Part):
    """What every row of one raw table, and the table as a whole, must be."""

    name: str
    label: str | None = None
    """The column that rows to be scored lack."""
    columns: Annotated[tuple[ColumnRule, ...], Field(min_length=1)]
    rules: tuple[RowRule, ...] = ()
    unique_key: tuple[str, ...] = ()
    """Columns that together name a row: all rows that share one are bad."""
    min_rows: Annotated[int, Field(ge=0)] = 1
    """Good rows of each source below which it is refused."""
    max_quarantined_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of bad rows above which a job fails and writes nothing."""
    freshness: Freshness | None = None
    drift: DriftPolicy = DriftPolicy()

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> "Contract":
        names = [column.name for column in self.columns]
        for what, given in (("columns", names), ("rules", [rule.name for rule in self.rules])):
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                raise ValueError(f"{what} declared twice: {', '.join(twice)}")
        wanted = {"label": [self.label] if self.label else [], "unique_key": list(self.unique_key)}
        wanted["freshness"] = [self.freshness.column] if self.freshness else []
        for what, columns in wanted.items():
            for column in columns:
                if column not in names:
                    raise ValueError(f"{what} {column!r} is not among the columns")
        if self.freshness and self.column(self.freshness.column).type not in ("date", "timestamp"):
            raise ValueError(f"freshness {self.freshness.column!r} is no date or timestamp")
        return self

    def column(self, name: str) -> ColumnRule:
        """Return the column called `name`, which there is."""
        return next(column for column in self.columns if column.name == name)

    def without_label(self) -> "Contract":
        """Return the contract of rows to be scored: no label, and no limits on the table as a whole but bad rows."""
        label = self.label
        return Contract(
            name=self.name,
            columns=tuple(
                column.model_copy(update={"max_missing_share": 1.0}) for column in self.columns if column.name != label
            ),
            rules=tuple(rule for rule in self.rules if not label or not re.search(rf"\b{label}\b", rule.expression)),
            max_quarantined_share=self.max_quarantined_share,
            drift=self.drift,
        )

    def with_columns(self, types: Mapping[str, str]) -> "Contract":
        """Return the contract with those columns of `types` (name -> type) that it lacks, without rules, at its end."""
        known = {column.name for column in self.columns}
        more = (ColumnRule(name=name, type=kind) for name, kind in types.items() if name not in known)
        return self.model_copy(update={"columns": (*self.columns, *more)})

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load(path: str) -> Contract:
    """Return the contract in a JSON file.

    Raises:
        ContractError: the file is absent or not a contract; names what is wrong.
    """
    try:
        return Contract.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ContractError(
            f"contract {path}: cannot be read ({error.strerror}); check the setting `contract`"
        ) from None
    except ValidationError as error:
        problems = (
            ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"] for problem in error.errors()
        )
        raise ContractError(f"contract {path}: {'; '.join(problems)}") from None


def to_json(contract: Contract) -> dict[str, Any]:
    """Return the contract's file content; what is at its default is left out."""
    return dict(json.loads(contract.model_dump_json(exclude_defaults=True)))
