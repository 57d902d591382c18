"""The encoder on Spark: native expressions only, so that a row never leaves the JVM. Driver, lazy."""

import json
import math
from collections.abc import Callable, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.feature_settings import LabelSettings
from mlspark.features import hashing
from mlspark.features.counting import finite, fold
from mlspark.features.encoder import (
    FIRST_ID,
    LARGEST,
    MISSING_ID,
    SEPARATOR,
    UNSEEN_ID,
    Bucketed,
    Categorical,
    Cyclic,
    Encoder,
    Hashed,
    Indexed,
    Looked,
    Ngrams,
    Numeric,
    OneHot,
    Ranked,
    Scaled,
    Vector,
    circle,
)
from mlspark.features.expression import parse, sql_double

_SAFE_TYPES = ("boolean", "tinyint", "smallint", "int", "bigint")
"""Of columns that hold no number that is not finite, or not finite any more after scaling."""


def encode(
    rows: DataFrame, encoder: Encoder, *keep: str, is_training: Column | None = None, row_hash: str = "row_id"
) -> DataFrame:
    """Return the encoded columns, `encoder.outputs` in order, then those of `rows` to keep; see `encoded`."""
    prepared, columns = encoded(rows, encoder, is_training=is_training, row_hash=row_hash)
    return prepared.select(*columns, *keep)


def encoded(
    rows: DataFrame, encoder: Encoder, *, is_training: Column | None = None, row_hash: str = "row_id"
) -> tuple[DataFrame, list[Column]]:
    """Return `rows` with further columns "_...", and of them `encoder.outputs` in order: float, or int for ids; never null.

    Args:
        rows: conformed rows with `encoder.inputs`.
        encoder: fitted.
        is_training: which rows the encoder was fitted on, to be encoded out of their fold. Rows to be scored are none.
        row_hash: column by which `fit` put these rows into folds.
    """
    preparation = _Preparation(encoder, is_training, row_hash)
    outputs = [column for feature in encoder.features for column in preparation.outputs(feature)]
    # Each step computes what the next one uses several times.
    for step in preparation.steps:
        if step:
            rows = rows.withColumns(step)
    return rows, [column.alias(output.name) for column, output in zip(outputs, encoder.outputs, strict=True)]


def label(encoder: Encoder) -> Column:
    """Return the label as 1.0 or 0.0 (float), null where its value is neither positive nor negative."""
    value = F.col(encoder.label.column)
    is_positive, is_negative = value.isin(*encoder.label.positive), value.isin(*encoder.label.negative)
    return F.when(is_positive, 1.0).when(is_negative, 0.0).cast("float").alias("label")


def positive(settings: LabelSettings) -> str:
    """Return SQL of whether a row's label is positive."""
    return f"`{settings.column}` IN ({', '.join(map(_quoted, settings.positive))})"


def text(columns: Sequence[str]) -> str:
    """Return SQL of the text by which a category is known, of one column or of several together."""
    texts = [f"CAST(`{column}` AS STRING)" for column in columns]
    return texts[0] if len(texts) == 1 else f"concat({f', {_quoted(SEPARATOR)}, '.join(texts)})"


def chain(value: str, *, clip: tuple[float | None, float | None], log1p: bool, power: float | None) -> str:
    """Return SQL of a number as it is before it is scaled; null stays null."""
    low, high = clip
    if high is not None:
        value = f"nanvl({value}, CAST(NULL AS DOUBLE))"  # NaN is more than anything to Spark
    bounds = [f"WHEN {value} < {sql_double(low)} THEN {sql_double(low)}"] if low is not None else []
    bounds += [f"WHEN {value} > {sql_double(high)} THEN {sql_double(high)}"] if high is not None else []
    # Not least and greatest: greatest(null, 0) is 0, and a missing value must stay missing.
    value = f"CASE {' '.join(bounds)} ELSE {value} END" if bounds else value
    if log1p:
        return f"log1p(CASE WHEN {value} < 0.0D THEN 0.0D ELSE {value} END)"
    if power is not None:
        raised = f"power(abs({value}), {sql_double(power)})"
        return f"CASE WHEN {value} < 0.0D THEN -{raised} ELSE {raised} END"
    return value


def value(fitted: Numeric) -> str:
    """Return SQL of a fitted number as it is before it is scaled; null where missing."""
    return chain(parse(fitted.expression).sql(), clip=fitted.clip, log1p=fitted.log1p, power=fitted.power)


class _Preparation:
    """What the outputs need first: columns "_...", in steps that build on each other."""

    def __init__(self, encoder: Encoder, is_training: Column | None, row_hash: str) -> None:
        self.steps: tuple[dict[str, Column], ...] = ({}, {}, {})
        self._encoder = encoder
        self._is_training = is_training
        self._row_hash = row_hash

    def outputs(self, feature: object) -> list[Column]:
        """Return the output columns of a feature, and note what they need."""
        match feature:
            case Scaled():
                value = self._number(feature)
                scaled = f"({value} - {sql_double(feature.center)}) / {sql_double(feature.scale)}"
                scaled = scaled if (feature.center, feature.scale) != (0.0, 1.0) else value
                found = f"coalesce({scaled}, {sql_double(feature.missing)})"
                return [self._float(found, feature), *self._indicator(value, feature.indicator)]
            case Ranked():
                value = self._number(feature)
                found = (
                    f"CASE WHEN {value} IS NULL THEN {sql_double(feature.missing)} ELSE {_ranks(feature, value)} END"
                )
                return [F.expr(f"CAST({found} AS FLOAT)"), *self._indicator(value, feature.indicator)]
            case Bucketed():
                value = self._number(feature)
                bucket = _tree(value, feature.edges, [str(place + 1) for place in range(len(feature.edges) + 1)])
                bucket = f"CASE WHEN {value} IS NULL THEN {MISSING_ID} ELSE {bucket} END"
                if feature.into == "id":
                    return [F.expr(f"CAST({bucket} AS INT)")]
                place = self._note(2, f"_bucket_{feature.name}", F.expr(bucket))
                return [F.expr(f"CAST({place} = {i} AS FLOAT)") for i in range(len(feature.edges) + 2)]
            case Indexed():
                return [self._lookup(feature, range(FIRST_ID, FIRST_ID + len(feature.values)), MISSING_ID, UNSEEN_ID)]
            case OneHot():
                known = len(feature.values)
                missing = known if feature.impute is None else feature.values.index(feature.impute)
                place = self._note(2, f"_place_{feature.name}", self._lookup(feature, range(known), missing, -1))
                return [F.expr(f"CAST({place} = {i} AS FLOAT)") for i in range(len(feature.outputs))]
            case Looked():
                return [self._looked(feature).cast("float")]
            case Hashed():
                return self._hashed(feature)
            case Ngrams():
                return self._ngrams(feature)
            case Cyclic():
                return [
                    _cyclic(feature.column, part, function)
                    for part in feature.parts
                    for function in (math.sin, math.cos)
                ]
            case Vector():
                places = [
                    F.expr(_clamped(f"coalesce(CAST(get(`{feature.column}`, {i}) AS DOUBLE), 0.0D)"))
                    for i in range(feature.size)
                ]
                return [*places, *self._indicator(f"`{feature.column}`", feature.indicator)]
        raise AssertionError(feature)

    def _note(self, step: int, name: str, column: Column) -> str:
        self.steps[step].setdefault(name, column)
        return f"`{name}`"

    def _number(self, fitted: Numeric) -> str:
        """Return SQL of the value, null where it is missing or not finite."""
        sql = value(fitted)
        is_plain = fitted.expression in self._encoder.inputs
        if is_plain and not fitted.log1p and fitted.power is None and fitted.clip == (None, None):
            if self._is_safe(fitted):
                return sql
        else:
            sql = self._note(0, f"_value_{fitted.name}", F.expr(sql))
        if self._is_safe(fitted):
            return sql
        return self._note(1, f"_finite_{fitted.name}", F.expr(finite(sql)))

    def _is_safe(self, fitted: Numeric) -> bool:
        return self._encoder.inputs.get(fitted.expression) in _SAFE_TYPES and fitted.power is None

    def _float(self, sql: str, fitted: Scaled) -> Column:
        is_small = self._is_safe(fitted) and fitted.scale > 1e-18
        return F.expr(f"CAST({sql} AS FLOAT)" if is_small else _clamped(sql))

    def _indicator(self, value: str, wanted: bool) -> list[Column]:
        return [F.expr(f"CAST({value} IS NULL AS FLOAT)")] if wanted else []

    def _lookup(self, fitted: Categorical, results: Sequence[int], missing: int, unseen: int) -> Column:
        """Return the result of the value as int."""
        place, table = self._place(fitted)
        placed = [unseen] * table.size
        for at, result in zip(table.places, results, strict=True):
            placed[at] = result
        found = F.get(_array(placed, "int"), F.col(place))
        return F.when(F.col(place).isNull(), missing).otherwise(
            F.when(self._is_known(fitted, table), found).otherwise(unseen)
        )

    def _looked(self, fitted: Looked) -> Column:
        """Return the number of the value; of a training row that in its fold."""
        place, table = self._place(fitted)
        has_folds = self._is_training is not None and fitted.folds > 0
        rows = [(*fitted.numbers, fitted.missing, fitted.unseen)]
        rows = [*fitted.fold_numbers, *rows] if has_folds else rows
        numbers = [[0.0] * (table.size + 2) for _ in rows]
        for of_fold, row in zip(numbers, rows, strict=True):
            for slot, number in zip((*table.places, table.size, table.size + 1), row, strict=True):
                of_fold[slot] = number
        at = F.when(F.col(place).isNull(), table.size).otherwise(
            F.when(self._is_known(fitted, table), F.col(place)).otherwise(table.size + 1)
        )
        if has_folds:
            assert self._is_training is not None
            of_row = F.when(self._is_training, F.expr(fold(self._row_hash, fitted.folds))).otherwise(fitted.folds)
            at = at + of_row * (table.size + 2)
        return F.get(_array([number for of_fold in numbers for number in of_fold], "double"), at)

    def _place(self, fitted: Categorical) -> tuple[str, hashing.PerfectTable]:
        """Return the column of the value's place in the feature's table, null where it is missing, and the table."""
        table = hashing.perfect_table(fitted.values)
        hashed = F.col(self._hash(fitted.columns))
        shift = F.get(_array(table.shifts, "int"), hashed.bitwiseAND(len(table.shifts) - 1).cast("int"))
        place = F.call_function("shiftrightunsigned", hashed, shift).bitwiseAND(table.size - 1).cast("int")
        self._note(1, f"_at_{fitted.name}", place)
        return f"_at_{fitted.name}", table

    def _is_known(self, fitted: Categorical, table: hashing.PerfectTable) -> Column:
        there: list[str | None] = [None] * table.size
        for at, name in zip(table.places, fitted.values, strict=True):
            there[at] = name
        return F.get(_array(there, "string"), F.col(f"_at_{fitted.name}")).eqNullSafe(F.col(self._text(fitted.columns)))

    def _text(self, columns: Sequence[str]) -> str:
        if len(columns) == 1 and self._encoder.inputs[columns[0]] == "string":
            return columns[0]
        name = f"_text_{'_x_'.join(columns)}"
        self._note(0, name, F.expr(text(columns)))
        return name

    def _hash(self, columns: Sequence[str]) -> str:
        """Return the column of the hash of a text, null where that is."""
        name, of = f"_hash_{'_x_'.join(columns)}", self._text(columns)
        hashed = F.when(F.col(of).isNotNull(), F.xxhash64(of))
        self._note(0, name, hashed if of in self._encoder.inputs else F.expr(
            f"CASE WHEN {text(columns)} IS NOT NULL THEN xxhash64({text(columns)}) END"
        ))  # fmt: skip
        return name

    def _hashed(self, fitted: Hashed) -> list[Column]:
        buckets, signs = [], []
        for number, columns in enumerate(fitted.tokens):
            token = f"concat({_quoted(SEPARATOR.join(columns) + SEPARATOR)}, {text(columns)})"
            name = f"_hashed_{fitted.name}_{number}"
            self._note(0, name, F.expr(f"CASE WHEN {token} IS NOT NULL THEN xxhash64({token}) END"))
            buckets.append(self._note(1, f"{name}_bucket", F.expr(f"pmod(`{name}`, {fitted.buckets}L)")))
            signs.append(f"IF(`{name}` < 0, -1, 1)" if fitted.signed else "1")
        if fitted.into == "id":
            return [F.expr(f"CAST(coalesce({buckets[0]} + 1, {MISSING_ID}) AS INT)")]
        pairs = list(zip(buckets, signs, strict=True))
        return [
            F.expr(f"CAST({' + '.join(f'IF({at} <=> {bucket}L, {sign}, 0)' for at, sign in pairs)} AS FLOAT)")
            for bucket in range(fitted.buckets)
        ]

    def _ngrams(self, fitted: Ngrams) -> list[Column]:
        column, name = f"`{fitted.column}`", f"_ngrams_{fitted.name}"
        grams = [
            f"IF(char_length({column}) >= {size}, "
            f"transform(sequence(1, greatest(char_length({column}) - {size - 1}, 1)), "
            f"at -> xxhash64(substring({column}, at, {size}))), CAST(array() AS ARRAY<BIGINT>))"
            for size in range(fitted.lengths[0], fitted.lengths[1] + 1)
        ]
        self._note(0, name, F.expr(f"CASE WHEN {column} IS NOT NULL THEN concat({', '.join(grams)}) END"))
        sign = "IF(h < 0, -1, 1)" if fitted.signed else "1"
        # One number for bucket and sign together.
        signed = f"transform(`{name}`, h -> (pmod(h, {fitted.buckets}L) + 1) * {sign})"
        places = self._note(1, f"{name}_places", F.expr(signed))
        counted = "size(filter({0}, at -> at = {1}))"
        return [
            F.expr(
                f"CAST(coalesce({counted.format(places, bucket + 1)}"
                f"{f' - {counted.format(places, -bucket - 1)}' if fitted.signed else ''}, 0) AS FLOAT)"
            )
            for bucket in range(fitted.buckets)
        ]


def _clamped(sql: str) -> str:
    return f"CAST(greatest(least({sql}, {sql_double(LARGEST)}), {sql_double(-LARGEST)}) AS FLOAT)"


def _ranks(fitted: Ranked, value: str) -> str:
    """Return SQL of `Ranked.of`."""
    knots, levels, slopes = fitted.knots, fitted.levels, fitted.slopes
    results = ["0.0D"]
    for place, knot in enumerate(knots):
        at_knot = sql_double(levels[place])
        if place == len(knots) - 1:
            beyond = "1.0D"
        else:
            beyond = f"{sql_double(fitted.upto[place])} + ({value} - {sql_double(knot)}) * {sql_double(slopes[place])}"
        results.append(f"IF({value} = {sql_double(knot)}, {at_knot}, {beyond})")
    return _tree(value, knots, results)


def _tree(value: str, edges: Sequence[float], results: Sequence[str]) -> str:
    """Return SQL of `results[number of edges that are not above value]`, found by halving."""
    if not edges:
        return results[0]
    middle = len(edges) // 2
    below = _tree(value, edges[:middle], results[: middle + 1])
    above = _tree(value, edges[middle + 1 :], results[middle + 1 :])
    return f"IF({value} < {sql_double(edges[middle])}, {below}, {above})"


_PARTS = {
    "second": "second({0})",
    "minute": "minute({0})",
    "hour": "hour({0})",
    "day_of_week": "weekday({0})",
    "day_of_month": "dayofmonth({0}) - 1",
    "day_of_year": "dayofyear({0}) - 1",
    "month": "month({0}) - 1",
}


def _cyclic(column: str, part: str, function: Callable[[float], float]) -> Column:
    table = ", ".join(sql_double(number) for number in circle(part, function))
    return F.expr(f"CAST(coalesce(get(array({table}), {_PARTS[part].format(f'`{column}`')}), 0.0D) AS FLOAT)")


def _array(items: Sequence[object], kind: str) -> Column:
    """Return an array literal: one text that Spark parses once, when it plans."""
    return F.from_json(F.lit(json.dumps(list(items))), f"array<{kind}>")


def _quoted(text: str) -> str:
    escaped = "".join(f"\\{c}" if c in "\\'" else c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
    return f"'{escaped}'"
