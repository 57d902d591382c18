"""Manifests: tables that say which pictures there are and what is known of them. Driver."""

from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from mlspark import storage
from mlspark.contracts.own_columns import PREFIX, is_own
from mlspark.errors import SourceError, one_line
from mlspark.sources import listing
from mlspark.sources.picture_settings import ManifestSettings
from mlspark.sources.source import Part, absolute_uri


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
    clash = sorted({c for c in renamed if lower.count(c.lower()) > 1 or c.lower() in taken or is_own(c)})
    if clash:
        raise SourceError(
            f"{file.name}: columns {', '.join(clash)} stand there twice, or are called like the source's own "
            f"({', '.join((name, *taken))}, {PREFIX}...); rename them in the manifest"
        )
    paths = pc.replace_substring_regex(table.column(settings.column).cast(pa.string()), r"^(\./+)+", "")
    return table.set_column(columns.index(settings.column), settings.column, paths).rename_columns(renamed)


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
