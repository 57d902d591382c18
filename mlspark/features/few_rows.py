"""Few rows, counted on the driver: what `counting` asks of many, to the same bits.

Spark takes seconds to plan what counts any number of rows, and no time to speak of to hand over some thousands. What is
computed here is what `counting` has Spark compute, operation by operation, as IEEE 754 leaves no choice; what either gives
is tested against the other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import DataFrame

from mlspark.features.counts import HALF_BITS, MOST_SPLIT, SPLITTER, SUMS, Number, Text, fold

MOST_BYTES = 2**28
"""Most bytes that are fetched: of a number 8, of a text as many as the longest has."""
LONGEST_TEXT = 64
"""Bytes of the longest text that is fetched; where there is a longer one, Spark counts."""

_LONG = "_long"

Row = dict[str, Any]
"""A group of equal entries, as a row of what `counting` collects."""


def fetched(
    values: DataFrame, texts: Sequence[str], folds: Sequence[int], *, most_rows: int | None
) -> "FewRows | None":
    """Return the rows, in one Spark job without a shuffle; None where they are not few, or have long texts.

    Args:
        values: columns "_event0" ..., "_number0" ..., "_text0" ... and "_row_hash" where there are folds.
        texts: the columns of `values` that are texts.
        folds: numbers of folds that rows are put into.
        most_rows: there are no more rows than that; None: that is not known.
    """
    row_bytes = 8 * (len(values.columns) - len(texts)) + LONGEST_TEXT * len(texts)
    if most_rows is None or most_rows * row_bytes > MOST_BYTES:
        return None
    others = [name for name in values.columns if name not in texts and name != "_row_hash"]
    is_long = " OR ".join(f"coalesce(octet_length({name}) > {LONGEST_TEXT}, false)" for name in texts) or "false"
    table = values.selectExpr(
        *others,
        *(f"CASE WHEN octet_length({name}) <= {LONGEST_TEXT} THEN {name} END AS {name}" for name in texts),
        *(f"{fold('_row_hash', number)} AS _fold{number}" for number in folds),
        f"{is_long} AS {_LONG}",
    ).toArrow()
    if table.num_rows > most_rows or any(table.column(_LONG).to_pylist()):
        return None
    try:
        return FewRows(table, {name: _encoded(table.column(name)) for name in texts})
    except UnicodeDecodeError:  # bytes that are no UTF-8, which Spark passes on
        return None


def _encoded(values: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the different texts by code point, and of each row the place of its own, -1 for null."""
    encoded = values.combine_chunks().dictionary_encode()
    known: list[str] = encoded.dictionary.to_pylist()
    order = sorted(range(len(known)), key=known.__getitem__)
    places = np.empty(len(known) + 1, np.int64)
    places[order] = np.arange(len(known))
    places[-1] = -1
    return [known[place] for place in order], places[encoded.indices.fill_null(len(known)).to_numpy()]


@dataclass(frozen=True)
class FewRows:
    """Rows that were fetched."""

    table: pa.Table
    texts: dict[str, tuple[list[str], NDArray[np.int64]]]
    """Column -> its different texts, and the place among them of each row's."""

    @cached_property
    def _events(self) -> list[NDArray[np.bool_]]:
        names = [name for name in self.table.column_names if name.startswith("_event")]
        return [self.table.column(name).to_numpy().astype(bool) for name in names]

    def ranges(self, numbers: dict[str, Number]) -> Row:
        """Return rows, those of each event, and of each number count, range, and sums of whole numbers."""
        found: Row = {"rows": self.table.num_rows}
        found |= {f"events{place}": int(event.sum()) for place, event in enumerate(self._events)}
        for column, number in numbers.items():
            present = self._present(column)
            found[f"count{column}"] = len(present)
            found[f"min{column}"] = float(present.min()) if len(present) else None
            found[f"max{column}"] = float(present.max()) if len(present) else None
            if number.step is not None:
                scaled = present if number.step == 1.0 else np.rint(present / number.step)
                found |= {f"{name}{column}": value for name, value in _square_sums(scaled.astype(np.int64)).items()}
        return found

    def moments(self, column: str, low: float, step: float) -> list[Row]:
        """Return the sums of the places of a number's values in its range."""
        places = np.rint((self._present(column) * 0.5 - low * 0.5) / (step * 0.5)).astype(np.int64)
        return [_square_sums(places)]

    def cuts(self, column: str, number: Number) -> list[Row]:
        """Return the values between which one of the cuts of a number is, with rows and rows up to each."""
        present = self._present(column)
        if not number.exact:
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = present * SPLITTER
                present = np.where(np.abs(present) < MOST_SPLIT, scaled - (scaled - present), present)
        different, rows = np.unique(present, return_counts=True)
        upto, count = np.cumsum(rows), len(present)
        is_kept = (upto == rows) | (upto == count)
        steps = max(count - 1, 1)
        for parts in number.parts:
            first = np.ceil((upto - rows - 1.5) * parts / steps)
            is_kept |= first <= np.floor((upto + 0.5) * parts / steps)
        kept = zip(different[is_kept].tolist(), rows[is_kept].tolist(), upto[is_kept].tolist(), strict=True)
        return [{"is_kept": True, "number": value, "rows": rows, "upto": upto} for value, rows, upto in kept]

    def mode(self, column: str) -> list[Row]:
        """Return the commonest value of a number; of several, the least."""
        different, rows = np.unique(self._present(column), return_counts=True)
        return [{"is_kept": True, "number": float(different[np.argmax(rows)])}]

    def folds(self, folds: int) -> list[Row]:
        """Return the rows of each fold."""
        keys = self._folds(folds)
        return [
            {"fold": fold, "rows": rows, **events}
            for fold, (rows, events) in enumerate(self._counted(keys, folds))
            if rows
        ]

    def text(self, column: str, text: Text) -> list[Row]:
        """Return the values of a text that are named, by fold, null among them, and all others as one row."""
        known, places = self.texts[column]
        totals = np.bincount(places[places >= 0], minlength=len(known))
        has_enough = totals >= text.min_count
        named = np.zeros(len(known), bool)
        named[np.argsort(-totals, kind="stable")[: text.max_values]] = True  # by code point among equally common ones
        named &= has_enough
        number = text.folds or 1
        keys = (places + 1) * number + (self._folds(text.folds) if text.folds else 0)
        counted = list(self._counted(keys, (len(known) + 1) * number))
        groups: list[Row] = []
        for key, (rows, events) in enumerate(counted):
            place = key // number - 1
            if rows and (place < 0 or named[place]):
                value = None if place < 0 else known[place]
                groups.append({"is_kept": True, "text": value, "fold": key % number, "rows": rows, **events})
        if not named.all():
            rare = ~named[places] & (places >= 0)
            events = {f"events{at}": int((event & rare).sum()) for at, event in enumerate(self._events)}
            others = {"values": int((~named).sum()), "too_many": int((~named & has_enough).sum())}
            groups.append({"is_kept": False, "rows": int(rare.sum()), **events, **others})
        return groups

    def _counted(self, keys: NDArray[np.int64], number: int) -> Iterator[tuple[int, dict[str, int]]]:
        """Yield rows, and rows of each event, of the keys from 0 to number - 1."""
        rows = np.bincount(keys, minlength=number).tolist()
        events = [np.bincount(keys[event], minlength=number).tolist() for event in self._events]
        for key, count in enumerate(rows):
            yield count, {f"events{at}": of_event[key] for at, of_event in enumerate(events)}

    def _folds(self, folds: int) -> NDArray[np.int64]:
        return self.table.column(f"_fold{folds}").to_numpy().astype(np.int64)  # type: ignore[no-any-return]

    def _present(self, column: str) -> NDArray[np.float64]:
        """Return a number's values, in the order of the rows that have one."""
        return self.table.column(column).drop_null().to_numpy()  # type: ignore[no-any-return]


def _square_sums(places: NDArray[np.int64]) -> Row:
    """Return the sums of the halves of places and of their products, by the names that SQL gives them."""
    high, low = places >> HALF_BITS, places & (2**HALF_BITS - 1)
    terms = (high, low, high * high, high * low, low * low)
    return {name: int(term.sum()) for name, term in zip(SUMS, terms, strict=True)}
