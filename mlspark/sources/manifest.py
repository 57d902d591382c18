"""Manifests: tables that say which pictures there are and what is known of them. Driver."""

from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyspark.errors import PySparkException
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructField

from mlspark import storage
from mlspark.contracts.own_columns import PREFIX, is_own
from mlspark.errors import SourceError, one_line
from mlspark.sources import listing, typed_rows
from mlspark.sources.picture_settings import LABEL, ManifestSettings
from mlspark.sources.source import Part, absolute_uri

_WIDER = {
    pa.uint8(): pa.int16(), pa.uint16(): pa.int32(), pa.uint32(): pa.int64(), pa.uint64(): pa.decimal128(20, 0),
    pa.float16(): pa.float32(), pa.string_view(): pa.string(), pa.binary_view(): pa.binary(),
}  # fmt: skip
"""Types that Spark lacks -> the least of its own that holds every value."""


def part(settings: ManifestSettings, root: str) -> Part:
    """Return the manifest as a part of its source.

    Raises:
        SourceError: it is absent, or a folder.
    """
    uri = absolute_uri(settings.path, root)
    found = listing.parts(uri, setting="manifest.path")
    if [file.name for file in found] != [uri]:
        raise SourceError(f"{uri}: is a folder; `manifest.path` is one file")
    return found[0]


@lru_cache(maxsize=2)
def read(file: Part, settings: ManifestSettings, *, name: str, taken: tuple[str, ...]) -> pa.Table:
    """Return the manifest's rows in order, its column of paths under `name`. Once for each state of the file.

    A column of a type that Spark does not have is empty, and `fields` says why.

    Args:
        file: the manifest.
        settings: of it.
        name: what the source calls the column of paths.
        taken: other columns that the source has, which no column of the manifest may be called.

    Raises:
        SourceError: it cannot be read, has no such column or no row, or a column is called like one of the source's.
    """
    try:
        content = storage.read_bytes(file.name)
        table = pq.read_table(pa.BufferReader(content)) if settings.kind == "parquet" else _csv(content)
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.name}: is not UTF-8 at byte {error.start:,}; write the manifest in UTF-8") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(
            f"{file.name}: cannot be read as {settings.kind} ({one_line(str(error))}); check manifest.kind, and that each "
            f"line has as many fields as the first"
        ) from error
    columns = table.column_names
    if settings.column not in columns:
        raise SourceError(
            f"{file.name}: has no column {settings.column!r} but {', '.join(columns)}; set manifest.column to the one "
            f"with the paths of the pictures"
        )
    if table.num_rows == 0:
        raise SourceError(f"{file.name}: has no row, so there is no picture to read")
    renamed = [name if column == settings.column else column for column in columns]
    lower = [column.lower() for column in renamed]
    occupied = {column.lower() for column in taken}
    clash = sorted({c for c in renamed if lower.count(c.lower()) > 1 or c.lower() in occupied or is_own(c)})
    if clash:
        raise SourceError(
            f"{file.name}: columns {', '.join(clash)} stand there twice, or are called like the source's own "
            f"({', '.join((name, *taken))}, {PREFIX}...); rename them in the manifest"
        )
    if LABEL in lower and LABEL not in renamed:
        raise SourceError(
            f"{file.name}: column {renamed[lower.index(LABEL)]} is called like the source's own {LABEL} but for its case; "
            f"call it {LABEL}, and it takes the place of the folders' names, or otherwise"
        )
    paths = pc.replace_substring_regex(table.column(settings.column).cast(pa.string()), r"^(\./+)+", "")
    table = table.set_column(columns.index(settings.column), settings.column, paths).rename_columns(renamed)
    readable = [_readable(column, table.column(column), file.name) for column in renamed]
    return pa.table([values for _, values in readable], schema=pa.schema([field for field, _ in readable]))


def fields(table: pa.Table) -> list[StructField]:
    """Return the columns of `read` in Spark's types; one that cannot be read says why, as `typed_rows.unreadable` has it."""
    found = from_arrow_schema(table.schema).fields
    for field, stored in zip(found, table.schema, strict=True):
        field.metadata = {key.decode(): value.decode() for key, value in (stored.metadata or {}).items()}
    return found


def _readable(name: str, values: pa.ChunkedArray, file: str) -> tuple[pa.Field, pa.ChunkedArray]:
    """Return a column in a type that Spark has and that holds its values, or one without values that says why."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    try:
        if (wider := _WIDER.get(kind)) is not None or (wider := _in_microseconds(kind)) is not None:
            values = values.cast(wider)  # refuses digits below
        if "[ns" in str(values.type):  # in a list or the like
            raise ValueError
        to_arrow_schema(from_arrow_schema(pa.schema([(name, values.type)])), timezone="UTC")
    except (pa.ArrowException, PySparkException, ValueError):
        better = "write it in microseconds" if "[ns" in str(kind) else "write it as another type"
        why = f"{name} is {kind} in {file}, which Spark does not read; {better}, or leave it out of the contract"
        field = pa.field(name, pa.string(), metadata={typed_rows.UNREADABLE: why})
        return field, pa.chunked_array([pa.nulls(len(values), pa.string())])
    return pa.field(name, values.type), values


def _in_microseconds(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of times in microseconds for one of nanoseconds."""
    if getattr(kind, "unit", "") != "ns":
        return None
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.time64("us") if pa.types.is_time64(kind) else pa.duration("us")


def _csv(content: bytes) -> pa.Table:
    """Return a CSV file's rows, everything as text, an empty field as null; raises UnicodeDecodeError."""
    content.decode()
    whole = pyarrow.csv.ReadOptions(
        block_size=max(2**20, min(len(content) + 1, 2**30))
    )  # else a line ends with its block
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(pa.BufferReader(content), read_options=whole, parse_options=parse) as opened:
        names = opened.schema.names
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    return pyarrow.csv.read_csv(
        pa.BufferReader(content), read_options=whole, parse_options=parse, convert_options=convert
    )
