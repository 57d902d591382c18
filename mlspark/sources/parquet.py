"""Parquet files, read as `columnar_files` says. Driver, lazy."""

from typing import Literal

from mlspark.sources.columnar_files import columns, find, read
from mlspark.sources.settings import FilesSettings

__all__ = ["EXTENSIONS", "HAS_TYPES", "PLACE", "ParquetSettings", "Settings", "columns", "find", "read"]


class ParquetSettings(FilesSettings):
    """Parquet files; the folders of partitions become columns."""

    kind: Literal["parquet"]


Settings = ParquetSettings
HAS_TYPES = True
PLACE = "path"
EXTENSIONS = (".parquet",)
