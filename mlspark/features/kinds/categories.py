"""What the kinds that start from a category share: its text, the values known, and where each is. Runs anywhere."""

import logging
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import compute as pc
from pydantic import Field, model_validator

from mlspark.contracts.plain_rows import plain
from mlspark.features import hashing
from mlspark.features.counts import Text, TextCounts
from mlspark.features.hashing import PerfectTable
from mlspark.features.kinds.kind import CATEGORY, Declared, Fitted, Use
from mlspark.features.kinds.sql_text import SqlSteps, array
from mlspark.sql_literals import sql_text

logger = logging.getLogger(__name__)

MISSING_ID = 0
UNSEEN_ID = 1
FIRST_ID = 2
SEPARATOR = "\u001f"
"""Separator of the values of a cross."""
_LONGEST_NAME = 60


class DeclaredCategories(Declared):
    """An entry whose features are each made of a category."""

    columns: tuple[str, ...] = ()
    """Columns of text, whole numbers, booleans or dates; each becomes a feature of its own, called like the column."""
    cross: tuple[str, ...] = ()
    """Columns whose values together are one category, instead of `columns`; it is missing when one of them is."""
    min_count: Annotated[int, Field(ge=1)] = 1
    """Least number of training rows of a category that is known; rarer ones count as unseen."""
    max_values: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """Most categories that are known, the commonest ones; a warning counts the others. All are in the driver's memory."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "DeclaredCategories":
        self.check_name("cross", bool(self.cross))
        if len(self.cross) == 1:
            raise ValueError("cross: needs two or more columns")
        return self

    @property
    def sources(self) -> tuple[tuple[str, ...], ...]:
        return (self.cross,) if self.cross else super().sources

    @property
    def uses(self) -> dict[str, Use]:
        return dict.fromkeys((*self.columns, *self.cross), CATEGORY)

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Text:
        return Text(text_sql(source), self.min_count, self.max_values)


class FittedCategories(Fitted):
    """A feature made of one category."""

    columns: tuple[str, ...]
    """Raw columns: one, or those of a cross."""
    values: tuple[str, ...]
    """Known values, sorted by code point."""
    counts: tuple[int, ...]
    """Training rows of each value."""
    nulls: int
    """Training rows without a value."""
    rare: int
    """Training rows of other values: too few for each, or too many values."""

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.columns

    @property
    def source_words(self) -> str:
        return " x ".join(self.columns)

    def value_words(self, value: str) -> str:
        return f"{self.source_words} is {' x '.join(map(repr, value.split(SEPARATOR)))}"

    def id_sql(self, steps: SqlSteps, ids: Sequence[int], *, missing: int, unseen: int) -> str:
        """Return SQL of an int: that of `ids` in the value's place."""
        place, table = self.place_sql(steps)
        placed = [unseen] * table.size
        for at, number in zip(table.places, ids, strict=True):
            placed[at] = number
        known = self.is_known_sql(steps, place, table)
        return (
            f"IF({self.is_missing_sql(steps)}, {missing}, IF({known}, get({array(placed, 'int')}, {place}), {unseen}))"
        )

    def place_sql(self, steps: SqlSteps) -> tuple[str, PerfectTable]:
        """Return SQL of the value's place in a table of the known ones, any where it is missing, and the table."""
        table, hashed = hashing.perfect_table(self.values), f"xxhash64({text_sql(self.columns)})"
        shift = str(table.shifts[0])
        if len(table.shifts) > 1:
            shift = f"get({array(table.shifts, 'int')}, CAST({hashed} & {len(table.shifts) - 1}L AS INT))"
        return steps.add(0, f"CAST(shiftrightunsigned({hashed}, {shift}) & {table.size - 1}L AS INT)"), table

    def is_missing_sql(self, steps: SqlSteps) -> str:
        """Return SQL of whether the value is missing."""
        return f"{_text_column(steps, self.columns)} IS NULL"

    def is_known_sql(self, steps: SqlSteps, place: str, table: PerfectTable) -> str:
        """Return SQL of whether the value is the one in its place of the table."""
        texts: list[str | None] = [None] * table.size
        for at, value in zip(table.places, self.values, strict=True):
            texts[at] = value
        return f"get({array(texts, 'string')}, {place}) <=> {_text_column(steps, self.columns)}"

    def places(self) -> Callable[[pa.Table], NDArray[np.int64]]:
        """Return the function that finds each row's place in `values` (n,): len(values) if unseen, one more if missing."""
        texts_of, known = texts(self.columns), pa.array(self.values, pa.string())
        unseen = len(self.values)
        places: dict[str | None, int] = {value: place for place, value in enumerate(self.values)} | {None: unseen + 1}

        def places_of(rows: pa.Table) -> NDArray[np.int64]:
            if (plain_texts := _plain_texts(rows, self.columns)) is not None:
                return np.array([places.get(text, unseen) for text in plain_texts], np.int64)
            column = texts_of(rows)
            place = pc.fill_null(pc.index_in(column, value_set=known, skip_nulls=True), unseen).to_numpy()
            if column.null_count:
                place = np.where(column.is_null().to_numpy(), unseen + 1, place)
            return np.asarray(place)

        return places_of


def known_values(name: str, columns: tuple[str, ...], counts: TextCounts) -> dict[str, Any]:
    """Return the fields of `FittedCategories`; logs how many values are not known."""
    if counts.rare_values:
        logger.log(
            logging.WARNING if counts.too_many else logging.INFO,
            "feature %s: knows %s of %s values, the others (%s rows, %s values with too few of them) count as unseen",
            name,
            f"{len(counts.values):,}",
            f"{len(counts.values) + counts.rare_values:,}",
            f"{counts.rare:,}",
            f"{counts.rare_values - counts.too_many:,}",
        )
    return {
        "name": name,
        "columns": columns,
        "values": tuple(counts.values),
        "counts": tuple(counts.values.values()),
        "nulls": counts.nulls,
        "rare": counts.rare,
    }


def safe_names(values: Sequence[str]) -> list[str]:
    """Return a name for each value that a column of any table can have, no two alike whatever their case.

    Letters and digits of any language stay, all else becomes "_"; of values that would share a name, and of long ones, the
    place is part of it.
    """
    plain = [_plain_name(value) for value in values]
    times = Counter(name.casefold() for name in plain)
    names, taken = [], {"is_missing", *times}
    for place, name in enumerate(plain):
        if times[name.casefold()] > 1 or len(name) > _LONGEST_NAME or name.casefold() == "is_missing":
            name = f"{name[:_LONGEST_NAME]}_{place}"
            while name.casefold() in taken:
                name += "_"
            taken.add(name.casefold())
        names.append(name)
    return names


def _plain_name(value: str) -> str:
    words = unicodedata.normalize("NFKC", value.replace(SEPARATOR, "_x_"))
    return "".join(c if f"a{c}".isidentifier() else "_" for c in words) or "empty"


def text_sql(columns: Sequence[str]) -> str:
    """Return SQL of the text by which a category is known, of one column or of several together."""
    texts_sql = [f"CAST(`{column}` AS STRING)" for column in columns]
    return texts_sql[0] if len(texts_sql) == 1 else f"concat({f', {sql_text(SEPARATOR)}, '.join(texts_sql)})"


def texts(columns: Sequence[str]) -> Callable[[pa.Table], pa.ChunkedArray]:
    """Return the function that computes the text of `text_sql` of rows in memory."""

    def texts_of(rows: pa.Table) -> pa.ChunkedArray:
        parts = [_text(rows.column(column)) for column in columns]
        return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, SEPARATOR)

    return texts_of


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _plain_texts(rows: pa.Table, columns: Sequence[str]) -> Sequence[str | None] | None:
    """Return what `texts` does of rows whose values are at hand as Python's; None where they are not."""
    parts = [plain(rows, column) for column in columns]
    if len(parts) == 1 and parts[0] is not None:
        return [value if value is None or isinstance(value, str) else _plain_text(value) for value in parts[0]]
    if None in parts:
        return None
    return [None if None in values else SEPARATOR.join(map(_plain_text, values)) for values in zip(*parts, strict=True)]


def _plain_text(value: str | int) -> str:
    """Return a value as Arrow's cast and Spark's write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text_column(steps: SqlSteps, columns: Sequence[str]) -> str:
    if len(columns) == 1 and steps.inputs[columns[0]] == "string":
        return f"`{columns[0]}`"
    return steps.add(0, text_sql(columns))
