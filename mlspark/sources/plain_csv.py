"""A small CSV file on this machine whose lines are so plain that Spark need not be started to read them. Runs anywhere.

What is plain here says the same whoever reads it: no quotes, one number of fields, no byte that is damage. Of every other
file `read` says that it is for `sources.csv`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from mlspark import storage
from mlspark.contracts import plain_shapes
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import is_own
from mlspark.contracts.plain_shapes import OnlySparkKnows
from mlspark.contracts.shapes import Profile
from mlspark.sources import files, markers
from mlspark.sources.csv import CsvSettings
from mlspark.sources.source import absolute_uri

SAMPLE_LINES, SAMPLE_CHARACTERS = 20, 100_000
"""First lines that tell how many fields there are, of those that are not longer."""
MOST_BYTES = 32 * 2**20
"""Size up to which a file is read here: its different texts are in memory, a column's at a time."""
_SEPARATORS = (",", ";", "|", "\t")
_LOOKED_AT = 1000
_ODD_BYTES = re.compile(rb'["\x00-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n)')
_ODD_CHARACTERS = re.compile("[\x80-\x9f\u2028\u2029\ufeff\ufffd]")
"""Those that end lines to some, are damage, or stand where it was."""


@dataclass(frozen=True)
class PlainCsv:
    """The fields of a file."""

    settings: CsvSettings
    uri: str
    header: tuple[str, ...] | None
    """What its first line names; None where it names nothing."""
    first_lines: tuple[str, ...]
    """Up to `SAMPLE_LINES` lines below the header."""
    fields: pa.Table
    """A column of texts for each field of a line, with the blanks around them, in order."""

    @property
    def num_fields(self) -> int:
        """Fields of every line."""
        return int(self.fields.num_columns)

    def profile(self, contract: Contract, columns: Mapping[str, str] | None) -> Profile:
        """Return what columns hold, as `shapes.profile` does; raises OnlySparkKnows."""
        markers.check(self.settings.missing, [*self._names(contract), *contract.names], self.uri)
        texts = ((name, self._texts(contract, name)) for name in columns or {})
        seen = [plain_shapes.seen(name, place, found) for place, (name, found) in enumerate(texts)]
        return Profile(self.fields.num_rows, {}, seen)

    def different_values(
        self, contract: Contract, types: Mapping[str, str], *, listed: Sequence[str]
    ) -> dict[str, tuple[int, list[str]]]:
        """Return name -> (number of different values, those values if in `listed`)."""
        found = {}
        for name, kind in types.items():
            texts = self._texts(contract, name)
            number = len({plain_shapes.value(text, kind) for text in texts})
            found[name] = (number, sorted(texts) if name in listed else [])
        return found

    def _names(self, contract: Contract) -> list[str]:
        """Return what the fields are called in the source; raises OnlySparkKnows where some have no name."""
        if self.header is None and len(contract.columns) != self.num_fields:
            raise OnlySparkKnows(f"{len(contract.columns)} columns of {self.num_fields} fields")
        return list(self.header or (column.source_name for column in contract.columns))

    def _texts(self, contract: Contract, name: str) -> dict[str, int]:
        """Return the different texts of a column of the contract that is no missing value -> rows that have it."""
        source_name = contract.column(name).source_name
        field = self.fields.column(self._names(contract).index(source_name))
        of_missing = {"", *markers.of(self.settings.missing, source_name, name)}
        found: dict[str, int] = {}
        counted = pc.value_counts(field)
        for text, rows in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
            if (bare := text.strip(" ")) not in of_missing:
                found[bare] = found.get(bare, 0) + rows
        return found


def read(settings: CsvSettings, *, root: str) -> PlainCsv | None:
    """Return the fields of a plain file; None where `sources.csv` is to read the source, and to say what is wrong with it.

    Args:
        settings: of the source.
        root: what a relative path is taken from.
    """
    uri = absolute_uri(settings.path, root)
    separator = settings.separator
    is_simple = separator in _SEPARATORS and not settings.comment and not settings.filter
    content = _content(uri) if is_simple else None
    if content is None or _ODD_BYTES.search(content) or (separator != "\t" and b"\t" in content):
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if not content.isascii() and _ODD_CHARACTERS.search(text):
        return None
    lines = text.replace("\r\n", "\n").split("\n")
    longest = max(map(len, content.split(b"\n")))
    if not lines[0].strip(" ") or longest > min(settings.max_line_bytes, SAMPLE_CHARACTERS):
        return None
    header = tuple(name.strip() for name in lines[0].split(separator)) if settings.header else None
    if header is not None:
        is_odd = len(set(header)) < len(header) or any(not name or is_own(name) for name in header)
        if is_odd or lines.count(lines[0]) > 1:
            return None
    first = [line for line in lines[1 if header else 0 :][:_LOOKED_AT] if line.strip(" ")][:SAMPLE_LINES]
    fields = _fields(content, separator, len(lines[0].split(separator)), has_header=header is not None)
    return PlainCsv(settings, uri, header, tuple(first), fields) if fields is not None and first else None


def _content(uri: str) -> bytes | None:
    """Return the bytes of one local file of few bytes; None for every other source."""
    if not storage.is_local(uri) or files.literal(uri) != uri:
        return None
    path = Path(storage.local_path(uri))
    is_hidden = path.name.startswith((".", "_"))
    try:
        if is_hidden or not path.is_file() or not 0 < os.path.getsize(path) <= MOST_BYTES:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _fields(content: bytes, separator: str, num_fields: int, *, has_header: bool) -> pa.Table | None:
    """Return the fields as texts; None where a line has another number of them, or there are none."""
    if num_fields < 2:  # a blank line would be a field
        return None
    names = [f"f{place}" for place in range(num_fields)]
    try:
        fields = arrow_csv.read_csv(
            pa.BufferReader(content),
            arrow_csv.ReadOptions(block_size=len(content) + 1, skip_rows=int(has_header), column_names=names),
            arrow_csv.ParseOptions(delimiter=separator, quote_char=False, double_quote=False, escape_char=False),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    return fields if fields.num_rows else None
