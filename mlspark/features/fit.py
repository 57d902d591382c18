"""The encoder is fitted here: what the training rows hold, counted in at most two passes, becomes its numbers. Driver."""

import logging
import math
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pyspark.sql import DataFrame

from mlspark.errors import FeatureError
from mlspark.feature_settings import (
    BucketsFeature,
    CyclicFeature,
    FeatureSettings,
    FeaturesSettings,
    FrequencyFeature,
    HashFeature,
    IndexFeature,
    NgramsFeature,
    NumberFeature,
    OneHotFeature,
    TargetFeature,
    VectorFeature,
)
from mlspark.features import counting, spark
from mlspark.features.counting import Counts, Number, NumberCounts, Text, TextCounts
from mlspark.features.encoder import (
    Bucketed,
    Categorical,
    Cyclic,
    Encoder,
    Fitted,
    Hashed,
    Indexed,
    Looked,
    Ngrams,
    NumberStatistics,
    OneHot,
    Ranked,
    Scaled,
    Vector,
)
from mlspark.features.expression import parse

logger = logging.getLogger(__name__)

_WHOLE = ("boolean", "tinyint", "smallint", "int")
_LOG_STEP = 2.0**-30  # log1p of a double is at most 710, less than 2^40 of them
_OWN_COLUMNS = ("label", "row_id", "split", "fold")


def fit(train: DataFrame, settings: FeaturesSettings, *, pipeline: str, row_hash: str = "row_id") -> Encoder:
    """Return the encoder of `train`, the training rows only. At most two Spark passes, whatever the number of columns.

    The same rows give the same bits, in whatever order and partitions they are.

    Args:
        train: conformed good rows.
        settings: what becomes of which column.
        pipeline: name, for the encoder's record.
        row_hash: bigint column by which rows are put into folds, where a feature needs them.

    Raises:
        FeatureError: no training rows, or features that together have two outputs of one name.
    """
    types = {field.name: field.dataType.simpleString() for field in train.schema}
    numbers: dict[str, Number] = {}
    texts: dict[str, Text] = {}
    for entry in settings.inputs:
        for name, source in zip(entry.names, _sources(entry), strict=True):
            if isinstance(entry, NumberFeature | BucketsFeature):
                numbers[name] = _number_wanted(entry, source, types)
            elif isinstance(entry, IndexFeature | OneHotFeature | TargetFeature | FrequencyFeature):
                folds = entry.folds if isinstance(entry, TargetFeature) else 0
                texts[name] = Text(spark.text(source), entry.min_count, entry.max_values, folds)
    counts = counting.count(
        train, numbers=numbers, texts=texts, positive=spark.positive(settings.label), row_hash=row_hash
    )
    if not counts.rows:
        raise FeatureError(f"pipeline {pipeline}: no training rows to fit on; check sources.learn and split")
    fitted = [
        _fitted(entry, name, source, counts)
        for entry in settings.inputs
        for name, source in zip(entry.names, _sources(entry), strict=True)
    ]
    encoder = Encoder(
        pipeline=pipeline,
        label=settings.label,
        rows=counts.rows,
        positive=counts.positive,
        inputs={column: types[column] for entry in settings.inputs for column in columns_of(entry)},
        features=tuple(fitted),
    )
    _refuse_equal_names(encoder)
    return encoder


def columns_of(entry: FeatureSettings) -> dict[str, str]:
    """Return the columns that a declared feature uses -> "number", "category", "text", "time" or "vector"."""
    match entry:
        case NumberFeature() | BucketsFeature():
            return {column: use for source in _sources(entry) for column, use in parse(source[0]).columns.items()}
        case NgramsFeature():
            return dict.fromkeys(entry.columns, "text")
        case CyclicFeature():
            return dict.fromkeys(entry.columns, "time")
        case VectorFeature():
            return dict.fromkeys(entry.columns, "vector")
        case HashFeature():
            return dict.fromkeys(entry.columns, "category")
    return dict.fromkeys((*entry.columns, *entry.cross), "category")


def _sources(entry: FeatureSettings) -> list[tuple[str, ...]]:
    """Return what each of an entry's features is made of: an expression, or columns."""
    match entry:
        case NumberFeature() | BucketsFeature() if entry.expression:
            return [(entry.expression,)]
        case HashFeature():
            return [entry.columns]
        case IndexFeature() | OneHotFeature() | TargetFeature() | FrequencyFeature() if entry.cross:
            return [entry.cross]
    return [(column,) for column in entry.columns]


def _number_wanted(entry: NumberFeature | BucketsFeature, source: tuple[str, ...], types: Mapping[str, str]) -> Number:
    [text] = source
    expression = parse(text)
    if isinstance(entry, BucketsFeature):
        parts = (entry.quantiles,) if entry.quantiles else ()
        step = 1.0 if types.get(text) in _WHOLE else None
        return Number(expression.sql(), step=step, parts=parts, exact=entry.exact)
    is_plain = entry.clip == (None, None) and not entry.log1p and entry.power is None
    step = 1.0 if is_plain and types.get(text) in _WHOLE else None
    step = _LOG_STEP if entry.log1p else step
    parts = {"robust": (4,), "quantile": (entry.knots - 1,)}.get(entry.scale, ())
    return Number(
        spark.chain(expression.sql(), clip=entry.clip, log1p=entry.log1p, power=entry.power),
        step=step,
        parts=parts + ((2,) if entry.impute == "median" else ()),
        exact=entry.exact,
        mode=entry.impute == "mode",
    )


def _fitted(entry: FeatureSettings, name: str, source: tuple[str, ...], counts: Counts) -> Fitted:
    match entry:
        case NumberFeature():
            return _number(entry, name, source[0], counts.numbers[name])
        case BucketsFeature():
            found = counts.numbers[name]
            edges = entry.edges
            if entry.quantiles and found.count:
                edges = tuple(sorted(set(found.cuts(entry.quantiles))))[1:-1]
            return Bucketed(
                name=name, expression=source[0], statistics=_statistics(found), edges=edges, into=entry.into
            )
        case HashFeature():
            return Hashed(
                name=name, columns=entry.columns, cross=entry.cross, buckets=entry.buckets, into=entry.into,
                signed=entry.signed,
            )  # fmt: skip
        case NgramsFeature():
            return Ngrams(
                name=name, column=source[0], lengths=entry.lengths, buckets=entry.buckets, signed=entry.signed
            )
        case CyclicFeature():
            return Cyclic(name=name, column=source[0], parts=entry.parts)
        case VectorFeature():
            return Vector(name=name, column=source[0], size=entry.size, indicator=entry.indicator)
    return _categories(entry, name, source, counts)


def _statistics(found: NumberCounts) -> NumberStatistics:
    return NumberStatistics(
        count=found.count, nulls=found.nulls, mean=found.mean, std=found.std, min=found.min, max=found.max
    )


def _number(entry: NumberFeature, name: str, expression: str, found: NumberCounts) -> Scaled | Ranked:
    imputed = {
        "mean": lambda: found.mean,
        "median": lambda: found.cuts(2)[1] if found.count else 0.0,
        "mode": lambda: found.mode or 0.0,
        "constant": lambda: _chained(entry, entry.fill),
    }[entry.impute]()
    common: dict[str, Any] = {
        "name": name,
        "expression": expression,
        "clip": entry.clip,
        "log1p": entry.log1p,
        "power": entry.power,
        "statistics": _statistics(found),
        "indicator": entry.indicator,
    }
    if entry.scale == "quantile":
        values = found.cuts(entry.knots - 1) if found.count else [0.0]
        shares: dict[float, list[float]] = {}
        for place, value in enumerate(values):
            shares.setdefault(value, []).append(place / max(1, len(values) - 1))
        knots = tuple(sorted(shares))
        ranked = Ranked(
            **common,
            knots=knots,
            below=tuple(min(shares[knot]) for knot in knots),
            upto=tuple(max(shares[knot]) for knot in knots),
            missing=0.0,
        )
        return ranked.model_copy(update={"missing": ranked.of(imputed)})
    center, scale = 0.0, 1.0
    if found.count and entry.scale == "standard":
        center, scale = found.mean, found.std
    elif found.count and entry.scale == "min_max":
        center, scale = found.min, found.max - found.min
    elif found.count and entry.scale == "robust":
        _, low, center, high, _ = found.cuts(4)
        scale = high - low
    scale = min(scale, sys.float_info.max) or 1.0
    return Scaled(**common, center=center, scale=scale, missing=(imputed - center) / scale)


def _chained(entry: NumberFeature, value: float) -> float:
    """Return what a number is before it is scaled."""
    low, high = entry.clip
    value = value if low is None else max(value, low)
    value = value if high is None else min(value, high)
    if entry.log1p:
        return math.log1p(max(value, 0.0))
    return value if entry.power is None else math.copysign(abs(value) ** entry.power, value)


def _categories(
    entry: IndexFeature | OneHotFeature | TargetFeature | FrequencyFeature,
    name: str,
    columns: tuple[str, ...],
    counts: Counts,
) -> Categorical:
    found = counts.texts[name]
    if found.rare_values:
        logger.log(
            logging.WARNING if found.too_many else logging.INFO,
            "feature %s: knows %s of %s values, the others (%s rows, %s values with too few of them) count as unseen",
            name,
            f"{len(found.values):,}",
            f"{len(found.values) + found.rare_values:,}",
            f"{found.rare:,}",
            f"{found.rare_values - found.too_many:,}",
        )
    common: dict[str, Any] = {
        "name": name,
        "columns": columns,
        "values": tuple(found.values),
        "counts": tuple(found.values.values()),
        "nulls": found.nulls,
        "rare": found.rare,
    }
    if isinstance(entry, IndexFeature):
        return Indexed(**common)
    if isinstance(entry, OneHotFeature):
        # max keeps the first of several.
        commonest = max(found.values, key=found.values.__getitem__, default=None) if entry.impute == "mode" else None
        return OneHot(**common, impute=commonest, has_missing=commonest is None and found.nulls > 0)
    if isinstance(entry, FrequencyFeature):
        shares = tuple(rows / counts.rows for rows in found.values.values())
        return Looked(**common, what="frequency", numbers=shares, missing=found.nulls / counts.rows, unseen=0.0)
    *numbers, missing, unseen = _shares(entry, found, counts, without=None)
    return Looked(
        **common,
        what="target",
        numbers=tuple(numbers),
        missing=missing,
        unseen=unseen,
        folds=entry.folds,
        fold_numbers=tuple(tuple(_shares(entry, found, counts, without=fold)) for fold in range(entry.folds)),
    )


def _shares(entry: TargetFeature, found: TextCounts, counts: Counts, *, without: int | None) -> list[float]:
    """Return the shrunk share of positive labels of each value, of missing and of unseen ones, but for one fold's rows.

    Micci-Barreca 2001, with the shrinkage of scikit-learn's TargetEncoder.
    """
    rows, positive = counts.rows, counts.positive
    if without is not None:
        rows_there, positive_there = counts.folds.get((entry.folds, without), (0, 0))
        rows, positive = rows - rows_there, positive - positive_there
    prior = positive / rows if rows else counts.positive / counts.rows
    shares = []
    for value in (*found.values, None):
        folds = [numbers for fold, numbers in found.by_fold.get(value, {}).items() if fold != without]
        n, n_positive = sum(number for number, _ in folds), sum(number for _, number in folds)
        if not n:
            shares.append(prior)
            continue
        mean = n_positive / n
        if entry.smooth == "auto":
            spread = prior * (1.0 - prior) * n
            weight = spread / (spread + mean * (1.0 - mean)) if spread else 0.0
        else:
            weight = n / (n + entry.smooth)
        shares.append(weight * mean + (1.0 - weight) * prior)
    return [*shares, prior]


def _refuse_equal_names(encoder: Encoder) -> None:
    # Delta does not tell columns apart by case.
    names = Counter(output.name.casefold() for output in encoder.outputs)
    taken = sorted(name for name, number in names.items() if number > 1 or name in _OWN_COLUMNS)
    if taken:
        raise FeatureError(
            f"pipeline {encoder.pipeline}: features: two columns of the table would be called {', '.join(taken)}; "
            f"give one of their features another `name`"
        )
