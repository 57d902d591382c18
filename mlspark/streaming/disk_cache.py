"""Row groups of remote tables kept on a local disk, shared by all ranks and runs of a machine."""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from mlspark.errors import DatasetError, one_line

_SUFFIX = ".arrow"
_SEAL_BYTES = 32
"""Size of the SHA-256 at the end of an entry."""
_ORPHAN_SECONDS = 3600.0


class DiskCache:
    """Arrow tables by key, at most `limit_bytes` of them: those not read for longest go first.

    Safe to share between threads, processes and runs: an entry appears whole or not at all, and one that is removed
    stays readable where it is open. Entries are mapped into memory, not copied. Each ends with the SHA-256 of its key and
    content, which a process checks when it first reads the entry; one that is damaged is read anew. A process killed while
    it writes leaves a temporary file, which the next one removes after an hour.

    Entries hold rows, so they are their owner's alone, except in a folder that its group, or everybody, may write to: such a
    folder is shared on purpose, and so are the entries.
    """

    def __init__(self, folder: str, limit_bytes: int) -> None:
        """Make the folder. Raises DatasetError where that cannot be."""
        self.folder, self.limit_bytes = Path(folder), limit_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise DatasetError(
                f"cache_folder {folder}: cannot be made ({one_line(str(error))}); give another one, or none"
            ) from None
        mode = self.folder.stat().st_mode
        # The sticky bit marks places like /tmp, which everybody may write to for other reasons.
        self._entry_mode = 0o600 if mode & stat.S_ISVTX else 0o600 | (mode & 0o022) << 1
        self._checked: set[tuple[int, int]] = set()
        """(inode, size) of entries whose digest this process has checked."""
        # Shared by all: each process looks at the folder's size when it has added a small part of the limit.
        self._unchecked_bytes = limit_bytes // 64

    def get(self, key: str, read: Callable[[], pa.Table]) -> pa.Table:
        """Return the table of `key`, from disk or else from `read`, whose result is kept if it fits."""
        path = self.folder / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX)
        try:
            table = self._opened(path, key)
            os.utime(path)  # last read: what eviction goes by
            return table
        except FileNotFoundError:
            pass
        except (pa.ArrowException, OSError, ValueError):  # not ours, or damaged: read it anew
            with contextlib.suppress(OSError):
                path.unlink()
        table = read()
        with contextlib.suppress(OSError):  # a full disk: reading goes on without the cache
            self._put(path, key, table)
        return table

    def _opened(self, path: Path, key: str) -> pa.Table:
        """Return an entry, mapped into memory; raises ValueError, OSError or ArrowException where it is not as written."""
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            content = pa.memory_map(str(path)).read_buffer()
        if content.size != status.st_size or content.size < _SEAL_BYTES:
            raise ValueError(f"{path}: replaced or cut short")
        body = content.slice(0, content.size - _SEAL_BYTES)
        identity = (status.st_ino, status.st_size)
        if identity not in self._checked:
            # Before Arrow sees it: a file with other bytes can end the process.
            if content.slice(body.size).to_pybytes() != _seal(key, body):
                raise ValueError(f"{path}: changed since it was written")
            self._checked.add(identity)
        return pa.ipc.open_file(pa.BufferReader(body)).read_all()

    def _put(self, path: Path, key: str, table: pa.Table) -> None:
        with self._temporary() as temporary:
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            with open(temporary, "ab") as file:
                file.write(_seal(key, pa.memory_map(str(temporary)).read_buffer()))
            os.chmod(temporary, self._entry_mode)
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


def _seal(key: str, body: pa.Buffer) -> bytes:
    """Return what an entry of `key` ends with."""
    digest = hashlib.sha256(hashlib.sha256(key.encode()).digest())
    digest.update(body)
    return digest.digest()
