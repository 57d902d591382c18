"""CSV lines: one line, one row, nothing skipped but what the settings call no row. Driver, lazy."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StringType, StructField, StructType

from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import PREFIX, SOURCE_FILE, is_own
from mlspark.errors import SourceError
from mlspark.sources import file_states, files, long_lines, markers, text_lines
from mlspark.sources.long_lines import LINE
from mlspark.sources.markers import Markers
from mlspark.sources.settings import FilesSettings
from mlspark.sources.source import STRICT, Source, absolute_uri


class CsvSettings(FilesSettings):
    """Lines of separated fields; a line is a row."""

    kind: Literal["csv"]
    separator: Annotated[str, Field(min_length=1)] = ","
    """Text between two fields; blanks around a field are not part of it."""
    header: bool = False
    """Whether the first line of each file names the columns; else the fields are in the contract's order."""
    comment: Annotated[str, Field(max_length=1)] = ""
    """Character at the start of lines to skip; empty: every line is a row."""
    missing: Annotated[Markers, Field(default_factory=dict)]
    """Texts that stand for a missing value, as empty fields always do: a text, a list of texts, or either for each
    column, with "*" for all columns that have none of their own."""
    max_line_bytes: Annotated[int, Field(ge=1)] = 1_000_000
    """Most bytes of a line; a longer one is a bad row."""


Settings = CsvSettings
HAS_TYPES = False
PLACE = "path"
EXTENSIONS = (".csv", ".tsv", ".txt", ".data")

_FIELDS, _CORRUPT = f"{PREFIX}fields", f"{PREFIX}corrupt"
_NO_CHARACTERS = {"sep": "\u0101", "quote": "\u0102", "escape": "\u0102"}
"""Separators that no line has when it is read as Latin-1."""


def find(spark: SparkSession, settings: CsvSettings, *, root: str) -> Source:
    """Return the source with its files as they are now.

    Raises:
        SourceError: nothing there, or nothing in it.
    """
    uri = absolute_uri(settings.path, root)
    parts = files.existing_parts(spark, uri)
    return Source(uri, settings, parts, file_states.rests_on(parts))


def columns(spark: SparkSession, source: Source) -> StructType | None:
    """Return the columns that the header and folders key=value name, as strings; None without a header. Reads one line.

    Raises:
        SourceError: the header names a column twice.
    """
    names = _names_in_header(spark, source)
    if names is None:
        return None
    known = {name.lower() for name in names}
    folders = [folder.partition("=")[0] for name, folder in files.partitions(source).items() if name not in known]
    return StructType([StructField(name, StringType()) for name in (*names, *folders)])


def _names_in_header(spark: SparkSession, source: Source) -> list[str] | None:
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    if not settings.header:
        return None
    names = _names(_header(spark, source), settings.separator)
    if names is None:
        raise SourceError(f"{source.parts[0].name}: the header leaves a quote open; correct the file")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SourceError(f"{source.uri}: the header names {', '.join(map(repr, twice))} twice; nothing was written")
    return names


def read(spark: SparkSession, source: Source, contract: Contract) -> DataFrame:
    """Return every row of the source, as strings.

    Blank lines, lines that start with `settings.comment` and each file's header are no rows. Quotes are doubled inside
    quotes; a row does not go over several lines. A line is bad that has not as many fields as there are columns, leaves
    a quote open or has one in the middle of a field, repeats the header, is longer than max_line_bytes, has control
    characters or a byte order mark, is not UTF-8, or says something else than its folder key=value. A field is null that
    is empty or one of the column's `settings.missing`; then, and where lines have no such field, its folder counts.

    Raises:
        SourceError: at once: `filter` is not a boolean SQL condition over these columns; when it runs: a file's header
            differs from the first file's.
    """
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    in_header, folders = _names_in_header(spark, source), files.partitions(source)
    names = in_header
    if names is None:  # what folders name is not in the lines
        names = [column.source_name for column in contract.columns if column.source_name.lower() not in folders]
    most = settings.max_line_bytes
    lines = text_lines.lines(spark, source, most) if in_header is None else _lines_below_header(spark, source)
    if settings.comment:
        lines = lines.where(~F.col(LINE).startswith(settings.comment))
    options = {
        "mode": "PERMISSIVE",
        "columnNameOfCorruptRecord": _CORRUPT,
        "sep": settings.separator,
        "escape": '"',
        "ignoreLeadingWhiteSpace": "true",
        "ignoreTrailingWhiteSpace": "true",
        "nullValue": "",
        "emptyValue": "",
    }
    # By position: a header may name its columns in any characters.
    schema = ", ".join([*(f"c{index} string" for index in range(len(names))), f"{_CORRUPT} string"])
    parsed = lines.select(F.from_csv(LINE, schema, options).alias(_FIELDS), LINE, SOURCE_FILE)
    line = F.col(LINE)
    repeats_header = line == F.lit(_header(spark, source)) if in_header is not None else F.lit(False)
    quotes = F.length(line) - F.length(F.replace(line, F.lit('"'), F.lit("")))
    flaws = [
        *text_lines.damage(line, settings.max_line_bytes),
        (repeats_header, F.lit("repeated header")),
        (quotes % 2 == 1, F.lit("unclosed quote")),
        (line.contains('"') & ~line.rlike(well_quoted(settings.separator)), F.lit("quote inside a field")),
        (F.col(f"{_FIELDS}.{_CORRUPT}").isNotNull(), F.lit(f"not {len(names)} fields")),
    ]
    named_here = dict(zip(names, contract.named_here(names), strict=True))
    markers.check(settings.missing, [*names, *contract.names], source.uri)
    texts = {
        name: text_lines.without(F.col(f"{_FIELDS}.c{place}"), markers.of(settings.missing, name, named_here[name]))
        for place, name in enumerate(names)
    }
    texts, differing = text_lines.with_folders(source, contract, texts)
    flaws += differing
    # What the header calls like a column of ours would be taken for it; no filter knows it.
    fields = [text.alias(name) for name, text in texts.items() if name and not is_own(name)]
    values = {column.name: texts[column.source_name] for column in contract.columns if column.source_name in texts}
    kept = parsed.select(*fields, _FIELDS, LINE, SOURCE_FILE)
    return text_lines.conformable(kept, source, contract, values, flaws)


def _names(header: str, separator: str) -> list[str] | None:
    """Return the column names of a header, or None when its quotes are no quotes."""
    if not re.search(well_quoted(separator), header):
        return None
    names = re.findall(rf"(?:^|{re.escape(separator)})({_field(separator)})", header)
    return [name.strip().removeprefix('"').removesuffix('"').replace('""', '"') for name in names]


def well_quoted(separator: str) -> str:
    """Return the pattern, Python's and Java's, of a line whose quotes open and close fields."""
    return rf"\A(?:{_field(separator)}{re.escape(separator)})*+{_field(separator)}(?![\s\S])"


def _field(separator: str) -> str:
    """Return the pattern of a field; possessive, so that a long one needs no stack."""
    stop = re.escape(separator)
    blanks, quoted = rf"(?:(?!{stop})\s)*+", '"[^"]*+(?:""[^"]*+)*+"'
    return rf'(?:{blanks}{quoted}{blanks}|(?:(?!{stop})[^"])*+)'


def _header(spark: SparkSession, source: Source) -> str:
    """Return the first line of the first file."""
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    lines = text_lines.lines(spark, source.with_parts(source.parts[:1]), settings.max_line_bytes)
    if settings.comment:
        lines = lines.where(~F.col(LINE).startswith(settings.comment))
    first = lines.first()
    if first is None:
        raise SourceError(f"{source.parts[0].name}: no header; set header to false, or correct the file")
    if any(symbol in first[LINE] for symbol in ("\ufffd", "\0")):
        raise SourceError(f"{source.parts[0].name}: the header is not UTF-8; correct the file")
    if len(first[LINE].encode()) > settings.max_line_bytes:
        raise SourceError(
            f"{source.parts[0].name}: the header is longer than max_line_bytes={settings.max_line_bytes}; correct the file, "
            f"or raise max_line_bytes"
        )
    return str(first[LINE])


def _lines_below_header(spark: SparkSession, source: Source) -> DataFrame:
    """Return the lines without the first of each file.

    Spark's text source cannot tell a file's first line, its CSV source can: it is made to see one column, between
    separators that are no characters, named like the header, which it then checks in every file. It replaces bytes that
    are no characters, so Spark reads each byte as one, and the bytes are put together again here.
    """
    settings = source.settings
    assert isinstance(settings, CsvSettings)
    header = _header(spark, source)
    as_bytes = header.encode().decode("latin-1")
    options = {**STRICT, **_NO_CHARACTERS, "encoding": "ISO-8859-1", "header": "true", "enforceSchema": "false"}
    if settings.comment:
        options["comment"] = settings.comment
    column = F.col("`" + as_bytes.replace("`", "``") + "`")

    def whole(some: Source) -> DataFrame:
        read = spark.read.schema(StructType([StructField(as_bytes, StringType())])).options(**options)
        lines = read.csv(files.paths(some))
        line = F.encode(column, "ISO-8859-1").cast("string").alias(LINE)
        return lines.select(line, files.file_of(lines).alias(SOURCE_FILE))

    def in_pieces(names: Sequence[str]) -> DataFrame:
        return long_lines.read(spark, names, settings.max_line_bytes, header=header, comment=settings.comment)

    return text_lines.with_long_lines(spark, source, settings.max_line_bytes, whole, in_pieces)
