"""Sizes and footers of remote Parquet files, asked for once for all threads of a reader."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import pyarrow as pa
from pyarrow import fs
from pyarrow import parquet as pq

from mlspark import storage
from mlspark.streaming.file_columns import open_file, open_source

_MOST_BYTES = 32 * 2**20
_PARSED_OVER_STORED = 10  # memory of a footer / its bytes in the file: 8 to 10 with 15 to 200 columns (pyarrow 25)


@dataclass
class _Opened:
    """What is known of a remote file once a thread has opened it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    footer: pq.FileMetaData | None = None
    source: pa.NativeFile | None = None
    """The open file, where threads may read from one at the same time."""

    @property
    def num_bytes(self) -> int:
        return 0 if self.footer is None else _PARSED_OVER_STORED * int(self.footer.serialized_size)


class SharedFooters:
    """Opens Parquet files for the threads of a process, which share the footers of those in remote stores.

    Footers stay in up to 32 MiB of memory, those not used for longest go first. In another process it begins empty.
    """

    def __init__(self) -> None:
        """Know no file yet."""
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _Opened] = OrderedDict()

    def __reduce__(self) -> tuple[type["SharedFooters"], tuple[()]]:
        return SharedFooters, ()

    def open(self, uri: str) -> pq.ParquetFile:
        """Return the file, open for one thread; see `open_file` for what is raised."""
        if storage.is_local(uri):  # costs little, and a path may lead to another file by now
            return open_file(uri)
        with self._lock:
            known = self._files.setdefault(uri, _Opened())
            self._files.move_to_end(uri)
        with known.lock:  # a thread that comes meanwhile waits for this one's footer
            if known.footer is None:
                return self._first_opened(uri, known)
        return open_file(uri, known.source, known.footer)

    def has(self, uri: str) -> bool:
        """Return whether the file's footer is known."""
        with self._lock:
            return uri in self._files and self._files[uri].footer is not None

    def forget(self, uri: str) -> None:
        """Have the file asked for everything again when it is opened next."""
        with self._lock:
            self._files.pop(uri, None)

    def _first_opened(self, uri: str, known: _Opened) -> pq.ParquetFile:
        filesystem, _ = storage.filesystem(uri)
        source = open_source(uri)
        opened = open_file(uri, source)
        # Only S3's files are read at several places at once: those of HDFS would have the threads wait for each other.
        known.source = source if isinstance(filesystem, fs.S3FileSystem) else None
        known.footer = opened.metadata
        with self._lock:
            while len(self._files) > 1 and sum(file.num_bytes for file in self._files.values()) > _MOST_BYTES:
                self._files.popitem(last=False)
        return opened
