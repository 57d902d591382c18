"""Columns of a source as a contract can name them: any header has a name, and the contract keeps both. Runs anywhere."""

import re
import unicodedata
from collections.abc import Mapping, Set

from pydantic import ValidationError

from mlspark.contracts.contract import ColumnRule

_TYPES_OF_STORES = {"tinyint": "smallint", "timestamp_ntz": "timestamp"}


def usable(columns: Mapping[str, str]) -> tuple[list[ColumnRule], list[str]]:
    """Return a column of a contract for each of a source, without rules, and what a contract cannot hold and why.

    A name that a contract can have stays; of another the letters lose their accents and all else becomes "_"
    ("education-num": education_num), and one without such letters is called after its place: column_3. No two names
    differ in case only, as Spark would take them for one.

    Args:
        columns: name in the source -> Spark type, in order.
    """
    held: list[ColumnRule] = []
    left_out = []
    names = _names(list(columns))
    for header, source_type in columns.items():
        kind = (
            "string" if source_type.startswith(("char", "varchar")) else _TYPES_OF_STORES.get(source_type, source_type)
        )
        name = names[header]
        try:
            held.append(ColumnRule(name=name, header=None if name == header else header, type=kind))
        except ValidationError:
            left_out.append(f"{header} (no type for {source_type})")
    return held, left_out


def _names(headers: list[str]) -> dict[str, str]:
    """Return header -> name; those that are names already are taken first."""
    names: dict[str, str] = {}
    for header in headers:
        if _is_valid(header) and header.lower() not in _lower(names):
            names[header] = header
    for place, header in enumerate(headers, 1):
        if header not in names:
            names[header] = _free(_plain(header) or f"column_{place}", _lower(names))
    return names


def _lower(names: Mapping[str, str]) -> set[str]:
    return {name.lower() for name in names.values()}


def _plain(header: str) -> str:
    """Return the header with nothing but letters, digits and single underscores; "" without letters."""
    ascii_only = unicodedata.normalize("NFKD", header.replace("ß", "ss")).encode("ascii", "ignore").decode()
    letters = sum(character.isalpha() for character in header)
    if letters > 2 * sum(character.isalpha() for character in ascii_only):
        return ""  # another alphabet: what is left of it means nothing
    plain = re.sub(r"[^A-Za-z0-9]+", "_", ascii_only).strip("_")
    return f"column_{plain}" if plain[:1].isdigit() else plain


def _free(name: str, taken: Set[str]) -> str:
    """Return the name, numbered from 2 where it is taken, or no name of a contract."""
    number = 2
    candidate = name
    while candidate.lower() in taken or not _is_valid(candidate):
        candidate = f"{name}_{number}"
        number += 1
    return candidate


def _is_valid(name: str) -> bool:
    try:
        ColumnRule(name=name, type="string")
    except ValidationError:
        return False
    return True
