"""CSV lines as they are: one line, one row, nothing skipped but what the settings call no row. Driver, lazy."""

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from mlspark.config import CsvSettings
from mlspark.contracts.contract import Contract
from mlspark.errors import SourceError
from mlspark.sources.source import Part, Source, absolute_uri, reading

_FILE = "_metadata.file_path"
_MARK = "\ufeff"  # byte order mark


def list_files(spark: SparkSession, uri: str) -> tuple[Part, ...]:
    """Return the files of a file, folder or glob of any scheme, by size and time of change; empty files are left out.

    Raises:
        SourceError: nothing there, or no byte in it.
    """
    # binaryFile lists files of any scheme; the content is not read when its column is not selected.
    listing = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    modified = F.unix_micros("modificationTime").cast("string").alias("modified")
    try:
        rows = listing.load(uri).select("path", "length", modified).collect()
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        raise SourceError(
            f"{uri}: no such file or folder; check sources.*.path, sources.root and MLSPARK_DATA, "
            f"or get the census files with: mlspark fetch adult"
        ) from None
    if not rows:
        raise SourceError(f"{uri}: no bytes to read; check that the file is whole, or the folder the right one")
    return tuple(Part(row.path, f"{row.length} bytes, {row.modified}", row.length) for row in sorted(rows))


def find(spark: SparkSession, settings: CsvSettings, *, root: str) -> Source:
    """Return the source with its files as they are now.

    Raises:
        SourceError: nothing there, or nothing in it.
    """
    uri = absolute_uri(settings.path, root)
    return Source(uri, settings, list_files(spark, uri))


def columns(spark: SparkSession, source: Source) -> StructType | None:
    """Return the columns that the header names, as strings; None without a header. Reads one line.

    Raises:
        SourceError: the header names a column twice.
    """
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    if not settings.header:
        return None
    names = [name.strip().strip('"') for name in _header(spark, source).split(settings.separator)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{source.uri}: the header names {', '.join(twice)} twice; nothing was written")
    return StructType([StructField(name, StringType()) for name in names])


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source.

    Blank lines, lines that start with `settings.comment` and each file's header are no rows. A line is bad that has not
    as many fields as there are columns, leaves a quote open, repeats the header, is longer than max_line_bytes, has
    control characters or a byte order mark, or is not UTF-8.

    Returns:
        The columns as strings (null where empty or `settings.missing`), `_malformed` (why the line is no row, or null),
        `_raw` (the line; "base64:..." when it is no UTF-8), `_source_file`.

    Raises:
        SourceError: when it runs: a file's header differs from the first file's.
    """
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    named = columns(spark, source)
    names = [column.name for column in contract.columns] if named is None else named.fieldNames()
    lines = _lines(spark, source) if named is None else _lines_below_header(spark, source)
    lines = lines.where(F.trim("value") != "")
    if settings.comment:
        lines = lines.where(~F.col("value").startswith(settings.comment))
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": "_malformed",
        "sep": settings.separator,
        "ignoreLeadingWhiteSpace": "true",
        "ignoreTrailingWhiteSpace": "true",
        "nullValue": settings.missing,
    }
    schema = ", ".join(f"`{name}` string" for name in (*names, "_malformed"))
    parsed = lines.select(F.from_csv("value", schema, options).alias("fields"), "value", "_source_file")
    line = F.col("value")
    repeats_header = line == F.lit(_header(spark, source)) if named is not None else F.lit(False)
    quotes = F.length(line) - F.length(F.replace(line, F.lit('"'), F.lit("")))
    flaws = [
        *damage(line, settings.max_line_bytes),
        (repeats_header, "repeated header"),
        (quotes % 2 == 1, "unclosed quote"),
        (F.col("fields._malformed").isNotNull(), f"not {len(names)} fields"),
    ]
    return parsed.select(
        *(F.col(f"fields.`{name}`").alias(name) for name in names),
        F.coalesce(*(F.when(found, F.lit(flaw)) for found, flaw in flaws)).alias("_malformed"),
        printable(line).alias("_raw"),
        "_source_file",
    )


def damage(line: Column, max_line_bytes: int) -> list[tuple[Column, str]]:
    """Return (whether a line has it, its name) for each way in which a line of text is no text."""
    return [
        (~F.is_valid_utf8(line) | line.contains("\ufffd"), "not UTF-8"),
        (line.startswith(_MARK), "byte order mark"),
        (line.rlike("[\\x00-\\x08\\x0b-\\x1f]"), "control character"),
        (F.octet_length(line) > max_line_bytes, f"longer than max_line_bytes={max_line_bytes}"),
    ]


def printable(line: Column) -> Column:
    """Return a line as it was read, or its bytes as "base64:..." where they are no UTF-8."""
    encoded = F.concat(F.lit("base64:"), F.base64(line.cast("binary")))
    return F.when(F.is_valid_utf8(line), line).otherwise(encoded)


def _lines(spark: SparkSession, source: Source) -> DataFrame:
    """Return `value`, `_source_file` for every line of the source's parts."""
    return spark.read.text([part.name for part in source.parts]).select("value", F.col(_FILE).alias("_source_file"))


def _header(spark: SparkSession, source: Source) -> str:
    """Return the first line of the first file."""
    with reading(source.uri):
        lines = spark.read.text(source.parts[0].name)
        comment = getattr(source.settings, "comment", "")
        first = lines.where(
            (F.trim("value") != "") & ~(F.col("value").startswith(comment) & F.lit(bool(comment)))
        ).first()
    if first is None:
        raise SourceError(f"{source.parts[0].name}: no header; set header to false, or mend the file")
    return str(first.value).removeprefix(_MARK)


def _lines_below_header(spark: SparkSession, source: Source) -> DataFrame:
    """Return the lines without the first of each file.

    Spark's text source cannot tell a file's first line, its CSV source can: it is made to see one column, between
    separators that are no characters, named like the header, which it then checks in every file.
    """
    header = _header(spark, source)
    options = {"sep": "\ufffe", "quote": "\uffff", "escape": "\uffff", "header": "true", "enforceSchema": "false"}
    if comment := getattr(source.settings, "comment", ""):
        options["comment"] = comment
    reader = spark.read.schema(StructType([StructField(header, StringType())])).options(**options)
    lines = reader.csv([part.name for part in source.parts])
    return lines.select(F.col("`" + header.replace("`", "``") + "`").alias("value"), F.col(_FILE).alias("_source_file"))
