"""ORC files, read as `columnar_files` says. Driver, lazy."""

from typing import Literal

from mlspark.sources.columnar_files import columns, find, read
from mlspark.sources.settings import FilesSettings

__all__ = ["EXTENSIONS", "HAS_TYPES", "PLACE", "OrcSettings", "Settings", "columns", "find", "read"]


class OrcSettings(FilesSettings):
    """ORC files; the folders of partitions become columns."""

    kind: Literal["orc"]


Settings = OrcSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS = (".orc",)
