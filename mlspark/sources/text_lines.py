"""Lines of text as they are: read whole, with what is wrong with them as text. Driver, lazy."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import MALFORMED, RAW, SOURCE_FILE, is_own
from mlspark.sources import files, long_lines
from mlspark.sources.long_lines import LINE
from mlspark.sources.source import STRICT, Source, filtered

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_MARK = "\ufeff"  # byte order mark; Hadoop takes it off a file's first line


def lines(spark: SparkSession, source: Source, max_line_bytes: int) -> DataFrame:
    """Return `LINE`, `SOURCE_FILE` for every line of the source's parts but blank ones.

    A line ends with a line feed, a carriage return or both. Of one that is longer than `max_line_bytes` comes at least one
    byte more than that, and all of it only where that is little; see `long_lines`.
    """

    def whole(some: Source) -> DataFrame:
        read = spark.read.options(**STRICT).text(files.paths(some))
        return read.select(F.col("value").alias(LINE), files.file_of(read).alias(SOURCE_FILE))

    return with_long_lines(
        spark, source, max_line_bytes, whole, lambda names: long_lines.read(spark, names, max_line_bytes)
    )


def with_long_lines(
    spark: SparkSession,
    source: Source,
    max_line_bytes: int,
    whole: Callable[[Source], DataFrame],
    in_pieces: Callable[[Sequence[str]], DataFrame],
) -> DataFrame:
    """Return a source's lines but blank ones: as `in_pieces` reads files with long lines, and `whole` all others."""
    with_some = long_lines.files_with(spark, source.parts, max_line_bytes)
    without = tuple(part for part in source.parts if part.name not in with_some)
    frames = [whole(source.with_parts(without))] if without else []
    if with_some:
        frames.append(in_pieces(sorted(with_some)))
    return reduce(DataFrame.union, frames).where(F.trim(LINE) != "")


def without(text: Column, markers: Sequence[str]) -> Column:
    """Return a text, null where it is one of `markers`."""
    return F.when(~text.isin(*markers), text) if markers else text


def with_folders(
    source: Source, contract: Contract, texts: Mapping[str, Column]
) -> tuple[dict[str, Column], list[tuple[Column, Column]]]:
    """Return the texts of a line's columns with those that folders key=value name, and how the two may differ.

    A folder says what a line leaves out; where both say something it must be the same.

    Args:
        source: of the lines.
        contract: names the columns that are asked for.
        texts: column of the source -> its text in the line.

    Returns:
        (column of the source -> text, flaws as `conformable` takes them).
    """
    together, flaws = dict(texts), []
    folders = files.partitions(source)
    for name in (column.source_name for column in contract.columns):
        if name.lower() not in folders:
            continue
        of_folder = _folder_value(name)
        of_line = texts.get(name)
        if of_line is None:
            together[name] = of_folder
            continue
        together[name] = F.coalesce(of_line, of_folder)
        said = F.concat(F.lit(f"{name}: "), of_line, F.lit(" in the line, "), of_folder, F.lit(" in its folder"))
        flaws.append((of_line != of_folder, said))
    return together, flaws


def _folder_value(name: str) -> Column:
    """Return what the folders of a row's file say of a column, null where they say nothing."""
    value = F.regexp_extract(SOURCE_FILE, rf"(?i)/{re.escape(name)}=([^/]*)/", 1)
    # Hive escapes what cannot be in a folder's name, Spark what cannot be in a URI. In neither "+" is a blank.
    for _ in range(2):
        value = F.try_url_decode(F.replace(value, F.lit("+"), F.lit("%2B")))
    return F.when(~value.isin("", _NO_VALUE), value)


def damage(line: Column, max_line_bytes: int) -> list[tuple[Column, Column]]:
    """Return (whether a line has it, its name) for each way in which a line of text is no text."""
    return [
        # First: its end is not there.
        (F.octet_length(line) > max_line_bytes, F.lit(f"longer than max_line_bytes={max_line_bytes}")),
        (~F.is_valid_utf8(line) | line.contains("\ufffd"), F.lit("not UTF-8")),
        (line.startswith(_MARK), F.lit("byte order mark")),
        (line.rlike("[\\x00-\\x08\\x0b-\\x1f]"), F.lit("control character")),
    ]


def conformable(
    parsed: DataFrame,
    source: Source,
    contract: Contract,
    values: Mapping[str, Column],
    flaws: Sequence[tuple[Column, Column]],
) -> DataFrame:
    """Return parsed lines as the catalog promises rows.

    Args:
        parsed: the source's own columns as strings, for its filter; `LINE`, `SOURCE_FILE`, and whatever else `values` and
            `flaws` need, with `PREFIX`.
        source: theirs; its filter keeps bad lines, whose values are unknown.
        contract: of the rows.
        values: column of the contract -> its text, of those that are there.
        flaws: (whether a line has it, what it is called) for what makes a line no row; the first one counts.
    """
    columns = [name for name in parsed.columns if not is_own(name)]
    flaw = F.coalesce(*(F.when(has_it, name) for has_it, name in flaws))
    flawed = parsed.withColumn(MALFORMED, flaw)
    rows = filtered(flawed, source.settings, contract, kept=F.col(MALFORMED).isNotNull(), columns=columns)
    named = (value.alias(name) for name, value in values.items())
    return rows.select(*named, MALFORMED, _printable(F.col(LINE)).alias(RAW), SOURCE_FILE)


def _printable(line: Column) -> Column:
    """Return a line as it was read, or its bytes as "base64:..." where they are no UTF-8."""
    encoded = F.concat(F.lit("base64:"), F.base64(line.cast("binary")))
    return F.when(F.is_valid_utf8(line), line).otherwise(encoded)
