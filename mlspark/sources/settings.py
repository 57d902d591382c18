"""What the settings of every kind of source have. Runs anywhere."""

from mlspark.section import Section


class SourceSettings(Section):
    """One raw data set; `kind` says how it is stored, and each kind has more settings of its own."""

    kind: str
    has_label: bool = True
    """Whether the rows have the contract's label column."""
    filter: str = ""
    """SQL condition over the source's own columns; only rows that meet it are read. Pushed down where the store can."""


class FilesSettings(SourceSettings):
    """A data set of files."""

    path: str
    """File, folder or glob; relative paths are taken from `sources.root`. Compressed text (.gz, .bz2, ...) is read too."""
