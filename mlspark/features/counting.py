"""What many columns hold, counted in two passes over the rows whatever their number. Driver.

The first pass finds how many numbers there are and their range, the second counts everything else in one shuffle: each
row yields an entry for each thing to be counted, and entries that are alike are added up. Sums are of integers (whole
numbers, or places in the range, 2^31 steps), so the result does not depend on the order of rows, partitions or tasks.

Few rows are fetched in one pass and counted here, see `few_rows`: Spark takes longer to plan the two than to read them.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlspark.features import few_rows, wide_ranges
from mlspark.features.counts import (
    HALF_BITS,
    MOST_SPLIT,
    SPLITTER,
    SUMS,
    Counts,
    Number,
    NumberCounts,
    Sums,
    Text,
    TextCounts,
    finite,
    fold,
)
from mlspark.features.few_rows import FewRows
from mlspark.sql_literals import sql_double

_STEPS = 2**31  # resolution of the exact sums, per range of a column


def count(
    rows: DataFrame,
    *,
    numbers: Mapping[str, Number],
    texts: Mapping[str, Text],
    sums: Mapping[str, Sums] | None = None,
    events: Sequence[str] = (),
    row_hash: str = "",
    most_rows: int | None = None,
) -> Counts:
    """Return what `rows` hold. Two Spark jobs, each one pass over them; one for sums and numbers with a `step` alone.

    The answer is the same bits with and without `most_rows`.

    Args:
        rows: any rows.
        numbers: name -> what is asked.
        texts: name -> what is asked. Driver memory is that of the values named.
        sums: name -> what is asked.
        events: SQL conditions; the rows that meet each are counted too, everywhere that rows are.
        row_hash: SQL of a bigint by which rows are put into folds; see `counts.fold`.
        most_rows: there are no more rows than that; None: that is not known.
    """
    number_columns = {name: f"_number{place}" for place, name in enumerate(numbers)}
    text_columns = {name: f"_text{place}" for place, name in enumerate(texts)}
    sums_columns = {f"_sums{place}": asked for place, asked in enumerate((sums or {}).values())}
    values = rows.selectExpr(
        *(f"coalesce({condition}, false) AS {event}" for event, condition in zip(_events(events), events, strict=True)),
        *([f"{row_hash} AS _row_hash"] if row_hash else []),
        *(f"{number.sql} AS {number_columns[name]}" for name, number in numbers.items()),
        *(f"{text.sql} AS {text_columns[name]}" for name, text in texts.items()),
        *(f"{asked.sql} AS {column}" for column, asked in sums_columns.items()),
    )
    values = values.withColumns({column: F.expr(finite(column)) for column in number_columns.values()})
    numbers_by_column = {number_columns[name]: number for name, number in numbers.items()}
    folds = sorted({text.folds for text in texts.values()} - {0})
    few = few_rows.fetched(values, list(text_columns.values()), folds, most_rows=None if sums else most_rows)
    ranges = few.ranges(numbers_by_column) if few else _ranges(values, numbers_by_column, sums_columns, len(events))
    slots = [
        *(_Slot("text", name, column, text=column, folds=texts[name].folds) for name, column in text_columns.items()),
        *_number_slots(numbers, number_columns, ranges),
        *(_Slot("folds", str(number), folds=number) for number in folds),
    ]
    groups: dict[tuple[str, str], list[Any]] = {}
    if slots and ranges["rows"]:
        if few:
            found = [(slot, row) for slot in slots for row in _of_few(few, slot, numbers, texts, ranges)]
        else:
            found = _of_many(values, slots, numbers, texts, len(events))
        for slot, row in found:
            groups.setdefault((slot.what, slot.name), []).append(row)
    return Counts(
        rows=ranges["rows"],
        events=_event_rows(ranges, len(events)),
        numbers={
            name: _number_counts(
                number, number_columns[name], ranges, {what: groups.get((what, name), []) for what in _NUMBER_SLOTS}
            )
            for name, number in numbers.items()
        },
        texts={name: _text_counts(groups.get(("text", name), []), len(events)) for name in texts},
        folds={
            (slot.folds, row["fold"]): (row["rows"], *_event_rows(row, len(events)))
            for slot in slots
            if slot.what == "folds"
            for row in groups.get(("folds", slot.name), [])
        },
        sums=dict(zip(sums or {}, (_sums_of(ranges, *entry) for entry in sums_columns.items()), strict=True)),
    )


def _sums_of(ranges: Mapping[str, Any], column: str, asked: Sums) -> tuple[int, ...]:
    return tuple(int(ranges[f"{column}_{place}"] or 0) for place in range(asked.size))


_NO_TEXT, _NO_NUMBER, _NO_FOLD = "CAST(NULL AS STRING)", "CAST(NULL AS DOUBLE)", "0"
_NO_POSITION = "CAST(NULL AS BIGINT)"
_NUMBER_SLOTS = ("moments", "cuts", "mode")


@dataclass(frozen=True)
class _Slot:
    """One entry that each row yields in the second pass, in SQL over the values."""

    what: str
    name: str
    column: str = ""
    text: str = _NO_TEXT
    number: str = _NO_NUMBER
    folds: int = 0
    position: str = _NO_POSITION


def _events(events: Iterable[object]) -> list[str]:
    """Return the columns that say whether a row meets each condition."""
    return [f"_event{place}" for place, _ in enumerate(events)]


def _event_rows(row: Mapping[str, Any] | Any, num_events: int) -> tuple[int, ...]:
    """Return the rows of each event out of a row of the result."""
    return tuple(row[f"events{place}"] for place in range(num_events))


def _number_slots(
    numbers: Mapping[str, Number], columns: Mapping[str, str], ranges: Mapping[str, Any]
) -> Iterator["_Slot"]:
    """Yield what numbers need of the second pass."""
    for name, number in numbers.items():
        column = columns[name]
        if not ranges[f"count{column}"]:
            continue
        if number.step is None:
            position = _position(column, ranges[f"min{column}"], ranges[f"max{column}"])
            yield _Slot("moments", name, column, position=position)
        if number.parts:
            yield _Slot("cuts", name, column, number=column if number.exact else _rounded(column))
        if number.mode:
            yield _Slot("mode", name, column, number=column)


def _of_many(
    values: DataFrame, slots: Sequence[_Slot], numbers: Mapping[str, Number], texts: Mapping[str, Text], num_events: int
) -> list[tuple[_Slot, Any]]:
    """Return the groups that the answers need, each with its slot, counted by Spark."""
    kept = _kept(_grouped(values, slots, num_events), slots, numbers, texts, num_events).collect()
    return [(slots[row["slot"]], row) for row in kept]


def _of_few(
    few: FewRows, slot: _Slot, numbers: Mapping[str, Number], texts: Mapping[str, Text], ranges: Mapping[str, Any]
) -> Sequence[Mapping[str, Any]]:
    """Return the groups of a slot that the answers need, of rows that were fetched."""
    match slot.what:
        case "folds":
            return few.folds(slot.folds)
        case "text":
            return few.text(slot.column, texts[slot.name])
        case "moments":
            low, high = ranges[f"min{slot.column}"], ranges[f"max{slot.column}"]
            return few.moments(slot.column, low, _step(low, high))
        case "cuts":
            return few.cuts(slot.column, numbers[slot.name])
        case _:
            return few.mode(slot.column)


def _rounded(column: str) -> str:
    """Return the value rounded to 11 significant bits, which leaves whole numbers below 2,048 as they are.

    By multiplication, as T. J. Dekker splits doubles (1971), so that it is the same everywhere.
    """
    scaled = f"{column} * {SPLITTER}D"
    return f"CASE WHEN abs({column}) < {sql_double(MOST_SPLIT)} THEN {scaled} - ({scaled} - {column}) ELSE {column} END"


def _ranges(
    values: DataFrame, numbers: Mapping[str, Number], sums: Mapping[str, Sums], num_events: int
) -> Mapping[str, Any]:
    """Return what one pass without a shuffle tells: rows, and of each number count, range, sums of whole numbers."""
    if len(numbers) >= wide_ranges.FEWEST_NUMBERS and not sums:
        return wide_ranges.ranges(values, numbers, num_events)
    wanted = ["count(*) AS rows", *(f"count_if(_event{place}) AS events{place}" for place in range(num_events))]
    for column, asked in sums.items():
        # As decimals: no sum leaves a bigint unseen.
        wanted += [
            f"sum(CAST(get({column}, {place}) AS DECIMAL(19, 0))) AS {column}_{place}" for place in range(asked.size)
        ]
    for column, number in numbers.items():
        wanted += [f"{what}({column}) AS {what}{column}" for what in ("count", "min", "max")]
        if number.step is not None:
            scaled = column if number.step == 1.0 else f"rint({column} / {sql_double(number.step)})"
            squares = _square_sums(f"CAST({scaled} AS BIGINT)")
            wanted += [f"sum({sql}) AS {name}{column}" for name, sql in zip(SUMS, squares, strict=True)]
    return values.agg(*(F.expr(sql) for sql in wanted)).collect()[0].asDict()


def _square_sums(position: str) -> tuple[str, ...]:
    """Return the halves of a position and their products, so that no sum of billions of rows leaves a bigint."""
    high, low = f"shiftright({position}, {HALF_BITS})", f"({position} & {2**HALF_BITS - 1}L)"
    return high, low, f"{high} * {high}", f"{high} * {low}", f"{low} * {low}"


def _mean_and_variance(sums: Mapping[str, int], count: int) -> tuple[Fraction, Fraction]:
    """Return both of the positions, from the sums of their halves."""
    half = 2**HALF_BITS
    mean = Fraction(sums["high"] * half + sums["low"], count)
    squares = sums["high_high"] * half**2 + 2 * sums["high_low"] * half + sums["low_low"]
    return mean, Fraction(squares, count) - mean * mean


def _position(column: str, low: float, high: float) -> str:
    """Return the step of the range that a value is in."""
    # Halves, so that the distance of two doubles is one.
    distance = f"({column} * 0.5D - {sql_double(low * 0.5)})"
    return f"CAST(rint({distance} / {sql_double(_step(low, high) * 0.5)}) AS BIGINT)"


def _step(low: float, high: float) -> float:
    """Return the width of a step: 1 keeps whole numbers exact, else a power of two that splits the range finely."""
    if low.is_integer() and high.is_integer() and high - low < _STEPS:
        return 1.0
    width = high / _STEPS - low / _STEPS
    return max(2.0 ** math.ceil(math.log2(width)), _SMALLEST_STEP) if width > 0 else 1.0


_SMALLEST_STEP = 2.0**-1021


def _grouped(values: DataFrame, slots: Sequence[_Slot], num_events: int) -> DataFrame:
    """Return slot, text, number, fold, rows, those of each event, and sums of all entries that are alike. Lazy; one shuffle.

    Each row becomes as many as there are slots, so what no slot needs is left out until they are counted.
    """
    asked = {
        "text": [slot.text for slot in slots],
        "number": [slot.number for slot in slots],
        "fold": [fold("_row_hash", slot.folds) if slot.folds else _NO_FOLD for slot in slots],
        "position": [slot.position for slot in slots],
    }
    nothing = {"text": _NO_TEXT, "number": _NO_NUMBER, "fold": _NO_FOLD, "position": _NO_POSITION}
    needed = {name: sqls for name, sqls in asked.items() if set(sqls) != {nothing[name]}}
    entries = (", ".join(entry) for entry in zip(map(str, range(len(slots))), *needed.values(), strict=True))
    # stack is compiled with what follows: no array for each row, as explode would make.
    stacked = f"stack({len(slots)}, {', '.join(entries)}) AS (slot, {', '.join(needed)})" if needed else "0 AS slot"
    sums = _square_sums("position") if "position" in needed else (_NO_POSITION,) * len(SUMS)
    keys = ("slot", *(name for name in needed if name != "position"))
    grouped = (
        values.selectExpr(*_events(range(num_events)), stacked)
        .groupBy(*keys)
        .agg(
            F.count("*").alias("rows"),
            *(F.count_if(f"_event{place}").alias(f"events{place}") for place in range(num_events)),
            *(F.expr(f"sum({sql}) AS {name}") for name, sql in zip(SUMS, sums, strict=True)),
        )
    )
    absent = (f"{sql} AS {name}" for name, sql in nothing.items() if name not in needed and name != "position")
    return grouped.selectExpr("*", *absent)


def _kept(
    grouped: DataFrame,
    slots: Sequence[_Slot],
    numbers: Mapping[str, Number],
    texts: Mapping[str, Text],
    num_events: int,
) -> DataFrame:
    """Return the groups that the driver needs, the others of a slot added up (`is_kept` false). Lazy.

    Of a text those named and null; of a number's cuts those between which a cut is; of modes the first.
    """
    cuts = [str(place) for place, slot in enumerate(slots) if slot.what == "cuts"]
    is_cut = f"slot IN ({', '.join(cuts)})" if cuts else "false"
    # A text's values by rows of all folds, the commonest first and null last; a number's by its size.
    in_all_folds = "sum(rows) OVER (PARTITION BY slot, text, number)" if any(slot.folds for slot in slots) else "rows"
    by_key = "PARTITION BY slot ORDER BY text IS NULL, number IS NULL, key, text, number"
    with_number = "sum(CASE WHEN number IS NOT NULL THEN rows END)"
    ranked = (
        grouped.selectExpr("*", f"{in_all_folds} AS in_all_folds")
        .selectExpr("*", f"CASE WHEN {is_cut} THEN number ELSE -in_all_folds END AS key")
        .selectExpr(
            "*",
            f"dense_rank() OVER ({by_key}) AS place",
            f"{with_number} OVER ({by_key} RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS upto",
            f"{with_number} OVER (PARTITION BY slot) AS count",
        )
    )
    enough: dict[str, list[str]] = {}
    kept: dict[str, list[str]] = {}
    for place, slot in enumerate(slots):
        if slot.what == "text":
            text = texts[slot.name]
            enough.setdefault(f"in_all_folds >= {text.min_count}", []).append(str(place))
            kept.setdefault(f"text IS NULL OR has_enough AND place <= {text.max_values}", []).append(str(place))
        elif slot.what == "cuts":
            kept.setdefault(_is_cut(numbers[slot.name].parts), []).append(str(place))
        elif slot.what == "mode":
            kept.setdefault("number IS NOT NULL AND place = 1", []).append(str(place))
    marked = ranked.selectExpr("*", f"{_cases(enough)} AS has_enough").selectExpr("*", f"{_cases(kept)} AS is_kept")
    groups = (F.expr(f"CASE WHEN is_kept THEN {name} END").alias(name) for name in ("text", "number", "fold"))
    return marked.groupBy("slot", "is_kept", *groups).agg(
        *(F.sum(name).alias(name) for name in ("rows", *(f"events{place}" for place in range(num_events)), *SUMS)),
        F.max("upto").alias("upto"),
        F.expr("count(DISTINCT text) AS values"),
        F.expr("count(DISTINCT CASE WHEN has_enough THEN text END) AS too_many"),
    )


def _cases(whens: Mapping[str, Sequence[str]]) -> str:
    """Return SQL of the condition of a row's slot, true where it has none: condition -> its slots."""
    cases = (f"WHEN slot IN ({', '.join(places)}) THEN {condition}" for condition, places in whens.items())
    return f"CASE {' '.join(cases)} ELSE true END" if whens else "true"


def _is_cut(parts: Sequence[int]) -> str:
    """Return SQL of whether a value of a number's slot may be one between which one of the cuts is."""
    steps = "greatest(count - 1, 1)"
    # A little more than the ranks from upto - rows - 1 to upto: the driver takes what it needs.
    between = (
        f"ceil((upto - rows - 1.5D) * {number} / {steps}) <= floor((upto + 0.5D) * {number} / {steps})"
        for number in parts
    )
    return f"number IS NOT NULL AND (upto = rows OR upto = count OR {' OR '.join(between)})"


def _number_counts(
    number: Number, column: str, ranges: Mapping[str, Any], groups: Mapping[str, Sequence[Any]]
) -> NumberCounts:
    count = ranges[f"count{column}"]
    nulls = ranges["rows"] - count
    if not count:
        return NumberCounts(0, nulls)
    low, high = ranges[f"min{column}"], ranges[f"max{column}"]
    if number.step is not None:
        start, step = Fraction(0), Fraction(number.step)
        sums = {name: ranges[f"{name}{column}"] for name in SUMS}
    else:
        start, step = Fraction(low), Fraction(_step(low, high))
        sums = {name: groups["moments"][0][name] for name in SUMS}
    mean, variance = _mean_and_variance(sums, count)
    cuts = sorted((row["number"], row["upto"] - row["rows"], row["upto"]) for row in groups["cuts"] if row["is_kept"])
    return NumberCounts(
        count=count,
        nulls=nulls,
        min=low,
        max=high,
        mean=float(start + mean * step),
        std=min(math.sqrt(variance) * float(step), sys.float_info.max),
        mode=next((row["number"] for row in groups["mode"] if row["is_kept"]), None),
        steps=tuple(cuts),
    )


def _text_counts(groups: Sequence[Any], num_events: int) -> TextCounts:
    by_fold: dict[str | None, dict[int, tuple[int, ...]]] = {}
    rare = None
    for row in groups:
        if row["is_kept"]:
            by_fold.setdefault(row["text"], {})[row["fold"]] = (row["rows"], *_event_rows(row, num_events))
        else:
            rare = row
    totals = {text: tuple(map(sum, zip(*folds.values(), strict=True))) for text, folds in by_fold.items()}
    # Sorted by code point, which is the order of the UTF-8 bytes: the same everywhere.
    known = sorted(text for text in totals if text is not None)
    nulls, *nulls_events = totals.get(None, (0,) * (1 + num_events))
    return TextCounts(
        values={text: totals[text][0] for text in known},
        events={text: totals[text][1:] for text in known},
        nulls=nulls,
        nulls_events=tuple(nulls_events),
        rare=rare["rows"] if rare else 0,
        rare_values=rare["values"] if rare else 0,
        too_many=rare["too_many"] if rare else 0,
        by_fold=by_fold,
    )
