"""What the columns of a data set hold: shapes of values, extremes, different values. Driver; a pass each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, RAW

MARKERS = ("?", "-", "--", ".", "NA", "N/A", "n/a", "NULL", "null", "None", "none", "NaN", "nan", "\\N", "#N/A")
"""Texts that often stand for a missing value."""

# Shapes of a text, each value has one; the types that they fit in, the narrowest first. A type takes what its SQL cast
# takes, less what people do not mean: '10D' is a double to Spark, '2020' a date, 'y' a boolean, '007' the number 7.
FITTING = {
    "boolean": {"boolean"},
    "int": {"int"},
    "bigint": {"int", "bigint"},
    "double": {"int", "bigint", "number"},
    "decimal": {"int", "bigint", "number", "long"},
    "date": {"date"},
    "timestamp": {"date", "timestamp"},
}
NUMBERS = FITTING["decimal"]
DOUBLE_DIGITS = 17  # so many distinguish every double from its neighbours
DECIMAL_DIGITS = 38
_MISSING = "missing:"
_WHOLE = r"^[+-]?(0|[1-9]\d*)$"
"""Whole numbers; with further zeros in front it is a text, as of a code."""
_NUMBER = r"^[+-]?(?!0\d)(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_BYTES = "\x01"
"""Begins what stands for bytes here: whether they look like a picture, and their SHA-256."""
_PICTURES = "^(FFD8FF|89504E470D0A1A0A|474946383[79]61|52494646.{8}57454250|49492A00|4D4D002A|.{8}6674797061766966)"
"""First bytes of the formats of pictures, in hexadecimal."""


@dataclass(frozen=True)
class Seen:
    """What one column holds."""

    name: str
    position: int
    shapes: Mapping[str, int]
    """Shape -> values that have it, without the missing markers."""
    markers: Mapping[str, int]
    """Missing marker -> values that are it."""
    distinct: int
    """Estimated number of different values."""
    extremes: Mapping[str, Any]
    """Least and greatest number, date and time, most characters and digits, of the values that have them."""

    @property
    def present(self) -> int:
        return sum(self.shapes.values()) + sum(self.markers.values())

    @property
    def clean_type(self) -> str:
        """Narrowest type of the values that are no marker."""
        fits = (kind for kind, shapes in FITTING.items() if self.shapes and set(self.shapes) <= shapes)
        narrowest = next(fits, "string")
        if narrowest != "decimal":
            return narrowest
        whole, fraction = self.extremes["whole"], self.extremes["fraction"]
        return f"decimal({whole + fraction},{fraction})" if whole + fraction <= DECIMAL_DIGITS else "string"


@dataclass(frozen=True)
class Profile:
    """What a data set holds."""

    num_rows: int
    """Rows that can be parsed."""
    flaws: Mapping[str, int]
    """Why a row cannot be parsed -> rows."""
    columns: Sequence[Seen]
    """Columns in the source's order."""


@dataclass(frozen=True)
class SparkRows:
    """Rows that a draft is made of, read by Spark for each look at them."""

    read: Callable[[Contract], DataFrame]
    """Rows of the source for a contract, as `sources.catalog.read` returns them."""
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Key of JSON objects, "*" for all others -> texts that mark a missing value; `read` has null for them."""

    def profile(self, contract: Contract, columns: Mapping[str, str] | None) -> Profile:
        """Return what the columns hold; see `profile`."""
        return profile(self.read(contract), columns, missing=self.missing)

    def different_values(
        self, contract: Contract, types: Mapping[str, str], *, listed: Sequence[str]
    ) -> dict[str, tuple[int, list[str]]]:
        """Return the different values of some columns; see `different_values`."""
        return different_values(self.read(contract), types, listed=listed)


def profile(
    rows: DataFrame, columns: Mapping[str, str] | None, *, missing: Mapping[str, Sequence[str]] | None = None
) -> Profile:
    """Return what the columns hold. One Spark job, one pass over the rows.

    Args:
        rows: columns, `MALFORMED`, `RAW` as `sources.catalog.read` returns them.
        columns: name -> type of those to look at; None: the keys of the JSON objects in `RAW`.
        missing: key of those objects, "*" for all others -> texts that mark a missing value; columns have null for them.
    """
    groups = _shapes(rows, _entries(missing or {}) if columns is None else _columns(columns)).collect()
    rows_by_flaw = {group.shape: group.values for group in groups if group.name is None}
    num_rows = rows_by_flaw.pop(None, 0)
    by_name: dict[str, list[Row]] = {}
    for group in groups:
        if group.name is not None:
            by_name.setdefault(group.name, []).append(group)
    seen = [_seen(name, of_column) for name, of_column in by_name.items()]
    return Profile(num_rows, rows_by_flaw, sorted(seen, key=lambda column: (column.position, column.name)))


def different_values(
    rows: DataFrame, types: Mapping[str, str], *, listed: Sequence[str]
) -> dict[str, tuple[int, list[str]]]:
    """Return name -> (number of different values, those values if in `listed`). One Spark job, one pass over the rows.

    Args:
        rows: see `profile`.
        types: name -> type of the columns to look at; these are shuffled.
        listed: names of those with few values.
    """
    pairs = F.array(*(_pair(F.lit(name), F.col(name).try_cast(kind).cast("string")) for name, kind in types.items()))
    # No filter on MALFORMED: pushed below the parsing, it would parse every line twice.
    values = rows.select(F.explode(F.when(F.col(MALFORMED).isNull(), pairs)).alias("pair")).select("pair.*")
    different = values.where(F.col("value").isNotNull()).distinct()
    wanted = F.when(F.col("name").isin(*listed), F.col("value")) if listed else F.lit(None).cast("string")
    groups = different.groupBy("name").agg(
        F.count("*").alias("number"), F.sort_array(F.collect_list(wanted)).alias("values")
    )
    return {group.name: (group.number, group["values"]) for group in groups.collect()}


def _columns(columns: Mapping[str, str]) -> Column:
    """Return (name, text) of each column of a row."""
    return F.array(*(_pair(F.lit(name), _as_text(name, kind)) for name, kind in columns.items()))


def _entries(missing: Mapping[str, Sequence[str]]) -> Column:
    """Return (key, text) of each entry of the JSON object in `RAW`, in its order."""
    # As sources read them: a variant keeps the digits of a number.
    values = F.try_parse_json(RAW).cast("map<string,string>")
    keys = F.json_object_keys(RAW)

    def value(key: Column) -> Column:
        texts = F.array(*map(F.lit, missing.get("*", ()))).cast("array<string>")
        for own, listed in missing.items():
            texts = F.when(key == F.lit(own), F.array(*map(F.lit, listed)).cast("array<string>")).otherwise(texts)
        return F.when(~F.array_contains(texts, values[key]), values[key])

    return F.transform(keys, lambda key: _pair(key, value(key) if missing else values[key]))


def _shapes(rows: DataFrame, pairs: Column) -> DataFrame:
    """Return a row per column and shape of its values: counts and extremes. Lazy; one small shuffle.

    A row of its own (`name` null) counts the rows for each `MALFORMED`, which is then `shape`.
    """
    itself = F.array(_pair(F.lit(None).cast("string"), F.col(MALFORMED)))
    both = F.when(F.col(MALFORMED).isNull(), F.concat(itself, pairs)).otherwise(itself)
    values = rows.select(F.posexplode(both).alias("position", "pair")).select("position", "pair.name", "pair.value")
    value, shape = F.col("value"), F.col("shape")
    # In steps: what several expressions need is computed once, and of most values it is a regular expression or two.
    shaped = (
        values.withColumn("form", F.when(value.rlike(_WHOLE), "whole").when(value.rlike(_NUMBER), "number"))
        .withColumn("number", F.when(F.col("form").isNotNull(), value.try_cast("double")))
        .withColumn("whole", F.when(F.col("form").isNotNull(), _whole_digits(value)))
        .withColumn("fraction", F.when(F.col("form") == "number", _fraction_digits(value)).otherwise(0))
        .withColumn("shape", F.when(F.col("name").isNull(), value).otherwise(_shape(value)))
    )
    is_number = shape.isin(*NUMBERS)
    number = F.when(is_number, F.col("number"))
    date = F.when(shape == "date", value.try_cast("date"))
    time = F.when(shape.isin("date", "timestamp"), value.try_cast("timestamp"))
    # Fixed-width buffers only: the least or greatest of texts would make Spark sort the rows instead of hashing them.
    return (
        shaped.groupBy("name", "shape")
        .agg(
            F.count("*").alias("values"),
            F.min("position").alias("position"),
            F.approx_count_distinct("value").alias("distinct"),
            F.max(F.char_length(value)).alias("length"),
            F.min(number).alias("min_number"),
            F.max(number).alias("max_number"),
            F.max(F.when(is_number, F.col("whole"))).alias("whole"),
            F.max(F.when(is_number, F.col("fraction"))).alias("fraction"),
            F.min(date).cast("string").alias("min_date"),
            F.max(date).cast("string").alias("max_date"),
            F.min(time).cast("string").alias("min_timestamp"),
            F.max(time).cast("string").alias("max_timestamp"),
        )
    )  # fmt: skip


def _pair(name: Column, value: Column) -> Column:
    return F.struct(name.alias("name"), value.alias("value"))


def _as_text(name: str, kind: str) -> Column:
    if kind == "binary":
        start = F.hex(F.substring(F.col(name), 1, 12))
        what = F.when(start.rlike(_PICTURES), "picture").otherwise("bytes")
        return F.concat(F.lit(_BYTES), what, F.lit(":"), F.sha2(F.col(name), 256))
    if kind not in ("float", "double"):
        return F.col(name).cast("string")
    # A float is compared as a double: 0.1f is 0.10000000149011612, more than a bound of "0.1". NaN is a missing value.
    return F.when(~F.isnan(name), F.col(name).cast("double")).cast("string")


def _shape(value: Column) -> Column:
    """Return what a text looks like: a key of `FITTING`'s sets, "missing:MARKER", "text"; null for null.

    Args:
        value: the text; beside it are its "form" ("whole", "number" or null), and where there is one, "number", "whole" and
            "fraction".
    """
    form = F.col("form")
    whole_number = (
        F.when(value.try_cast("int").isNotNull(), "int")
        .when(value.try_cast("bigint").isNotNull(), "bigint")
        .otherwise("long")
    )
    number = (
        F.when(~value.rlike("[eE]") & (F.col("whole") + F.col("fraction") > DOUBLE_DIGITS), "long")
        .when(F.abs(F.col("number")) < float("inf"), "number")
        .otherwise("text")
    )
    return (
        F.when(value.isNull(), None)
        .when(form == "whole", whole_number)
        .when(form == "number", number)
        .when(value.rlike(r"^[+-]?0\d"), "text")  # codes, and days of before the year 1000, which stand for none
        .when(value.startswith(_BYTES), F.regexp_extract(value, "[a-z]+", 0))
        .when(value.isin(*MARKERS), F.concat(F.lit(_MISSING), value))
        .when(value.rlike(r"^(?!0000)\d{4}-\d\d-\d\d$") & value.try_cast("date").isNotNull(), "date")
        .when(
            value.rlike(r"^(?!0000)\d{4}-\d\d-\d\d[T ]\d\d:\d\d") & value.try_cast("timestamp").isNotNull(), "timestamp"
        )
        # Not by `lower`: the first call of it in a Java costs three seconds, in which ICU looks at every character there is.
        .when(value.rlike(r"^(?i:true|false)\z"), "boolean")
        .otherwise("text")
    )


def _whole_digits(value: Column) -> Column:
    # With an exponent a decimal would need more digits than are written: none is drafted.
    written = F.length(F.regexp_extract(value, r"^[+-]?0*(\d*)", 1))
    return F.when(value.rlike("[eE]"), DECIMAL_DIGITS + 1).otherwise(written)


def _fraction_digits(value: Column) -> Column:
    return F.length(F.regexp_extract(value, r"\.(\d+)", 1))


def _seen(name: str, groups: Sequence[Row]) -> Seen:
    """Return one column from its groups, one per shape."""
    extremes: dict[str, Any] = {}
    for what in ("length", "whole", "fraction", "max_number", "max_date", "max_timestamp"):
        extremes[what] = max((group[what] for group in groups if group[what] is not None), default=None)
    for what in ("min_number", "min_date", "min_timestamp"):
        extremes[what] = min((group[what] for group in groups if group[what] is not None), default=None)
    counts = {group.shape: group.values for group in groups if group.shape is not None}
    return Seen(
        name=name,
        position=min(group.position for group in groups),
        shapes={shape: counts[shape] for shape in sorted(counts) if not shape.startswith(_MISSING)},
        markers={s.removeprefix(_MISSING): counts[s] for s in sorted(counts) if s.startswith(_MISSING)},
        distinct=sum(group.distinct for group in groups),
        extremes=extremes,
    )
