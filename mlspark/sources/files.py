"""Files as parts of a source: found once, then read by name. Driver."""

import glob
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage
from mlspark.errors import SourceError, StorageError
from mlspark.sources import file_states
from mlspark.sources.source import STRICT, Part, Source

logger = logging.getLogger(__name__)

_GLOB = re.compile(r"([\[\]{}*?\\])")


def listed(spark: SparkSession, *uris: str, holds_tables: bool = False) -> tuple[Part, ...]:
    """Return the files of files, folders or globs of any scheme, by their states (`file_states.settled`). One Spark job.

    Files without a byte are left out, and so is what has "_" or "." in front.

    Args:
        spark: the session of the job.
        uris: where to look.
        holds_tables: whether a file without a byte is no file of that kind, and refused where it can be seen.

    Raises:
        SourceError: nothing there, or a local link that leads nowhere.
    """
    for uri in uris:
        if storage.is_local(uri):
            _refuse_unreadable(uri, holds_tables)
    # binaryFile lists files of any scheme; the content is not read when its column is not selected.
    listing = spark.read.format("binaryFile").options(**STRICT, recursiveFileLookup="true")
    modified = F.unix_micros("modificationTime").alias("modified")

    def parts() -> tuple[Part, ...]:
        rows = listing.load(list(uris)).select("path", "length", modified).collect()
        return each_once(
            [Part(row.path, file_states.state(row.length, row.modified), row.length) for row in sorted(rows)]
        )

    try:
        return file_states.settled(parts, for_python)
    except AnalysisException as error:
        if error.getCondition() != "PATH_NOT_FOUND":
            raise
        place = (error.getMessageParameters() or {}).get("path", ", ".join(uris))
        raise absent(place, "sources.*.path (scoring.source.path)") from None


def for_python(name: str) -> str:
    """Return what Python opens for a name of Spark's, which is not URL-encoded."""
    return re.sub("^file:/+", "/", name)


def each_once(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts without local files that stand there under another name before: as links to one file do."""
    known: dict[tuple[int, int], str] = {}
    kept = []
    for part in parts:
        if storage.is_local(part.name) and os.path.exists(path := for_python(part.name)):
            status = os.stat(path)
            first = known.setdefault((status.st_dev, status.st_ino), part.name)
            if first != part.name:
                logger.warning("%s: is the same file as %s, and read once", part.name, first)
                continue
        kept.append(part)
    return tuple(kept)


def absent(uri: str, setting: str) -> SourceError:
    """Return the error that says that nothing is at `uri`, which `setting` names."""
    return SourceError(
        f"{uri}: no such file or folder; check {setting}, sources.root and MLSPARK_DATA, "
        f"or get the census files with: mlspark fetch adult"
    )


def existing_parts(spark: SparkSession, uri: str, *, holds_tables: bool = False) -> tuple[Part, ...]:
    """Return the files of a file, folder or glob like `listed`, at least one.

    Raises:
        SourceError: nothing there, no byte in it, or the folder of a Delta table.
    """
    log = jvm(spark).org.apache.hadoop.fs.Path(storage.join(uri, "_delta_log"))
    if not _GLOB.search(uri) and log.getFileSystem(hadoop(spark)).exists(log):
        # Its folder has files of other versions too.
        raise SourceError(f"{uri}: is a Delta table; set kind to delta, so that the rows of one version are read")
    parts = listed(spark, uri, holds_tables=holds_tables)
    if not parts:
        raise SourceError(f"{uri}: no bytes to read; check that the file is whole, or the folder the right one")
    return parts


def paths(source: Source) -> list[str]:
    """Return the files of a source as Spark takes them: their names, not patterns."""
    return [literal(part.name) for part in source.parts]


def file_of(rows: DataFrame) -> Column:
    """Return the file of a row that one of Spark's file sources read, whatever columns the files have themselves."""
    return rows.metadataColumn("_metadata").getField("file_path")


def literal(name: str) -> str:
    """Return the pattern that only `name` matches."""
    return _GLOB.sub(r"\\\1", name)


def base_path(source: Source) -> str:
    """Return the folder below which folders named key=value are partitions."""
    uri = source.uri
    pattern = _GLOB.search(uri)
    if pattern is not None:
        return uri[: uri.rindex("/", 0, pattern.start())]
    is_file = any(re.sub("^file:/+", "/", part.name) == uri for part in source.parts)
    return uri.rsplit("/", 1)[0] if is_file else uri


def partitions(source: Source) -> dict[str, str]:
    """Return the columns that folders key=value of the files name: key in lower case -> one of its folders."""
    start = re.sub("^file:/+", "/", base_path(source)).rstrip("/")
    folders: dict[str, str] = {}
    for part in source.parts:
        below = re.sub("^file:/+", "/", part.name).removeprefix(start)
        for folder in below.split("/")[:-1]:
            name, equals, _ = folder.partition("=")
            if equals and name:
                folders.setdefault(name.lower(), folder)
    return folders


def digest(parts: Sequence[Part]) -> str:
    """Return a hash of files and their states."""
    return hashlib.sha256(json.dumps([[part.name, part.state] for part in parts]).encode()).hexdigest()


def jvm(spark: SparkSession) -> Any:
    """Return Java's packages as the driver sees them."""
    return spark._jvm


def hadoop(spark: SparkSession) -> Any:
    """Return Hadoop's Configuration of the session: file systems, credentials."""
    return spark._jsparkSession.sessionState().newHadoopConf()


def _folders(top: str) -> Iterator[str]:
    """Yield a local folder and those below it, links followed; refuses a link to a folder that it is in."""
    try:
        yield from storage.local_folders(top, lambda path: not _is_hidden(os.path.basename(path)))
    except StorageError as error:
        raise SourceError(str(error)) from None


def _is_hidden(name: str) -> bool:
    """Return whether Spark leaves out a file or folder of this name."""
    return name.startswith((".", "_")) and "=" not in name


def _files(folder: str) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if not entry.is_dir()]


def _refuse_unreadable(uri: str, holds_tables: bool) -> None:
    """Raise SourceError for what Hadoop leaves out in silence on local disks: links to nowhere, files without a byte."""
    path = storage.local_path(uri)
    for top in glob.glob(path) if _GLOB.search(path) else [path]:
        names = [top]
        if os.path.isdir(top):
            names = [os.path.join(folder, name) for folder in _folders(top) for name in _files(folder)]
        for name in names:
            if any(map(_is_hidden, name[len(top) :].split("/"))):
                continue
            if os.path.islink(name) and not os.path.exists(name):
                raise SourceError(f"{name}: is a link to {os.readlink(name)}, which is not there; correct or remove it")
            if holds_tables and os.path.isfile(name) and os.path.getsize(name) == 0:
                raise SourceError(f"{name}: has no byte, so its rows are lost; correct or remove it")
