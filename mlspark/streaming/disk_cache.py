"""Row groups of remote tables kept on a local disk, shared by all ranks and runs of a machine."""

import contextlib
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

_SUFFIX = ".arrow"
_ORPHAN_SECONDS = 3600.0


class DiskCache:
    """Arrow tables by key, at most `limit_bytes` of them: those not read for longest go first.

    Safe to share between threads, processes and runs: an entry appears whole or not at all, and one that is removed
    stays readable where it is open. Entries are mapped into memory, not copied. A process killed while it writes leaves a
    temporary file, which the next one removes after an hour.
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        self.folder.mkdir(parents=True, exist_ok=True)
        # Shared by all: each process looks at the folder's size when it has added a small part of the limit.
        self._unchecked_bytes = limit_bytes // 64

    def get(self, key: str, read: Callable[[], pa.Table]) -> pa.Table:
        """Return the table of `key`, from disk or else from `read`, whose result is kept if it fits."""
        path = self.folder / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            os.utime(path)  # last read: what eviction goes by
            return table
        except FileNotFoundError:
            pass
        except (pa.ArrowException, OSError):  # not ours, or damaged: read it anew
            path.unlink(missing_ok=True)
        table = read()
        with contextlib.suppress(OSError):  # a full disk: reading goes on without the cache
            self._put(path, table)
        return table

    def _put(self, path: Path, table: pa.Table) -> None:
        with self._temporary() as temporary:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            size = temporary.stat().st_size
            if size > self.limit_bytes // 2:
                return
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # a name that survives a crash stands for content that does
            self._make_room(size)
            os.replace(temporary, path)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove the entries read longest ago until `size` bytes fit, with room for other processes to do the same."""
        self._unchecked_bytes += size
        if self._unchecked_bytes < self.limit_bytes // 64:
            return
        self._unchecked_bytes = 0
        with open(self.folder / ".lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one process clears up at a time; released when closed
            entries = []
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    if entry.name.endswith(_SUFFIX):
                        entries.append((status.st_mtime, status.st_size, entry.path))
                    elif entry.name.endswith(".part") and status.st_mtime < time.time() - _ORPHAN_SECONDS:
                        os.unlink(entry.path)
            total = sum(size for _, size, _ in entries)
            if total + size <= self.limit_bytes - self.limit_bytes // 8:
                return
            for _, entry_size, path in sorted(entries):
                if total + size <= self.limit_bytes - self.limit_bytes // 4:
                    break
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                total -= entry_size
