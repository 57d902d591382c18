"""What many columns hold, counted in two passes over the rows whatever their number. Driver.

The first pass finds how many numbers there are and their range, the second counts everything else in one shuffle: each row
gives an entry for each thing to be counted, and entries that are alike are added up. Sums are of integers (whole numbers, or
places in the range, 2^31 steps), so the result does not depend on the order of rows, partitions or tasks.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlspark.features.expression import sql_double

_STEPS = 2**31  # resolution of the exact sums, per range of a column
_HALF = 20  # bits of the lower half of a position; the upper one has no more, up to 2^40
_ROUNDED_BITS = 42  # of a double's 52 that are left out when values are rounded


@dataclass(frozen=True)
class Number:
    """Asks what a number's values are."""

    sql: str
    """Of type double; null, NaN and infinities have no value."""
    step: float | None = None
    """All values are less than 2^40 steps, and rounding them to steps is exact enough: 1.0 for whole numbers. One pass is
    enough for their sums then."""
    parts: tuple[int, ...] = ()
    """Asks for the values that cut the sorted rows into so many equal parts."""
    exact: bool = False
    """Of all values, not of values rounded to 11 significant bits."""
    mode: bool = False
    """Asks for the commonest value, the least of several."""


@dataclass(frozen=True)
class Text:
    """Asks which values a text has."""

    sql: str
    """Of type string; null is no value."""
    min_count: int = 1
    """Rows that a value needs."""
    max_values: int = 100_000
    """Most values to name: the commonest, by code point among equally common ones."""
    folds: int = 0
    """Also count by fold."""


@dataclass(frozen=True)
class NumberCounts:
    """What a number's values are."""

    count: int
    """Rows with a value."""
    nulls: int
    min: float = 0.0
    max: float = 0.0
    mean: float = 0.0
    std: float = 0.0
    """Population standard deviation."""
    mode: float | None = None
    steps: tuple[tuple[float, int, int], ...] = ()
    """(value, rows below it, rows up to it), ascending: all that the cuts need, and the least and the greatest."""

    def cuts(self, parts: int) -> list[float]:
        """Return the values that cut the sorted rows into `parts`, the ends included: shape (parts + 1,).

        Between two values linearly, as in numpy.quantile: Hyndman and Fan 1996, definition 7.
        """
        ranks = [Fraction((self.count - 1) * part, parts) for part in range(parts + 1)]
        found, place = [], 0
        for rank in ranks:
            low = rank.numerator // rank.denominator
            while self.steps[place][2] <= low:
                place += 1
            value = self.steps[place][0]
            if rank > low and self.steps[place][2] <= low + 1:
                following = self.steps[place + 1][0]
                value += float(rank - low) * (following - value)
            found.append(value)
        return found


@dataclass(frozen=True)
class TextCounts:
    """Which values a text has."""

    values: Mapping[str, int]
    """Named value -> rows, by code point."""
    positive: Mapping[str, int]
    """Named value -> rows with a positive label."""
    nulls: int
    nulls_positive: int
    rare: int
    """Rows of values that are not named."""
    rare_values: int
    """Different values that are not named."""
    too_many: int
    """Of them, those that have enough rows."""
    by_fold: Mapping[str | None, Mapping[int, tuple[int, int]]] = field(default_factory=dict)
    """Value, None for missing -> fold -> (rows, positive rows)."""


@dataclass(frozen=True)
class Counts:
    """What was asked for."""

    rows: int
    positive: int
    numbers: Mapping[str, NumberCounts]
    texts: Mapping[str, TextCounts]
    folds: Mapping[tuple[int, int], tuple[int, int]]
    """(number of folds, fold) -> (rows, positive rows)."""


def count(
    rows: DataFrame,
    *,
    numbers: Mapping[str, Number],
    texts: Mapping[str, Text],
    positive: str = "false",
    row_hash: str = "",
) -> Counts:
    """Return what `rows` hold. Two Spark jobs, each one pass over them; one when there are only numbers with a `step`.

    Args:
        rows: any rows.
        numbers: name -> what is asked.
        texts: name -> what is asked. Driver memory is that of the values named.
        positive: SQL condition of rows with a positive label.
        row_hash: SQL of a bigint by which rows are put into folds; see `fold`.
    """
    number_columns = {name: f"_number{place}" for place, name in enumerate(numbers)}
    text_columns = {name: f"_text{place}" for place, name in enumerate(texts)}
    values = rows.selectExpr(
        f"coalesce({positive}, false) AS _positive",
        *([f"{row_hash} AS _row_hash"] if row_hash else []),
        *(f"{number.sql} AS {number_columns[name]}" for name, number in numbers.items()),
        *(f"{text.sql} AS {text_columns[name]}" for name, text in texts.items()),
    )
    values = values.withColumns({column: F.expr(finite(column)) for column in number_columns.values()})
    ranges = _ranges(values, {number_columns[name]: number for name, number in numbers.items()})
    counted = [name for name in numbers if ranges[f"count{number_columns[name]}"]]
    slots: list[_Slot] = [
        _Slot("text", name, text=text_columns[name], folds=text.folds) for name, text in texts.items()
    ]
    for name in counted:
        wanted, column = numbers[name], number_columns[name]
        if wanted.step is None:
            position = _position(column, ranges[f"min{column}"], ranges[f"max{column}"])
            slots.append(_Slot("moments", name, position=position))
        if wanted.parts:
            slots.append(_Slot("cuts", name, number=column if wanted.exact else _rounded(column)))
        if wanted.mode:
            slots.append(_Slot("mode", name, number=column))
    slots += [
        _Slot("folds", str(folds), folds=folds) for folds in sorted({text.folds for text in texts.values()} - {0})
    ]
    found: dict[tuple[str, str], list[Any]] = {}
    if slots and ranges["rows"]:
        for row in _kept(_grouped(values, slots), slots, numbers, texts).collect():
            slot = slots[row["slot"]]
            found.setdefault((slot.what, slot.name), []).append(row)
    return Counts(
        rows=ranges["rows"],
        positive=ranges["positive"],
        numbers={
            name: _number_counts(
                wanted, number_columns[name], ranges, {what: found.get((what, name), []) for what in _NUMBER_SLOTS}
            )
            for name, wanted in numbers.items()
        },
        texts={name: _text_counts(found.get(("text", name), [])) for name in texts},
        folds={
            (slot.folds, row["fold"]): (row["rows"], row["positive"])
            for slot in slots
            if slot.what == "folds"
            for row in found.get(("folds", slot.name), [])
        },
    )


def fold(row_hash: str, folds: int) -> str:
    """Return SQL of the fold, 0 to folds - 1, of a row by its hash: the same whatever other rows there are."""
    return f"CAST(pmod(xxhash64({row_hash}, 'fold'), {folds}) AS INT)"


def finite(sql: str) -> str:
    """Return SQL of a double that is null where `sql` is not finite, and 0.0 where it is -0.0."""
    return f"CASE WHEN abs({sql}) < double('infinity') THEN {sql} + 0.0D END"


_SUMS = ("high", "low", "high_high", "high_low", "low_low")
_NO_TEXT, _NO_NUMBER, _NO_FOLD = "CAST(NULL AS STRING)", "CAST(NULL AS DOUBLE)", "0"
_NO_POSITION = "CAST(NULL AS BIGINT)"
_NUMBER_SLOTS = ("moments", "cuts", "mode")


@dataclass(frozen=True)
class _Slot:
    """One entry that each row gives in the second pass, in SQL over the values."""

    what: str
    name: str
    text: str = _NO_TEXT
    number: str = _NO_NUMBER
    folds: int = 0
    position: str = _NO_POSITION


def _rounded(column: str) -> str:
    """Return the value rounded to 11 significant bits, which leaves whole numbers below 2,048 as they are.

    By multiplication, as T. J. Dekker splits doubles (1971), so that it is the same everywhere.
    """
    scaled = f"{column} * {2.0**42 + 1}D"
    return f"CASE WHEN abs({column}) < 1.0E290D THEN {scaled} - ({scaled} - {column}) ELSE {column} END"


def _ranges(values: DataFrame, numbers: Mapping[str, Number]) -> Mapping[str, Any]:
    """Return what one pass without a shuffle tells: rows, and of each number count, range, sums of whole numbers."""
    wanted = ["count(*) AS rows", "count_if(_positive) AS positive"]
    for column, number in numbers.items():
        wanted += [f"{what}({column}) AS {what}{column}" for what in ("count", "min", "max")]
        if number.step is not None:
            scaled = column if number.step == 1.0 else f"rint({column} / {sql_double(number.step)})"
            sums = _square_sums(f"CAST({scaled} AS BIGINT)")
            wanted += [f"sum({sql}) AS {name}{column}" for name, sql in zip(_SUMS, sums, strict=True)]
    return values.agg(*(F.expr(sql) for sql in wanted)).collect()[0].asDict()


def _square_sums(position: str) -> tuple[str, ...]:
    """Return the halves of a position and their products, so that no sum of billions of rows leaves a bigint."""
    high, low = f"shiftright({position}, {_HALF})", f"({position} & {2**_HALF - 1}L)"
    return high, low, f"{high} * {high}", f"{high} * {low}", f"{low} * {low}"


def _mean_and_variance(sums: Mapping[str, int], count: int) -> tuple[Fraction, Fraction]:
    """Return both of the positions, from the sums of their halves."""
    half = 2**_HALF
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


def _grouped(values: DataFrame, slots: Sequence[_Slot]) -> DataFrame:
    """Return slot, text, number, fold, rows, positive and sums of all entries that are alike. Lazy; one shuffle.

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
    sums = _square_sums("position") if "position" in needed else (_NO_POSITION,) * len(_SUMS)
    keys = ("slot", *(name for name in needed if name != "position"))
    grouped = (
        values.selectExpr("_positive", stacked)
        .groupBy(*keys)
        .agg(
            F.count("*").alias("rows"),
            F.count_if("_positive").alias("positive"),
            *(F.expr(f"sum({sql}) AS {name}") for name, sql in zip(_SUMS, sums, strict=True)),
        )
    )
    absent = (f"{sql} AS {name}" for name, sql in nothing.items() if name not in needed and name != "position")
    return grouped.selectExpr("*", *absent)


def _kept(
    grouped: DataFrame, slots: Sequence[_Slot], numbers: Mapping[str, Number], texts: Mapping[str, Text]
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
            wanted = texts[slot.name]
            enough.setdefault(f"in_all_folds >= {wanted.min_count}", []).append(str(place))
            kept.setdefault(f"text IS NULL OR has_enough AND place <= {wanted.max_values}", []).append(str(place))
        elif slot.what == "cuts":
            kept.setdefault(_is_cut(numbers[slot.name].parts), []).append(str(place))
        elif slot.what == "mode":
            kept.setdefault("number IS NOT NULL AND place = 1", []).append(str(place))
    marked = ranked.selectExpr("*", f"{_cases(enough)} AS has_enough").selectExpr("*", f"{_cases(kept)} AS is_kept")
    groups = (F.expr(f"CASE WHEN is_kept THEN {name} END").alias(name) for name in ("text", "number", "fold"))
    return marked.groupBy("slot", "is_kept", *groups).agg(
        *(F.sum(name).alias(name) for name in ("rows", "positive", *_SUMS)),
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
    wanted: Number, column: str, ranges: Mapping[str, Any], found: Mapping[str, Sequence[Any]]
) -> NumberCounts:
    count = ranges[f"count{column}"]
    nulls = ranges["rows"] - count
    if not count:
        return NumberCounts(0, nulls)
    low, high = ranges[f"min{column}"], ranges[f"max{column}"]
    if wanted.step is not None:
        start, step = Fraction(0), Fraction(wanted.step)
        sums = {name: ranges[f"{name}{column}"] for name in _SUMS}
    else:
        start, step = Fraction(low), Fraction(_step(low, high))
        sums = {name: found["moments"][0][name] for name in _SUMS}
    mean, variance = _mean_and_variance(sums, count)
    cuts = sorted((row["number"], row["upto"] - row["rows"], row["upto"]) for row in found["cuts"] if row["is_kept"])
    return NumberCounts(
        count=count,
        nulls=nulls,
        min=low,
        max=high,
        mean=float(start + mean * step),
        std=min(math.sqrt(variance) * float(step), sys.float_info.max),
        mode=next((row["number"] for row in found["mode"] if row["is_kept"]), None),
        steps=tuple(cuts),
    )


def _text_counts(found: Sequence[Any]) -> TextCounts:
    by_fold: dict[str | None, dict[int, tuple[int, int]]] = {}
    rare = None
    for row in found:
        if row["is_kept"]:
            by_fold.setdefault(row["text"], {})[row["fold"]] = (row["rows"], row["positive"])
        else:
            rare = row
    totals = {text: [sum(numbers) for numbers in zip(*folds.values(), strict=True)] for text, folds in by_fold.items()}
    # Sorted by code point, which is the order of the UTF-8 bytes: the same everywhere.
    known = sorted(text for text in totals if text is not None)
    nulls, nulls_positive = totals.get(None, [0, 0])
    return TextCounts(
        values={text: totals[text][0] for text in known},
        positive={text: totals[text][1] for text in known},
        nulls=nulls,
        nulls_positive=nulls_positive,
        rare=rare["rows"] if rare else 0,
        rare_values=rare["values"] if rare else 0,
        too_many=rare["too_many"] if rare else 0,
        by_fold=by_fold,
    )
