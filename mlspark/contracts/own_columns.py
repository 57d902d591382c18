"""Columns of mlspark's own, which never meet one of the user's: their names, here once. Runs anywhere.

What travels with a raw row has a name with `PREFIX`, which no column of a contract has. Tables that people read have plain
names in their place (`row_id`, `split`, `prediction`); a user's column of such a name is written beside as `raw_...`.
"""

from collections.abc import Collection, Sequence

PREFIX = "_mlspark_"
MALFORMED = f"{PREFIX}malformed"
"""Why the row could not be parsed, or null."""
RAW = f"{PREFIX}raw"
"""The row: the line, or a struct of its values that `AS_JSON` makes text of, once a row is known to be bad."""
AS_JSON = {
    "ignoreNullFields": "false",
    # Spark's own formats end with milliseconds.
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}
"""Options of `to_json` with which nothing is left out of a row or a value."""
SOURCE_FILE = f"{PREFIX}source_file"
SOURCE = f"{PREFIX}source"
"""Name of the source that the row is of: learn, validation, test, score, or a join's."""
REASONS = f"{PREFIX}reasons"
"""What is wrong with the row: array of column, rule, value; empty for a good one."""
ROW_NUMBER = f"{PREFIX}row_number"
"""Number of the row in its source, from 0."""
ROW_ID = f"{PREFIX}row_id"
"""Hash of what the row is known by."""
GROUP = f"{PREFIX}group"
"""Hash of what keeps rows on one side of the split."""
SPLIT = f"{PREFIX}split"
"""Side of the split: train, validation or test."""

OF_FEATURE_TABLE = ("label", "weight", "row_id", "split", "fold")
"""Columns of a feature table beside the features."""
OF_SCORES = ("row_id", "source_file", "row_number", "model_name", "model_version", "source_version", "score_id")
"""Columns of a score table beside the contract's and the predictions."""


def is_own(name: str) -> bool:
    """Return whether a name is of mlspark's own columns; Spark compares names without case, so this does."""
    return name.lower().startswith(PREFIX)


def same_but_for_case(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each two different names that Spark does not tell apart, in order."""
    first: dict[str, str] = {}
    return [(kept, name) for name in names if (kept := first.setdefault(name.lower(), name)) != name]


def beside(names: Sequence[str], taken: Collection[str]) -> dict[str, str]:
    """Return name -> its name in a table that has columns `taken` of mlspark's own: its own where that is free.

    One that is not has `raw_` in front, again until no other column has it, so it depends on the names alone.
    """
    occupied = {name.lower() for name in (*names, *taken)}
    own = {name.lower() for name in taken}
    written = {}
    for name in names:
        free = name
        while free.lower() in own or (free != name and free.lower() in occupied):
            free = f"raw_{free}"
        occupied.add(free.lower())
        written[name] = free
    return written
