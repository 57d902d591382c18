"""The places that a stage writes to: tried before the work, and named when they fail in the middle of it. Driver."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from mlspark import session, storage, tables
from mlspark.errors import StorageError, one_line
from mlspark.settings.pipeline import Settings
from mlspark.sources.source import storage_failure


@contextmanager
def writing(settings: Settings, kinds: Sequence[str] = (), *, folder: str = "") -> Iterator[None]:
    """Check that the tables of these kinds can be written, then name the place when a write fails while the context lasts.

    So can a `folder` below the root, where one is given.

    Raises:
        StorageError: a place is full, read-only or another's; nothing was written that counts.
        TableError: the log of a table cannot be read.
    """
    for kind in kinds:
        table = settings.table(kind)
        if tables.exists(table):
            tables.opened(table)
            storage.check_writable(storage.join(table, "_delta_log"))
        storage.check_writable(table)
    if folder:
        storage.check_writable(storage.join(settings.root, folder))
    try:
        with session.unlogged():
            yield
    except OSError as error:
        if error.errno not in _OF_A_PLACE:
            raise
        raise _failure(settings, one_line(str(error))) from error
    except (PySparkException, Py4JJavaError) as error:
        reported = storage_failure(error)
        if reported is None:
            raise
        raise _failure(settings, reported) from error


_OF_A_PLACE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EFBIG", "EIO", "EISDIR", "ENOSPC", "ENOTDIR", "EPERM", "EROFS")
}


def _failure(settings: Settings, reported: str) -> StorageError:
    return StorageError(
        f"{settings.root}: a write failed ({reported}); make room or give the rights, there and in spark.local.dir, "
        f"then run again: nothing was written that counts"
    )
