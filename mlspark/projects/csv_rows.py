"""The rows of a CSV file as texts, read as `sources.csv` reads them: a line is a row. Starts no Spark."""

import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mlspark.errors import SourceError
from mlspark.sources.csv import well_quoted

MOST_ROWS = 200_000
"""Rows that a draft looks at; of a larger file the first ones."""
MIN_ROWS = 50
"""Fewer rows are too few to split, to train on and to test."""
SEPARATORS = (",", ";", "\t", "|", " ")
_FIRST_LINES = 50
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class CsvRows:
    """What a file holds."""

    path: Path
    separator: str
    has_header: bool
    columns: dict[str, list[str | None]]
    """Name in the file -> text of each row that could be parsed; None where the field is empty."""
    num_malformed: int
    """Rows that have another number of fields, or quotes that open and do not close."""
    is_whole: bool
    """Whether these are all rows of the file."""

    @property
    def num_rows(self) -> int:
        """Rows that could be parsed."""
        return len(next(iter(self.columns.values())))


def read(path: Path, names: Sequence[str] = ()) -> CsvRows:
    """Return up to `MOST_ROWS` rows.

    Args:
        path: a CSV file, or one compressed by gzip.
        names: of the columns, of a file without a header; empty: its first line names them.

    Raises:
        SourceError: the file is absent, empty or no UTF-8 text, has one column, no header or too few rows; says what to do.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; give the CSV file that the project is to be made from")
    first = list(islice(_lines(path), _FIRST_LINES))
    if not first:
        raise SourceError(f"{path}: empty; give a CSV file with a header and at least {MIN_ROWS} rows")
    separator = _separator(path, first)
    header = tuple(names) or _header(path, first[0], separator)
    columns: list[list[str | None]] = [[] for _ in header]
    malformed = 0
    lines = islice(_lines(path), 0 if names else 1, None)
    for line in islice(lines, MOST_ROWS):
        fields = _fields(line, separator)
        repeats_header = not names and line == first[0]
        if fields is None or len(fields) != len(header) or repeats_header:
            malformed += 1
            continue
        for column, field in zip(columns, fields, strict=True):
            column.append(field or None)
    num_rows = len(columns[0])
    if num_rows < MIN_ROWS:
        why = f", {malformed} more have not {len(header)} fields" if malformed else ""
        raise SourceError(
            f"{path}: {num_rows} rows{why}; at least {MIN_ROWS} are needed to train on some and test on others"
        )
    is_whole = next(lines, None) is None
    return CsvRows(path, separator, not names, dict(zip(header, columns, strict=True)), malformed, is_whole)


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines that are not blank."""
    open_bytes = gzip.open if path.suffix == ".gz" else open
    try:
        with open_bytes(path, "rb") as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=None) as lines:
            for line in lines:
                text = line.rstrip("\n")
                if text.strip():
                    yield text
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 ({error.reason}); convert it: iconv -f latin1 -t utf-8") from None
    except (OSError, EOFError) as error:
        raise SourceError(f"{path}: cannot be read ({error})") from error


def _separator(path: Path, lines: Sequence[str]) -> str:
    """Return the separator that gives most lines the same number of fields, more than one."""
    best = (0, 0, "")
    for separator in SEPARATORS:
        counts = Counter(len(fields) for line in lines if (fields := _fields(line, separator)) is not None)
        wide = {count: number for count, number in counts.items() if count > 1}
        if wide and (most := max(wide.values())) > best[0]:
            best = (most, max(wide), separator)
    if not best[2]:
        raise SourceError(
            f"{path}: one column only, with none of the separators {' '.join(map(repr, SEPARATORS))}; give a CSV file"
        )
    return best[2]


def _header(path: Path, line: str, separator: str) -> tuple[str, ...]:
    """Return the names in the first line. Raises SourceError where they are none."""
    names = _fields(line, separator) or []
    remedy = "name the columns: --columns a,b,c, as many as a row has fields"
    if numbers := [name for name in names if _NUMBER.fullmatch(name)]:
        raise SourceError(f"{path}: the first line has the number {numbers[0]}, so it is no header; {remedy}")
    if "" in names or not names:
        raise SourceError(f"{path}: field {names.index('') + 1 if names else 1} of the header is empty; {remedy}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{path}: the header names {', '.join(twice)} twice; rename one, or {remedy}")
    return tuple(names)


def _fields(line: str, separator: str) -> list[str] | None:
    """Return the fields without blanks around them; None where quotes do not close or stand within a field."""
    if '"' in line and not re.search(well_quoted(separator), line):
        return None
    try:
        [fields] = csv.reader([line], delimiter=separator, skipinitialspace=True)
    except (csv.Error, ValueError):
        return None
    return [field.strip() for field in fields]
