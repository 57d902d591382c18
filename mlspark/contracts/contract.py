"""Contracts: what raw data must be, read from schemas/*.json. Runs anywhere; needs no Spark."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from mlspark.contracts import bounds, column_types, headers, patterns, rule_text
from mlspark.contracts.conditions import KNOWN, Condition, parse_condition
from mlspark.contracts.json_lines import lines_of
from mlspark.contracts.own_columns import PREFIX, is_own, same_but_for_case
from mlspark.errors import ContractError
from mlspark.pictures.media import Media


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def _column_name(text: str) -> str:
    if is_own(text):
        raise ValueError(f"{text}: names with {PREFIX} are those of mlspark's own columns; call the column otherwise")
    if not _NAME.fullmatch(text):
        raise ValueError(
            f"{text!r} is no name of a column: a letter, then letters, digits and underscores. Give it such a name, and "
            f'"header": {json.dumps(text, ensure_ascii=False)} where the source calls it so'
        )
    return text


class ColumnRule(_Part):
    """One column: its Spark type and what its values must satisfy."""

    name: Annotated[str, AfterValidator(_column_name)]
    """Name in settings, rules and tables: a letter, then letters, digits and underscores."""
    header: str | None = None
    """Name of the column in the sources, any text ("education-num"); unset: `name`."""
    type: Annotated[str, AfterValidator(column_types.known)]
    nullable: bool = True
    min: int | float | str | None = None
    """Least value that is good, compared exactly except for floats; for a date or timestamp as text, "1990-01-01" (UTC)."""
    max: int | float | str | None = None
    allowed: tuple[str, ...] | None = None
    pattern: str | None = None
    """Regular expression that the whole text must match; only syntax that Java and RE2 read alike, see `patterns`."""
    min_length: Annotated[int, Field(ge=0)] | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    """Most characters of a text, or elements of an array; an array with a missing or infinite element is always bad."""
    max_missing_share: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Share of missing values above which the data as a whole is refused; unset: refused when every value is missing."""
    media: Media | None = None
    """What each picture of a `binary` column must be; unset: the bytes are anything."""

    @property
    def source_name(self) -> str:
        """Name of the column in a source that names its columns."""
        return self.name if self.header is None else self.header

    @property
    def is_text(self) -> bool:
        return self.type == "string"

    @property
    def is_array(self) -> bool:
        return self.type.startswith("array")

    @property
    def is_binary(self) -> bool:
        return self.type == "binary"

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
        if self.media is not None and not self.is_binary:
            raise ValueError(f"{self.name}: media needs type binary, not {self.type}")
        for side in ("min", "max"):
            try:
                self.bound(side)
            except ValueError as error:
                raise ValueError(f"{self.name}: {side}: {error}") from None
        if self.pattern is not None:
            try:
                patterns.check(self.pattern)
            except ValueError as error:
                raise ValueError(f"{self.name}: pattern {self.pattern!r}: {error}") from None
        return self

    def bound(self, side: Literal["min", "max"]) -> bounds.Value | None:
        """Return the least or greatest value that is good, in the column's type; None where all are."""
        limit = self.min if side == "min" else self.max
        return None if limit is None else bounds.bound(limit, self.type, side)


class RowRule(_Part):
    """A condition over the columns of a row; a row for which it is false is bad (unknown, for a missing value, is not)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    expression: str
    """Condition that a good row meets, in the language of `conditions`; with `batch_only` any SQL that Spark knows."""
    batch_only: bool = False
    """Whether the expression is free SQL over the contract's columns: checked on Spark only, not when a model is served."""


class Freshness(_Part):
    """How old the newest row may be."""

    column: str
    """Date or timestamp column whose greatest value tells how old the data is; those over a day in the future do not."""
    max_age_hours: Annotated[float, Field(gt=0.0)]


class SchemaPolicy(_Part):
    """What to do when a source's columns are not the contract's; every difference is named in the report."""

    extra: Literal["refuse", "ignore"] = "ignore"
    """What happens to columns that the contract does not name; ignored ones are left out."""
    missing: Literal["refuse", "ignore"] = "refuse"
    """What happens when the source lacks a column; an ignored one is null in every row."""
    retyped: Literal["refuse", "cast"] = "cast"
    """What happens to columns of another type; with cast, a row whose value does not survive the cast is bad."""
    reordered: Literal["refuse", "ignore"] = "ignore"
    """What happens when named columns come in another order; ignored, they are matched by name."""


class Contract(_Part):
    """What every row of one raw table, and the table as a whole, must be."""

    name: str
    label: str | None = None
    """Column that is predicted; rows to be scored need not have it. Unset: the data has none."""
    columns: Annotated[tuple[ColumnRule, ...], Field(min_length=1)]
    rules: tuple[RowRule, ...] = ()
    unique_key: tuple[str, ...] = ()
    """Columns whose values together identify a row; all rows that share them are bad. Empty: no check."""
    min_rows: Annotated[int, Field(ge=0)] = 1
    """Least number of good rows of each source; with fewer, the job fails and writes nothing."""
    max_quarantined_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Share of bad rows above which a job fails and writes nothing."""
    freshness: Freshness | None = None
    schema_policy: SchemaPolicy = SchemaPolicy()

    @model_validator(mode="after")
    def _names_are_unique_and_known(self) -> "Contract":
        names = [column.name for column in self.columns]
        for what, declared in (("columns", names), ("rules", [rule.name for rule in self.rules])):
            twice = sorted({name for name in declared if declared.count(name) > 1})
            if twice:
                raise ValueError(f"{what} declared twice: {', '.join(twice)}")
        self._check_headers()
        if alike := same_but_for_case(names):
            pairs = ", ".join(f"{first} and {second}" for first, second in alike)
            raise ValueError(
                f"columns {pairs} differ in case alone, which Spark does not tell apart; call one otherwise"
            )
        wanted = {"label": [self.label] if self.label else [], "unique_key": list(self.unique_key)}
        wanted["freshness"] = [self.freshness.column] if self.freshness else []
        for what, columns in wanted.items():
            for column in columns:
                if column not in names:
                    raise ValueError(f"{what} {column!r}: {self.no_column(column)}")
        if self.freshness and self.column(self.freshness.column).type not in ("date", "timestamp"):
            raise ValueError(f"freshness {self.freshness.column!r} is no date or timestamp")
        if self.label and self.column(self.label).is_binary:
            raise ValueError(f"label {self.label!r} is binary: predict a column of another type")
        self._check_rules()
        return self

    def _check_headers(self) -> None:
        """Refuse two columns of one header, and a header that is the name of another column."""
        names_by_header: dict[str, list[str]] = {}
        for column in self.columns:
            names_by_header.setdefault(column.source_name, []).append(column.name)
        for header, names in names_by_header.items():
            if len(names) > 1:
                raise ValueError(f"columns {' and '.join(names)} have the same header {header!r}")
        for column in self.columns:
            if column.header is not None and column.header != column.name and column.header in self.names:
                raise ValueError(
                    f"columns: {column.name} has the header {column.header!r}, which is the name of another column; "
                    f"rename that one"
                )

    def _check_rules(self) -> None:
        for rule in self.rules:
            if answer := headers.in_expression(rule.expression, self.names_by_header):
                raise ValueError(f"rule {rule.name}: {answer}")
            if rule.batch_only:
                continue
            try:
                parse_condition(rule.expression, self.types)
            except ValueError as error:
                if answer := headers.in_expression(rule.expression, self.names_by_header, is_refused=True):
                    raise ValueError(f"rule {rule.name}: {answer}") from None
                raise ValueError(
                    f"rule {rule.name}: {rule.expression!r} is not understood: {error}. Write it with {KNOWN}; or mark "
                    f'the rule "batch_only": true (any SQL of Spark, not checked when a model is served)'
                ) from None

    def no_column(self, name: str, *, more: Sequence[str] = ()) -> str:
        """Return in words that no column is called `name`, and which one may be meant, of these and `more`."""
        return headers.no_column(name, self.names_by_header, of=f"contract {self.name}", more=more)

    def column(self, name: str) -> ColumnRule:
        """Return the column called `name`, which must exist."""
        return next(column for column in self.columns if column.name == name)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a row in order, the label among them."""
        return tuple(column.name for column in self.columns)

    @property
    def names_by_header(self) -> dict[str, str]:
        """Name in the sources -> column, in order."""
        return {column.source_name: column.name for column in self.columns}

    def named_here(self, source_names: Sequence[str]) -> list[str]:
        """Return names of a source's columns as the contract has them; others stay as they are."""
        headers = self.names_by_header
        return [headers.get(name, name) for name in source_names]

    @property
    def binary(self) -> tuple[str, ...]:
        """Columns of bytes, those of pictures among them, in order."""
        return tuple(column.name for column in self.columns if column.is_binary)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Columns of pictures, in order."""
        return tuple(column.name for column in self.columns if column.media is not None)

    @property
    def types(self) -> dict[str, str]:
        """Column -> type, in order."""
        return {column.name: column.type for column in self.columns}

    @property
    def label_place(self) -> int | None:
        """Position of the label among the columns, from 0; None without a label."""
        return None if self.label is None else self.names.index(self.label)

    @property
    def conditions(self) -> dict[str, Condition]:
        """Rule -> its condition, but for rules that are `batch_only`."""
        return {rule.name: parse_condition(rule.expression, self.types) for rule in self.rules if not rule.batch_only}

    @property
    def unserved_rules(self) -> tuple[str, ...]:
        """Rules that are checked on Spark alone: a served model does not know whether its rows keep them."""
        return tuple(rule.name for rule in self.rules if rule.batch_only)

    def scoring_view(self, *, without: Sequence[str] = ()) -> "Contract":
        """Return the contract of rows to be scored.

        It has no label and none of the rules that use it, and of the limits on the data as a whole the share of bad rows
        alone. Where rows come with their label, name it as `ignored` to what compares or conforms them.

        Args:
            without: further columns that rows to be scored need not have: the sample weight.
        """
        left_out = {*without, *([self.label] if self.label else [])}
        return Contract(
            name=self.name,
            columns=tuple(
                column.model_copy(update={"max_missing_share": 1.0})
                for column in self.columns
                if column.name not in left_out
            ),
            rules=tuple(rule for rule in self.rules if not any(self._uses(rule, column) for column in left_out)),
            max_quarantined_share=self.max_quarantined_share,
            schema_policy=self.schema_policy,
        )

    def _uses(self, rule: RowRule, column: str) -> bool:
        if rule.batch_only:
            return column.lower() in rule_text.names(rule.expression)
        return column in parse_condition(rule.expression, self.types).columns

    def with_columns(self, types: Mapping[str, str]) -> "Contract":
        """Return the contract with those columns of `types` (name -> type) that it lacks, without rules, at its end."""
        known = {column.name for column in self.columns}
        added = (ColumnRule(name=name, type=kind) for name, kind in types.items() if name not in known)
        return self.model_copy(update={"columns": (*self.columns, *added)})

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def load(path: str) -> Contract:
    """Return the contract in a JSON file.

    Raises:
        ContractError: the file is absent or not a contract; names line, key and what is wrong.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ContractError(
            f"contract {path}: cannot be read ({error.strerror}); check the setting `contract`"
        ) from None
    except UnicodeDecodeError:
        raise ContractError(f"contract {path}: is not UTF-8; save it as UTF-8") from None
    try:
        lines = lines_of(text)
    except ValueError as error:
        raise ContractError(f"contract {path}: {error}") from None
    try:
        return Contract.model_validate_json(text)
    except ValidationError as error:
        # A column that is refused leaves its list too short in pydantic's eyes.
        places = {problem["loc"][:n] for problem in error.errors() for n in range(len(problem["loc"]))}
        wrong = [p for p in error.errors() if p["type"] != "too_short" or p["loc"] not in places]
        problems = (_words(problem, lines) for problem in wrong)
        raise ContractError(f"contract {path}: {'; '.join(problems)}") from None


_PARTS: dict[str, type[_Part]] = {
    "columns": ColumnRule, "rules": RowRule, "freshness": Freshness, "schema_policy": SchemaPolicy,
}  # fmt: skip


def _words(problem: Any, lines: Mapping[tuple[int | str, ...], int]) -> str:
    """Return "line 3: columns.0.type: what is wrong" for one of pydantic's problems."""
    place = problem["loc"]
    line = next((lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in lines), None)
    where = ".".join(map(str, place))
    prefix = (f"line {line}: " if line else "") + (f"{where}: " if where else "")
    if problem["type"] == "extra_forbidden":
        part = Media if "media" in place[:-1] else _PARTS[str(place[0])] if len(place) > 1 else Contract
        known = list(part.model_fields)
        close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        return f"{prefix}unknown key, " + (f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}")
    if problem["type"] == "missing":
        return f"{prefix}missing"
    if problem["type"] == "value_error":
        return f"{prefix}{problem['ctx']['error']}"
    return f"{prefix}{problem['msg'][0].lower()}{problem['msg'][1:]}, got {problem['input']!r}"


def from_json(value: Mapping[str, Any]) -> Contract:
    """Return the contract whose file content is `value`."""
    return Contract.model_validate_json(json.dumps(value))


def to_json(contract: Contract) -> dict[str, Any]:
    """Return the contract's file content; what is at its default is left out."""
    return dict(json.loads(contract.model_dump_json(exclude_defaults=True)))
