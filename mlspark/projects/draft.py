"""The contract, the task and the features that are drafted from the columns of a CSV file. Runs anywhere."""

import difflib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlspark.contracts import naming
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import ConfigError, ContractError
from mlspark.projects import columns as csv_columns
from mlspark.projects.columns import Column
from mlspark.projects.csv_rows import CsvRows

TaskKind = Literal["binary", "multiclass", "regression"]

MOST_CLASSES = 50
_MOST_WHOLE_CLASSES = 20
_RARE_ROWS, _RARE_SHARE = 3, 0.02
"""A class of fewer rows than the first is taken for an error, where such rows are no more than this share of all."""
_WHOLE_CATEGORIES, _ROWS_PER_CATEGORY = 10, 10
_MOST_CATEGORIES = 1000
_WIDEST_HASH = 2**16


@dataclass(frozen=True)
class Draft:
    """What a project is made of."""

    contract: Contract
    missing: Mapping[str, Sequence[str]]
    """Name in the file -> texts that mark a missing value, for `sources`."""
    task: dict[str, Any]
    features: list[dict[str, Any]]
    num_rows: int
    """Rows that were looked at, bad ones included."""
    reasons: Mapping[str, int]
    """Why rows will be quarantined -> rows, the commonest first; a row may have several reasons."""
    num_bad: int
    broken: tuple[str, str] | None
    """A column and a text that it refuses, for a test; None: every column takes any text."""
    notes: tuple[str, ...]
    """What was decided, for a person."""


def draft(name: str, rows: CsvRows, label: str, kind: TaskKind | None = None) -> Draft:
    """Return what is drafted from rows.

    Args:
        name: of the contract.
        rows: of the file.
        label: the column to predict, by its name in the file or in the contract.
        kind: of the task; None: decided from the label's values.

    Raises:
        ConfigError: there is no such label, or no task of this kind on its values.
        ContractError: no column is left to learn from.
    """
    usable, _ = naming.usable(dict.fromkeys(rows.columns, "string"))
    found = [csv_columns.of(rule.name, rule.source_name, rows.columns[rule.source_name]) for rule in usable]
    target = _label(label, found)
    task, target_rule, task_note = _task(target, kind)
    others = [column for column in found if column is not target]
    keys = [column for column in others if column.is_key] if rows.is_whole else []
    rules = {column.name: target_rule if column is target else _rule(column) for column in found}
    bad, reasons = _bad_rows(rows, found, rules, target, keys[:1])
    features, notes = _features([_without(column, rows, bad) for column in others])
    if not features:
        raise ContractError(f"{rows.path}: no column is left to learn from: {'; '.join(notes)}")
    notes = [*_error_notes(found), *notes]
    share = len(bad) + rows.num_malformed
    read = rows.num_rows + rows.num_malformed
    limit = 0.1 if share <= 0.08 * read else min(1.0, math.ceil(share / read * 20 + 1) / 20)
    contract = Contract(
        name=name,
        label=target.name,
        columns=tuple(rules.values()),
        unique_key=tuple(key.name for key in keys[:1]),
        max_quarantined_share=limit,
    )
    if rows.num_malformed:
        reasons |= {"malformed": rows.num_malformed}
    missing = {column.header: column.markers for column in found if column.markers}
    if missing:
        notes.insert(0, "missing values: " + ", ".join(f"{name} {' '.join(of)}" for name, of in missing.items()))
    if limit > 0.1:
        notes.insert(
            0, f"many rows are bad, so max_quarantined_share is {limit:g}; look at the quarantine, then lower it"
        )
    ordered = dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))
    broken = next(((column.header, "no number") for column in found if column.is_number), None)
    return Draft(contract, missing, task, features, read, ordered, share, broken, (task_note, *notes))


def _label(label: str, found: Sequence[Column]) -> Column:
    for column in found:
        if label in (column.name, column.header):
            return column
    headers = [column.header for column in found]
    by_lower = {header.lower(): header for header in headers}
    close = difflib.get_close_matches(label.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[close[0]]}?" if close else f"columns are {', '.join(headers)}"
    raise ConfigError(f"--label {label}: not a column, {hint}")


def _task(label: Column, kind: TaskKind | None) -> tuple[dict[str, Any], ColumnRule, str]:
    """Return the task, the rule of its column, and why it is that task."""
    errors = _rare(label)
    classes = [value for value in label.ordered_values() if value not in errors]
    few = _MOST_WHOLE_CLASSES if label.is_number else MOST_CLASSES
    is_of_classes = len(classes) <= few and all(map(_is_whole, classes)) if label.is_number else True
    if kind is None:
        kind = "regression" if not is_of_classes else "binary" if len(classes) == 2 else "multiclass"
    if problem := _task_problem(label, classes, kind):
        raise ConfigError(f"--label {label.header}: {problem}")
    if kind == "regression":
        why = f"{label.distinct:,} different numbers"
        rule = ColumnRule(name=label.name, header=_header(label), type=label.type, nullable=False)
        return {"kind": kind, "target": label.name}, rule, f"task: regression, as {label.header} has {why}"
    allowed: dict[str, Any] = {"allowed": tuple(classes)} if label.type == "string" else {}
    if label.is_number:
        allowed = {"min": _value(label.type, classes[0]), "max": _value(label.type, classes[-1])}
    rule = ColumnRule(name=label.name, header=_header(label), type=label.type, nullable=False, **allowed)
    shown = ", ".join(classes[:6]) + (", ..." if len(classes) > 6 else "")
    event = f"; predicted is the probability of {classes[-1]}" if kind == "binary" else ""
    doubtful = f"; taken for errors: {', '.join(errors)}" if errors else ""
    note = f"task: {kind}, as {label.header} has the {len(classes)} values {shown}{event}{doubtful}"
    values = dict.fromkeys(_value(label.type, value) for value in classes)  # "1" and "01" are one
    return {"kind": kind, "target": label.name, "classes": list(values)}, rule, note


def _task_problem(label: Column, classes: Sequence[str], kind: TaskKind) -> str:
    if len(classes) < 2:
        return f"has {'no value' if not classes else f'the one value {classes[0]}'}; there is nothing to predict"
    if label.type in ("date", "timestamp"):
        return f"holds a {label.type}; predict a text, a number or true and false"
    if kind == "regression":
        return "" if label.is_number else "is no number; leave --task out"
    if kind == "binary" and len(classes) != 2:
        return f"has {len(classes)} values, --task binary needs 2"
    if len(classes) > MOST_CLASSES:
        more = ", or --task regression" if label.is_number else ""
        return f"has {len(classes):,} different values, more than the {MOST_CLASSES} classes of a draft{more}"
    return ""


def _rare(label: Column) -> list[str]:
    """Return values of a text, or whole numbers, that so few rows have that they will be errors."""
    if label.type not in ("string", "int") or (label.is_number and label.distinct > _MOST_WHOLE_CLASSES):
        return []
    rare = sorted(value for value, rows in label.values.items() if rows < _RARE_ROWS)
    rows = sum(label.values[value] for value in rare)
    return rare if rows <= _RARE_SHARE * label.num_values else []


def _is_whole(text: str) -> bool:
    return float(text).is_integer()


def _value(kind: str, text: str) -> Any:
    readers: dict[str, Any] = {
        "boolean": lambda value: value.lower() in ("true", "t", "yes", "y", "1"),
        "int": int,
        "bigint": int,
        "double": float,
    }
    return readers.get(kind, str)(text)


def _header(column: Column) -> str | None:
    return None if column.header == column.name else column.header


def _rule(column: Column) -> ColumnRule:
    return ColumnRule(
        name=column.name,
        header=_header(column),
        type=column.type,
        nullable=not column.is_key,
        max_missing_share=None if column.values else 1.0,
    )


def _features(columns: Sequence[Column]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the entries of `features.inputs`, and what was decided of columns that are not plain."""
    grouped: dict[tuple[tuple[str, Any], ...], list[str]] = {}
    alone: list[dict[str, Any]] = []
    notes, tails = [], []
    for column in columns:
        if why := _why_left_out(column):
            notes.append(f"left out: {column.name}, {why}")
            continue
        entry = _entry(column)
        if entry["kind"] == "hash":
            alone.append({"kind": "hash", "columns": [column.name]} | entry)
            notes.append(
                f"{column.name}: {column.distinct:,} different texts, hashed into {entry['buckets']:,} buckets"
            )
        else:
            grouped.setdefault(tuple(entry.items()), []).append(column.name)
        if entry.get("scale") == "quantile":
            tails.append(column.name)
    if tails:
        notes.append(f"scaled by quantiles, as they have a long tail: {', '.join(tails)}")
    plain = [{"kind": dict(entry)["kind"], "columns": names} | dict(entry) for entry, names in grouped.items()]
    for entry in plain:
        if "parts" in entry:
            entry["parts"] = list(entry["parts"])
    return [*plain, *alone], notes


def _without(column: Column, rows: CsvRows, bad: set[int]) -> Column:
    """Return the column as the good rows have it."""
    texts = [text for row, text in enumerate(rows.columns[column.header]) if row not in bad]
    return csv_columns.of(column.name, column.header, texts) if texts else column


def _error_notes(columns: Sequence[Column]) -> list[str]:
    notes = []
    for column in columns:
        if column.dirty:
            shown = sorted(column.dirty)
            more = f" and {len(shown) - 5:,} more" if len(shown) > 5 else ""
            notes.append(f"{column.name}: {column.type}; taken for errors: {', '.join(shown[:5])}{more}")
    return notes


def _why_left_out(column: Column) -> str:
    if not column.values:
        return "which has no values"
    if column.distinct == 1 and not column.num_missing:
        return f"which is {next(iter(column.values))} in all rows"
    if column.is_like_an_id:
        return "which names rows; the tables keep it"
    if column.is_free_text:
        return "text that differs from row to row; the kinds ngrams and hash can take it"
    return ""


def _entry(column: Column) -> dict[str, Any]:
    """Return the settings of a column's feature, without `columns`."""
    if column.type in ("date", "timestamp"):
        parts = ("month", "day_of_week") + (("hour",) if column.type == "timestamp" else ())
        return {"kind": "cyclic", "parts": parts}
    if column.type == "string" and (
        column.distinct > _MOST_CATEGORIES or column.distinct > max(20, column.num_values / 5)
    ):
        buckets = min(_WIDEST_HASH, 2 ** math.ceil(math.log2(2 * column.distinct)))
        return {"kind": "hash", "name": f"{column.name}_hash", "into": "id", "buckets": buckets}
    is_category = column.type == "int" and column.distinct <= _WHOLE_CATEGORIES
    if column.is_number and not (is_category and column.num_values >= _ROWS_PER_CATEGORY * column.distinct):
        skewed = {"scale": "quantile", "impute": "median"} if column.is_skewed else {}
        return {"kind": "number"} | skewed | ({"indicator": True} if column.num_missing else {})
    return {"kind": "index"} | ({"min_count": 2} if column.distinct > 20 else {})


def _bad_rows(
    rows: CsvRows, found: Sequence[Column], rules: Mapping[str, ColumnRule], label: Column, keys: Sequence[Column]
) -> tuple[set[int], dict[str, int]]:
    """Return the places of the rows that the contract will refuse, and each reason's number of rows."""
    bad: set[int] = set()
    reasons = Counter[str]()

    def refuse(reason: str, places: Sequence[int]) -> None:
        if places:
            bad.update(places)
            reasons[reason] += len(places)

    for column in found:
        texts = rows.columns[column.header]
        if column.dirty:
            refuse(f"{column.name}.type", [row for row, text in enumerate(texts) if text in column.dirty])
        if not rules[column.name].nullable:
            absent = {None, *column.markers}
            refuse(f"{column.name}.null", [row for row, text in enumerate(texts) if text in absent])
    rule = rules[label.name]
    if rule.allowed is not None:
        known = {*rule.allowed, *label.markers, *label.dirty, None}
        refuse(f"{label.name}.allowed", [r for r, text in enumerate(rows.columns[label.header]) if text not in known])
    for side in ("min", "max"):
        if (bound := getattr(rule, side)) is None:
            continue
        sign = 1 if side == "min" else -1
        beyond = {value for value in label.values if sign * float(value) < sign * bound}
        refuse(f"{label.name}.{side}", [r for r, text in enumerate(rows.columns[label.header]) if text in beyond])
    for key in keys:  # of the rows that are good besides
        texts = rows.columns[key.header]
        good = Counter(text for row, text in enumerate(texts) if row not in bad)
        twice = [row for row, text in enumerate(texts) if row not in bad and good[text] > 1]
        refuse(f"{key.name}.unique", twice)
    return bad, dict(reasons)
