"""A contract drafted from data: what its columns hold, as seen. Driver; at most two passes over the source."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mlspark.contracts import accounting, column_types, naming
from mlspark.contracts import contract as contracts
from mlspark.contracts.accounting import Account
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.shapes import FITTING, NUMBERS, Profile, Seen
from mlspark.errors import ContractError
from mlspark.pictures.media import Media

MAX_CATEGORIES = 50
MAX_CATEGORY_SHARE = 0.05
"""A text column gets a list of allowed values when it has at most so many different ones, and so many per value present."""
MIN_KEY_ROWS = 100
"""Fewer rows are too few to call a column unique."""
_EXACT_DIGITS = 15
"""Digits of a decimal that every double keeps."""
_EXACT_WHOLE, _BEYOND_BIGINT = 2.0**53, 2.0**63
_MOST = 0.95
"""Share of values from which those of another type are worth a note."""


_WIDEN = "widen before use; ranges, lists, lengths and shares are those seen"
_IS_OPEN = "takes other values of the same types, but of the label; for ranges and lists as seen: --closed"


@dataclass(frozen=True)
class Draft:
    """A contract that the rows it is drawn from meet, and what a person should know before it is used."""

    contract: Contract
    num_rows: int
    notes: tuple[str, ...]


class Rows(Protocol):
    """Rows that can be looked at: `shapes.SparkRows`, or texts in memory."""

    def profile(self, contract: Contract, columns: Mapping[str, str] | None) -> Profile:
        """Return what the columns hold, for a contract that takes every value as text; see `shapes.profile`."""

    def different_values(
        self, contract: Contract, types: Mapping[str, str], *, listed: Sequence[str]
    ) -> dict[str, tuple[int, list[str]]]:
        """Return the different values of some columns; see `shapes.different_values`."""


def draft(
    rows: Rows,
    columns: Mapping[str, str] | None,
    *,
    name: str,
    label: str | None = None,
    has_types: bool = False,
    closed: bool = False,
) -> Draft:
    """Return a contract that accepts the rows it is drawn from. The same rows yield the same draft.

    It is open: it takes other values of the same types, but of the label, so that the encoder and not the contract decides
    what becomes of a category that nobody has seen.

    The first pass finds types, ranges, lengths and missing values, the second the values of text with few different
    ones and whether a column is unique. Both turn columns into rows, so that plan and time do not grow with the square
    of their number; what reaches the driver is some rows per column.

    Args:
        rows: those of the source.
        columns: name -> type; None when `RAW` is a JSON object whose keys are the columns.
        name: of the contract.
        label: its label.
        has_types: whether the types are the source's own, and are kept; else the narrowest that fits the text is taken.
        closed: whether every column gets the ranges, lists of values, lengths and missing values that were seen.

    Raises:
        ContractError: no rows, no usable column, no such label, or more rows that cannot be parsed than a contract allows.
    """
    usable, left_out = naming.usable(columns or {})
    if columns is not None and not usable:
        raise ContractError(f"{name}: no column that a contract can hold: {'; '.join(left_out)}")
    profile = rows.profile(_all_text(name, usable), None if columns is None else _types(usable))
    if columns is None:
        usable, left_out = naming.usable({column.name: "string" for column in profile.columns})
        named = {column.source_name: column.name for column in usable}
        profile = replace(profile, columns=[replace(c, name=named[c.name]) for c in profile.columns if c.name in named])
    _check_rows(name, profile)
    if not usable:
        raise ContractError(
            f"{name}: no column that a contract can hold: {'; '.join(left_out) or 'the rows are empty'}"
        )
    label = _label(label, usable)

    by_name = {column.name: column for column in usable}
    seen = profile.columns
    rules = {column.name: _rule(column, profile.num_rows, by_name[column.name], has_types) for column in seen}
    plain = Contract(name=name, label=label, columns=tuple(rules.values()))
    listed = [c for c in seen if closed or c.name == label]
    few = [c.name for c in listed if rules[c.name].is_text and _is_few(c.distinct, c.present, slack=1.2)]
    keys = [c.name for c in seen if _may_be_key(c, rules[c.name], profile.num_rows)]
    types = {column: rules[column].type for column in rules if column in few or column in keys}
    values = rows.different_values(plain, types, listed=few) if types else {}
    for column in seen:
        number, categories = values.get(column.name, (0, []))
        if column.name in few and _is_few(number, column.present):
            change = {"allowed": tuple(categories), "max_length": None}
            rules[column.name] = rules[column.name].model_copy(update=change)
    unique = [column for column in keys if values[column][0] == profile.num_rows]
    classes = {c.name for c in seen if c.name == label and 0 < c.distinct <= MAX_CATEGORIES}
    columns_drafted = (rule if closed else _open(rule, is_class=rule.name in classes) for rule in rules.values())
    drafted = Contract(name=name, label=label, columns=tuple(columns_drafted), unique_key=tuple(unique[:1]))
    notes = [
        f"draft from {profile.num_rows:,} rows: {_WIDEN if closed else _IS_OPEN}",
        *_flaw_notes(profile),
        *(f"left out: {what}" for what in left_out),
        *_name_notes(usable),
        *_missing_notes(seen, profile.num_rows),
        *_marker_notes([column for column in seen if rules[column.name].is_text], has_types=has_types),
        *(note for column in seen for note in _type_notes(column, rules[column.name], has_types=has_types)),
        *_key_notes(unique),
    ]
    return Draft(drafted, profile.num_rows, tuple(notes))


def to_text(contract: Contract) -> str:
    """Return the contract's file, a column on a line; `contracts.load` reads the same contract from it."""
    content = contracts.to_json(contract)
    for column in content["columns"]:
        for bound in ("min", "max"):
            if isinstance(column.get(bound), float) and column[bound].is_integer() and abs(column[bound]) < 2**53:
                column[bound] = int(column[bound])
    columns = ",\n".join("    " + json.dumps(column, ensure_ascii=False) for column in content["columns"])
    entries = [
        f'  "columns": [\n{columns}\n  ]' if key == "columns" else f"  {json.dumps(key)}: {json.dumps(value)}"
        for key, value in content.items()
    ]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _types(columns: Sequence[ColumnRule]) -> dict[str, str]:
    return {column.name: column.type for column in columns}


def _all_text(name: str, columns: Sequence[ColumnRule]) -> Contract:
    """Return a contract that takes every value as text, and bytes as they are."""
    texts = tuple(
        ColumnRule(name=column.name, header=column.header, type="binary" if column.is_binary else "string")
        for column in columns
    )
    return Contract(name=name, columns=texts or (ColumnRule(name="c1", type="string"),))


def _label(label: str | None, columns: Sequence[ColumnRule]) -> str | None:
    """Return the column that is called `label`, in the contract or in the source."""
    if label is None:
        return None
    for column in columns:
        if label in (column.name, column.source_name):
            return column.name
    raise ContractError(f"label {label!r} is not among the columns: {', '.join(c.source_name for c in columns)}")


def _name_notes(columns: Sequence[ColumnRule]) -> list[str]:
    renamed = ", ".join(f"{column.header!r} is {column.name}" for column in columns if column.header is not None)
    return [f"names in settings, rules and tables: {renamed}"] if renamed else []


def _check_rows(name: str, profile: Profile) -> None:
    bad = sum(profile.flaws.values())
    if not profile.num_rows + bad:
        raise ContractError(f"{name}: no rows to draft a contract from")
    reasons = dict(sorted(profile.flaws.items(), key=lambda item: (-item[1], item[0])))
    counts = {"rows_read": profile.num_rows + bad, "rows_good": profile.num_rows, "rows_quarantined": bad}
    accounting.check_account(Account(reasons, {name: counts}), _all_text(name, ()))


def _rule(column: Seen, num_rows: int, source: ColumnRule, has_types: bool) -> ColumnRule:
    """Return the narrowest rule that every value of the column meets, its categories aside."""
    kind = source.type if has_types else "string" if column.markers else column.clean_type
    missing = num_rows - column.present
    bounds: dict[str, Any] = {}
    if kind in ("date", "timestamp"):
        bounds = {"min": column.extremes[f"min_{kind}"], "max": column.extremes[f"max_{kind}"]}
    elif kind == "binary":
        bounds = {"media": Media()} if set(column.shapes) == {"picture"} else {}
    elif kind == "string":
        bounds = {"max_length": column.extremes["length"]}
    elif kind != "boolean":
        bounds = {side: _outward(column.extremes[f"{side}_number"], kind, side) for side in ("min", "max")}
    share = math.ceil(missing / num_rows * 1000) / 1000
    return ColumnRule(
        name=column.name,
        header=source.header,
        type=kind,
        nullable=missing > 0,
        max_missing_share=share if missing else None,
        **bounds,
    )


def _open(rule: ColumnRule, *, is_class: bool) -> ColumnRule:
    """Return a rule that takes other values of its type, and more missing ones; a label keeps its list of classes."""
    share = 1.0 if rule.max_missing_share == 1.0 else None
    opened = rule.model_copy(update={"max_length": None, "max_missing_share": share})
    is_open = not (is_class and rule.type in column_types.WHOLE_BITS)
    return opened.model_copy(update={"min": None, "max": None}) if is_open else opened


def _outward(extreme: float | None, kind: str, side: str) -> float | None:
    """Return an extreme that was seen through a double, as a bound that the value itself keeps."""
    if extreme is None or kind in ("float", "double") or extreme == 0.0:
        return extreme
    if kind.startswith("decimal"):
        if column_types.decimal_digits(kind)[0] <= _EXACT_DIGITS:
            return extreme
    elif not _EXACT_WHOLE <= abs(extreme) < _BEYOND_BIGINT:
        return extreme
    return math.nextafter(extreme, math.inf if side == "max" else -math.inf)


def _is_few(distinct: int, present: int, *, slack: float = 1.0) -> bool:
    return 0 < distinct <= slack * min(MAX_CATEGORIES, MAX_CATEGORY_SHARE * present)


def _may_be_key(column: Seen, rule: ColumnRule, num_rows: int) -> bool:
    # The estimate of distinct values is off by 5 % in the mean (standard deviation), by a fifth never in practice.
    is_apt = rule.type not in ("float", "double", "boolean", "binary") and not rule.nullable
    return is_apt and num_rows >= MIN_KEY_ROWS and column.distinct >= 0.8 * num_rows


def _flaw_notes(profile: Profile) -> list[str]:
    if not profile.flaws:
        return []
    listed = ", ".join(f"{flaw} {count:,}" for flaw, count in sorted(profile.flaws.items()))
    bad = sum(profile.flaws.values())
    return [f"{bad:,} of {profile.num_rows + bad:,} rows cannot be parsed and count for nothing here: {listed}"]


def _missing_notes(seen: Sequence[Seen], num_rows: int) -> list[str]:
    shares = {column.name: 1 - column.present / num_rows for column in seen if column.present < num_rows}
    return ["missing: " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())] if shares else []


def _marker_notes(texts: Sequence[Seen], *, has_types: bool) -> list[str]:
    """Return the texts that may stand for a missing value, the commonest first."""
    totals: dict[str, int] = {}
    for column in texts:
        for marker, count in column.markers.items():
            totals[marker] = totals.get(marker, 0) + count
    remedy = "make them null at the source" if has_types else "draft again with --option missing={}"
    notes = []
    for marker in sorted(totals, key=lambda marker: (-totals[marker], marker)):
        where = ", ".join(f"{column.name} {column.markers[marker]:,}" for column in texts if marker in column.markers)
        notes.append(f"{marker!r} may mark missing values ({where}): if so, {remedy.format(shlex.quote(marker))}")
    return notes


def _type_notes(column: Seen, rule: ColumnRule, *, has_types: bool) -> list[str]:
    if not column.present:
        return [f"{rule.name}: has no value at all"]
    if rule.is_binary and rule.media is None and "picture" in column.shapes:
        others = column.present - column.shapes["picture"]
        return [
            f'{rule.name}: {others:,} of {column.present:,} values are no pictures; for those that are: "media": {{}}'
        ]
    if rule.type in ("float", "double") and set(column.shapes) - NUMBERS:
        return [f"{rule.name}: has infinite values, which every contract refuses"]
    if rule.type in ("date", "timestamp") and set(column.shapes) - FITTING[rule.type]:
        return [f"{rule.name}: has years before 1 or after 9999, which every contract refuses"]
    if has_types or not rule.is_text:
        return []
    if column.markers and column.clean_type != "string":
        return [f"{rule.name}: would be {column.clean_type} without {', '.join(map(repr, column.markers))}"]
    for kind, fitting in FITTING.items():
        number = sum(count for shape, count in column.shapes.items() if shape in fitting)
        if _MOST * column.present <= number < column.present:
            return [f"{rule.name}: {number:,} of {column.present:,} values are {kind}, the others are not"]
    return []


def _key_notes(unique: Sequence[str]) -> list[str]:
    others = f"; unique too: {', '.join(unique[1:])}" if unique[1:] else ""
    return [f"unique key: {unique[0]}{others}"] if unique else []
