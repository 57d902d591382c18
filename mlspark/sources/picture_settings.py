"""Settings of sources whose rows are pictures, and what the name of a picture says. Runs anywhere; needs no Spark."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mlspark.section import Section
from mlspark.sources.settings import FilesSettings

LABEL, IMAGE = "label", "image"
OFFERED = {"offered": True}
"""Metadata of a column that every such source has, and that nobody need ask for."""


class ManifestSettings(Section):
    """A table with a row for each picture: its path and whatever else is known of it."""

    path: str
    """CSV file with a header, or Parquet file; relative paths are taken from `sources.root`."""
    kind: Literal["csv", "parquet"] = "csv"
    """csv: every column is text, an empty field is a missing value; parquet: the columns' own types."""
    column: str = "path"
    """Column with the picture's path: below `path` of the source, or its whole name in an archive."""


class PicturesSettings(FilesSettings):
    """Files that are pictures, or hold them."""

    pattern: str = ""
    """Regular expression with named groups, searched for in a picture's path: "(?P<label>cat|dog)[.]"; each group is a
    column of text, null where it is not found. A group called label takes the place of the folder's name."""
    manifest: ManifestSettings | None = None
    """Table with further columns of the pictures; its columns stand beside the others, a label in place of the folder's."""
    max_bytes: Annotated[int, Field(ge=1)] = 2**26
    """Most bytes of a picture, or of any file in an archive; a larger one is a bad row and not read."""

    @model_validator(mode="after")
    def _is_a_pattern(self) -> Self:
        try:
            groups = re.compile(self.pattern).groupindex
        except re.error as error:
            raise ValueError(f"pattern: is no regular expression of Python: {error}") from None
        if self.pattern and not groups:
            raise ValueError("pattern: has no named group, such as (?P<label>[a-z]+)")
        return self

    @property
    def groups(self) -> list[str]:
        """Columns that `pattern` finds."""
        return list(re.compile(self.pattern).groupindex)


def said_by(name: str, pattern: str) -> dict[str, str | None]:
    """Return what a picture's name says: label, the name of the folder that it is in, and the groups of `pattern`."""
    folders = name.split("/")
    said: dict[str, str | None] = {LABEL: folders[-2] if len(folders) > 1 else None}
    if pattern:
        expression = re.compile(pattern)
        match = expression.search(name)
        said |= match.groupdict() if match else dict.fromkeys(expression.groupindex)
    return said


def repeated(columns: Sequence[str]) -> list[str]:
    """Return the columns that stand there twice, whatever their case."""
    lower = [column.lower() for column in columns]
    return sorted({column for column in columns if lower.count(column.lower()) > 1})
