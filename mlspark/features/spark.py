"""The encoder on Spark: fitted in two passes over the training rows, applied as native expressions. Driver."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.config import FeaturesSettings, NumericFeature
from mlspark.contracts.contract import Contract
from mlspark.errors import FeatureError
from mlspark.features.encoder import FIRST_ID, MISSING_ID, UNSEEN_ID, CategoricalEncoding, Encoder, NumericEncoding

_STEPS = 2**31  # resolution of the exact sums, per column range; squares then fit a bigint


def check(settings: FeaturesSettings, contract: Contract, pipeline: str) -> None:
    """Refuse features that the contract's columns cannot give, before any data is read.

    Raises:
        FeatureError: names pipeline, feature, column and type.
    """
    types = {column.name: column.type for column in contract.columns}
    wanted = [("numeric", feature.column, False) for feature in settings.numeric]
    wanted += [("categorical", column, True) for column in settings.categorical]
    wanted.append(("label", settings.label.column, True))
    problems = []
    for kind, column, is_string in wanted:
        if column not in types:
            problems.append(f"{kind} {column}: not a column of contract {contract.name} ({', '.join(types)})")
        elif (types[column] == "string") != is_string:
            problems.append(f"{kind} {column}: type {types[column]}, expected {'string' if is_string else 'a number'}")
    labels = {*settings.label.positive, *settings.label.negative}
    if contract.label == settings.label.column:
        allowed = contract.column(contract.label).allowed
        if allowed is None or not labels.issuperset(allowed):
            problems.append(
                f"label {contract.label}: the contract must allow no other values than label.positive and "
                f"label.negative, it allows {', '.join(allowed) if allowed else 'any'}"
            )
    names = [column for _, column, _ in wanted]
    problems += [f"{name}: declared twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if contract.label != settings.label.column:
        problems.append(f"label {settings.label.column}: the contract's label is {contract.label}")
    if problems:
        raise FeatureError(f"pipeline {pipeline}: features: " + "; ".join(problems))


def fit(train: DataFrame, settings: FeaturesSettings, *, pipeline: str) -> Encoder:
    """Return the encoder of `train`, the training rows only. Two Spark passes, whatever the number of columns.

    The first finds each number's range, the second sums. Sums are of integers (positions in the range, 2^31 steps), so
    they do not depend on the order of rows, partitions or tasks: the same rows give the same bits.

    Args:
        train: conformed good rows.
        settings: what becomes of which column.
        pipeline: name, for the encoder's record.

    Raises:
        FeatureError: no training rows.
    """
    ranges = _ranges(train, settings.numeric)
    rows = ranges["rows"]
    if not rows:
        raise FeatureError(f"pipeline {pipeline}: no training rows to fit on; check sources.learn and split")
    entries = [
        _number_entry(feature, ranges) for feature in settings.numeric if ranges[f"max_{feature.column}"] is not None
    ]
    entries += [
        F.struct(F.lit(column).alias("column"), F.col(column).alias("value"), *_no_sums())
        for column in settings.categorical
    ]
    counted: dict[str, dict[str | None, Any]] = {}
    if entries:
        groups = train.select(F.explode(F.array(*entries)).alias("entry")).select("entry.*").groupBy("column", "value")
        sums = groups.agg(
            F.count("*").alias("rows"),
            *(F.sum(name).alias(name) for name in ("first", "second_high", "second_low", "present")),
        )
        for row in sums.collect():
            counted.setdefault(row["column"], {})[row["value"]] = row
    return Encoder(
        pipeline=pipeline,
        label_column=settings.label.column,
        positive=settings.label.positive,
        negative=settings.label.negative,
        rows=rows,
        numeric=tuple(
            _numeric_encoding(feature, ranges, counted.get(feature.column, {}).get(None))
            for feature in settings.numeric
        ),
        categorical=tuple(
            _categorical_encoding(column, counted[column], settings.min_count) for column in settings.categorical
        ),
    )


def transform(encoder: Encoder) -> list[Column]:
    """Return the encoded columns of a conformed row, in the layout's order: floats, then int ids; never null."""
    dense = [_encode_number(encoding) for encoding in encoder.numeric]
    return dense + [_encode_category(encoding) for encoding in encoder.categorical]


def label(encoder: Encoder) -> Column:
    """Return the label as 1.0 or 0.0 (float), null where its value is neither positive nor negative."""
    value = F.col(encoder.label_column)
    positive, negative = value.isin(*encoder.positive), value.isin(*encoder.negative)
    return F.when(positive, 1.0).when(negative, 0.0).cast("float").alias("label")


def value(feature: NumericFeature | NumericEncoding) -> Column:
    """Return the number that is standardized: the column, or its logarithm; null where it is missing."""
    given = F.col(feature.column).cast("double")
    # `when`, not `greatest`: greatest(null, 0) is 0, and a missing value must stay missing.
    return F.log1p(F.when(given < 0.0, 0.0).otherwise(given)) if feature.log else given


def _ranges(train: DataFrame, features: Sequence[NumericFeature]) -> Mapping[str, Any]:
    bounds = [
        aggregate(value(feature)).alias(f"{name}_{feature.column}")
        for feature in features
        for name, aggregate in (("min", F.min), ("max", F.max))
    ]
    return train.agg(F.count("*").alias("rows"), *bounds).collect()[0].asDict()


def _step(low: float, high: float) -> float:
    """Return the width of a step: 1 keeps whole numbers exact, else a power of two that splits the range finely."""
    if low.is_integer() and high.is_integer() and high - low < _STEPS:
        return 1.0
    return 2.0 ** math.ceil(math.log2((high - low) / _STEPS)) if high > low else 1.0


def _number_entry(feature: NumericFeature, ranges: Mapping[str, Any]) -> Column:
    low, high = ranges[f"min_{feature.column}"], ranges[f"max_{feature.column}"]
    position = F.rint((value(feature) - low) / _step(low, high)).cast("bigint")
    square = position * position
    return F.struct(
        F.lit(feature.column).alias("column"),
        F.lit(None).cast("string").alias("value"),
        position.alias("first"),
        # The square in two halves, so that no sum of billions of rows leaves a bigint.
        F.shiftright(square, 31).alias("second_high"),
        square.bitwiseAND(_STEPS - 1).alias("second_low"),
        F.when(position.isNotNull(), 1).otherwise(0).cast("bigint").alias("present"),
    )


def _no_sums() -> list[Column]:
    return [F.lit(0).cast("bigint").alias(name) for name in ("first", "second_high", "second_low", "present")]


def _numeric_encoding(feature: NumericFeature, ranges: Mapping[str, Any], sums: Any) -> NumericEncoding:
    if sums is None:
        return NumericEncoding(feature.column, feature.log, mean=0.0, std=1.0, count=0, nulls=ranges["rows"])
    low, high = ranges[f"min_{feature.column}"], ranges[f"max_{feature.column}"]
    step = Fraction(_step(low, high))
    count = sums["present"]
    first = Fraction(sums["first"], count)
    variance = Fraction(sums["second_high"] * _STEPS + sums["second_low"], count) - first * first
    return NumericEncoding(
        feature.column,
        feature.log,
        mean=float(Fraction(low) + first * step),
        std=math.sqrt(variance * step * step) or 1.0,
        count=count,
        nulls=sums["rows"] - count,
    )


def _categorical_encoding(column: str, counted: Mapping[str | None, Any], min_count: int) -> CategoricalEncoding:
    counts = {value: row["rows"] for value, row in counted.items() if value is not None}
    # Sorted by code point, which is the order of the UTF-8 bytes: the same everywhere.
    values = sorted(value for value, rows in counts.items() if rows >= min_count)
    return CategoricalEncoding(
        column,
        values=tuple(values),
        counts=tuple(counts[value] for value in values),
        nulls=counted[None]["rows"] if None in counted else 0,
        rare=sum(rows for rows in counts.values() if rows < min_count),
    )


def _encode_number(encoding: NumericEncoding) -> Column:
    scaled = (value(encoding) - encoding.mean) / encoding.std
    return F.coalesce(scaled, F.lit(0.0)).cast("float").alias(encoding.column)


def _encode_category(encoding: CategoricalEncoding) -> Column:
    value = F.col(encoding.column)
    known = [F.lit(item) for index, name in enumerate(encoding.values) for item in (name, FIRST_ID + index)]
    seen = F.try_element_at(F.create_map(*known), value) if known else F.lit(None)
    unless_missing = F.coalesce(seen, F.lit(UNSEEN_ID))
    return F.when(value.isNull(), MISSING_ID).otherwise(unless_missing).cast("int").alias(encoding.column)
