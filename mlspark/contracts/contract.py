"""Contracts: what a raw row must be, read from schemas/*.json. Runs anywhere; needs no Spark."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlspark.errors import ContractError


class ColumnRule(BaseModel):
    """One column: its Spark type and what its values must satisfy."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    type: Literal["int", "bigint", "float", "double", "string"]
    nullable: bool = True
    min: float | None = None
    max: float | None = None
    allowed: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _rules_fit_the_type(self) -> "ColumnRule":
        if self.type == "string" and (self.min is not None or self.max is not None):
            raise ValueError(f"{self.name}: min and max need a numeric type, not string")
        if self.type != "string" and self.allowed is not None:
            raise ValueError(f"{self.name}: allowed needs type string, not {self.type}")
        return self


class Contract(BaseModel):
    """What every row of one raw table must be; read from schemas/*.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    label: str | None = None
    """The column that rows to be scored lack."""
    max_quarantined_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of bad rows above which a job fails and writes nothing."""
    columns: Annotated[tuple[ColumnRule, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> "Contract":
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"columns declared twice: {', '.join(twice)}")
        if self.label is not None and self.label not in names:
            raise ValueError(f"label {self.label!r} is not among the columns")
        return self

    def without_label(self) -> "Contract":
        """Return the contract of rows to be scored."""
        columns = tuple(column for column in self.columns if column.name != self.label)
        return self.model_copy(update={"columns": columns, "label": None})

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


def check_share(contract: Contract, *, rows_read: int, rows_bad: int, reasons: Mapping[str, int]) -> None:
    """Refuse data that is bad as a whole, before anything is written.

    Raises:
        ContractError: more than max_quarantined_share of the rows are bad; names the commonest reasons.
    """
    if rows_bad > contract.max_quarantined_share * rows_read:
        worst = ", ".join(f"{reason} {count:,}" for reason, count in list(reasons.items())[:5])
        raise ContractError(
            f"contract {contract.name}: {rows_bad:,} of {rows_read:,} rows are bad ({worst}), more than "
            f"max_quarantined_share={contract.max_quarantined_share}; nothing was written. "
            f"Check the source and its settings, or raise the share in the contract"
        )


def to_json(contract: Contract) -> dict[str, Any]:
    return dict(json.loads(contract.model_dump_json(exclude_none=True)))
