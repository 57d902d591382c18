"""The encoder on rows in memory: the same numbers as on Spark, for scoring outside it. Runs anywhere."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc

from mlspark.features import hashing
from mlspark.features.encoder import (
    FIRST_ID,
    LARGEST,
    MISSING_ID,
    PERIODS,
    SEPARATOR,
    UNSEEN_ID,
    Bucketed,
    Categorical,
    Cyclic,
    Encoder,
    Fitted,
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
from mlspark.features.expression import parse

Floats = NDArray[np.float64]
_Encode = Callable[[pa.Table], list[NDArray[np.generic]]]


class ArrowEncoder:
    """An encoder made ready once, for many tables of rows.

    Its float32 have the same bits as those of features.spark.encode for rows to be scored, but for `log1p` and `power`:
    there the doubles of two libraries may differ in the last place, and so may, rarely, the float32.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._layout = encoder.layout
        self._features = [(_ready(feature), [bool(o.ids) for o in feature.outputs]) for feature in encoder.features]

    def transform(self, rows: pa.Table) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return (dense (n, F), categorical (n, K)) of conformed rows, columns in the layout's order."""
        dense = np.empty((rows.num_rows, len(self._layout.dense)), np.float32)
        ids = np.empty((rows.num_rows, len(self._layout.categorical)), np.int64)
        num_dense = num_ids = 0
        for encode, are_ids in self._features:
            for column, is_id in zip(encode(rows), are_ids, strict=True):
                if is_id:
                    ids[:, num_ids] = column
                    num_ids += 1
                else:
                    dense[:, num_dense] = column
                    num_dense += 1
        return dense, ids


def _ready(feature: Fitted) -> _Encode:
    """Return what gives a feature's outputs, as float64 that fit a float32, or as ids."""
    match feature:
        case Scaled():
            return _scaled(feature)
        case Ranked():
            return _ranked(feature)
        case Bucketed():
            return _bucketed(feature)
        case Indexed() | OneHot() | Looked():
            return _categories(feature)
        case Hashed():
            return _hashed(feature)
        case Ngrams():
            return _ngrams(feature)
        case Cyclic():
            return _cyclic(feature)
        case Vector():
            return _vector(feature)


def _numbers(feature: Numeric) -> Callable[[pa.Table], Floats]:
    """Return what gives a number as it is before it is scaled, NaN where it is missing or not finite."""
    expression, (low, high) = parse(feature.expression), feature.clip

    def numbers(rows: pa.Table) -> Floats:
        values = expression.evaluate(rows)
        with np.errstate(all="ignore"):
            if low is not None:
                values = np.where(values < low, low, values)
            if high is not None:
                values = np.where(values > high, high, values)
            if feature.log1p:
                values = np.log1p(np.where(values < 0.0, 0.0, values))
            elif feature.power is not None:
                values = np.copysign(np.abs(values) ** feature.power, values)
        return np.where(np.isfinite(values), values, np.nan) + 0.0  # -0.0 is 0.0

    return numbers


def _scaled(feature: Scaled) -> _Encode:
    numbers, is_plain = _numbers(feature), (feature.center, feature.scale) == (0.0, 1.0)

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        values = numbers(rows)
        is_missing = np.isnan(values)
        with np.errstate(over="ignore"):
            scaled = values if is_plain else (values - feature.center) / feature.scale
        outputs: list[NDArray[np.generic]] = [_clamped(np.where(is_missing, feature.missing, scaled))]
        return [*outputs, is_missing] if feature.indicator else outputs

    return encode


def _clamped(values: Floats) -> Floats:
    return np.clip(values, -LARGEST, LARGEST)


def _ranked(feature: Ranked) -> _Encode:
    numbers = _numbers(feature)
    knots, levels, upto = (np.array(each) for each in (feature.knots, feature.levels, feature.upto))
    slopes = np.array([*feature.slopes, 0.0])

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        values = numbers(rows)
        is_missing = np.isnan(values)
        place = np.maximum(np.searchsorted(knots, values, side="right") - 1, 0)
        between = upto[place] + (values - knots[place]) * slopes[place]
        ranks = np.where(values == knots[place], levels[place], between)
        ranks = np.where(values < knots[0], 0.0, np.where(values > knots[-1], 1.0, ranks))
        outputs: list[NDArray[np.generic]] = [np.where(is_missing, feature.missing, ranks)]
        return [*outputs, is_missing] if feature.indicator else outputs

    return encode


def _bucketed(feature: Bucketed) -> _Encode:
    numbers, edges = _numbers(feature), np.array(feature.edges, np.float64)

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        values = numbers(rows)
        buckets = np.where(np.isnan(values), MISSING_ID, np.searchsorted(edges, values, side="right") + 1)
        return [buckets] if feature.into == "id" else [buckets == place for place in range(len(edges) + 2)]

    return encode


def _categories(feature: Categorical) -> _Encode:
    texts, known = _texts(feature.columns), pa.array(feature.values, pa.string())
    unseen, missing = len(feature.values), len(feature.values) + 1
    match feature:
        case Indexed():
            ids = np.array([*range(FIRST_ID, FIRST_ID + unseen), UNSEEN_ID, MISSING_ID])
        case Looked():
            numbers = np.array([*feature.numbers, feature.unseen, feature.missing])
        case OneHot(impute=str() as imputed):
            missing = feature.values.index(imputed)

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        column = texts(rows)
        place = pc.fill_null(pc.index_in(column, value_set=known, skip_nulls=True), unseen).to_numpy()
        if column.null_count:
            place = np.where(column.is_null().to_numpy(), missing, place)
        match feature:
            case Indexed():
                return [ids[place]]
            case Looked():
                return [numbers[place]]
        has_missing = [place == missing] if feature.has_missing else []
        return [*(place == at for at in range(unseen)), *has_missing]

    return encode


def _texts(columns: Sequence[str]) -> Callable[[pa.Table], pa.ChunkedArray]:
    """Return what gives the text by which a category is known, of one column or of several together."""

    def texts(rows: pa.Table) -> pa.ChunkedArray:
        found = [_text(rows.column(column)) for column in columns]
        return found[0] if len(found) == 1 else pc.binary_join_element_wise(*found, SEPARATOR)

    return texts


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _hashes(column: pa.ChunkedArray, prefix: str = "") -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the hash of each text, and whether it is missing."""
    encoded = column.combine_chunks().dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    values = [prefix + text for text in encoded.dictionary.to_pylist()]
    is_missing = np.asarray(encoded.is_null())
    hashes = np.append(hashing.xxhash64(values), 0)  # the last one for missing texts
    return hashes[np.where(is_missing, len(values), pc.fill_null(encoded.indices, 0).to_numpy())], is_missing


def _hashed(feature: Hashed) -> _Encode:
    texts = [_texts(columns) for columns in feature.tokens]
    prefixes = [SEPARATOR.join(columns) + SEPARATOR for columns in feature.tokens]

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        counts = np.zeros((rows.num_rows, feature.buckets)) if feature.into == "floats" else None
        for of_token, prefix in zip(texts, prefixes, strict=True):
            hashes, is_missing = _hashes(of_token(rows), prefix)
            buckets = hashes % feature.buckets
            if counts is None:
                return [np.where(is_missing, MISSING_ID, buckets + 1)]
            signs = np.where(hashes < 0, -1.0, 1.0) if feature.signed else 1.0
            np.add.at(counts, (np.arange(rows.num_rows), buckets), np.where(is_missing, 0.0, signs))
        assert counts is not None
        return list(counts.T)

    return encode


def _ngrams(feature: Ngrams) -> _Encode:
    shortest, longest = feature.lengths

    def of_text(text: str) -> Floats:
        grams = [text[at : at + n] for n in range(shortest, longest + 1) for at in range(len(text) - n + 1)]
        hashes = hashing.xxhash64(grams)
        signs = np.where(hashes < 0, -1.0, 1.0) if feature.signed else np.ones(len(hashes))
        counts = np.bincount(hashes % feature.buckets, weights=signs, minlength=feature.buckets)
        return np.asarray(counts, np.float64)

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        texts = rows.column(feature.column).to_pylist()
        counts = np.zeros((len(texts), feature.buckets))
        for row, text in enumerate(texts):
            if text:
                counts[row] = of_text(text)
        return list(counts.T)

    return encode


_PARTS: dict[str, Callable[[pa.ChunkedArray], pa.ChunkedArray]] = {
    "second": pc.second,
    "minute": pc.minute,
    "hour": pc.hour,
    "day_of_week": pc.day_of_week,
    "day_of_month": lambda times: pc.subtract(pc.day(times), 1),
    "day_of_year": lambda times: pc.subtract(pc.day_of_year(times), 1),
    "month": lambda times: pc.subtract(pc.month(times), 1),
}


def _cyclic(feature: Cyclic) -> _Encode:
    circles = {part: [np.array([*circle(part, f), 0.0]) for f in (math.sin, math.cos)] for part in feature.parts}

    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        times = rows.column(feature.column)
        # As a UTC wall clock: Arrow would need a time zone database for more.
        times = times.cast(pa.timestamp("us")) if pa.types.is_date(times.type) else _wall_clock(times)
        outputs: list[NDArray[np.generic]] = []
        for part, (sines, cosines) in circles.items():
            values = pc.fill_null(_PARTS[part](times), PERIODS[part]).to_numpy()
            outputs += [sines[values], cosines[values]]
        return outputs

    return encode


def _wall_clock(times: pa.ChunkedArray) -> pa.ChunkedArray:
    return times.cast(pa.timestamp("us", times.type.tz)).cast(pa.int64()).cast(pa.timestamp("us"))


def _vector(feature: Vector) -> _Encode:
    def encode(rows: pa.Table) -> list[NDArray[np.generic]]:
        column = rows.column(feature.column)
        values = np.zeros((rows.num_rows, feature.size))
        for row, array in enumerate(column.to_pylist()):
            if array is not None:
                values[row] = [0.0 if value is None else value for value in array]
        outputs: list[NDArray[np.generic]] = list(_clamped(values).T)
        return [*outputs, column.is_null().to_numpy()] if feature.indicator else outputs

    return encode
