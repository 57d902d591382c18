"""The queue's file: SQLite with write-ahead log. Each change is one transaction, on disk when the call returns."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlspark.errors import ConfigError, DamagedFile, StorageError

_VERSION = 1
_BUSY_SECONDS = 60.0
_TABLES = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    identity TEXT NOT NULL,
    submission TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    stage INTEGER NOT NULL DEFAULT 0,
    round INTEGER NOT NULL DEFAULT 1,
    is_cancelled INTEGER NOT NULL DEFAULT 0,
    exit_status INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    submitted TEXT NOT NULL,
    ended TEXT
);
CREATE INDEX jobs_by_identity ON jobs (identity);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE attempts (
    job INTEGER NOT NULL REFERENCES jobs (number),
    stage INTEGER NOT NULL,
    number INTEGER NOT NULL,
    round INTEGER NOT NULL,
    state TEXT NOT NULL,
    exit_status INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0,
    started TEXT NOT NULL,
    ended TEXT,
    PRIMARY KEY (job, number)
);
CREATE UNIQUE INDEX one_attempt_at_a_time ON attempts (job) WHERE state = 'running';
CREATE TABLE ends (
    job INTEGER NOT NULL REFERENCES jobs (number),
    round INTEGER NOT NULL,
    state TEXT NOT NULL,
    exit_status INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at TEXT NOT NULL,
    PRIMARY KEY (job, round)
);
CREATE TABLE schedules (
    name TEXT PRIMARY KEY,
    times TEXT NOT NULL,
    asked TEXT NOT NULL,
    added TEXT NOT NULL
);
CREATE TABLE firings (
    schedule TEXT NOT NULL REFERENCES schedules (name) ON DELETE CASCADE,
    minute TEXT NOT NULL,
    job INTEGER REFERENCES jobs (number),
    problem TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (schedule, minute)
);
"""


class Database:
    """One SQLite file; several processes may use it at once, each with a Database of its own."""

    def __init__(self, file: Path) -> None:
        """Open the file, and make it where there is none.

        Raises:
            StorageError: it cannot be made or read.
            ConfigError: another version of mlspark made it.
            DamagedFile: it is no queue.
        """
        self.file = file
        with self.problems():
            # Transactions are begun by hand, each taking the right to write at once.
            self._connection = sqlite3.connect(file, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._use_wal()
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
        with self.transaction():
            version = self.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _TABLES.split(";"):
                    self.execute(statement)
                self.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise ConfigError(
                    f"{file}: a queue of another version of mlspark ({version}, this one has {_VERSION}); let its jobs end "
                    f"with that version, and set MLSPARK_QUEUE to another folder"
                )

    def close(self) -> None:
        self._connection.close()

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all changes in the context or none; nobody else changes anything meanwhile."""
        with self.problems():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def problems(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"{self.file}: {error}; make room, give this user the right to write there, or set MLSPARK_QUEUE to a "
                f"folder on a local disk"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DamagedFile(
                f"{self.file}: {error}; move it away: the jobs in it are lost, what their stages did stands"
            ) from error

    def _use_wal(self) -> None:
        """Have readers and a writer not wait for one another. SQLite does not wait for those who do the same just now."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def now() -> str:
    """Return the time of day for people to read; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
