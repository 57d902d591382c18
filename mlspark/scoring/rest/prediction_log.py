"""Answered rows as a Delta table, for monitoring: written by a thread, so that no request waits for it. Needs deltalake."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa

from mlspark import storage
from mlspark.contracts import own_columns
from mlspark.contracts.check_arrow import Broken
from mlspark.contracts.column_types import arrow_type
from mlspark.errors import ConfigError, one_line
from mlspark.scoring.rest.answers import Served

logger = logging.getLogger(__name__)

Role = Literal["answer", "shadow"]

OWN = ("event_time", "request_id", "row", "role", "model_name", "model_version", "refused")
"""Columns of the log beside the contract's and the predictions."""
_FLUSH_ROWS = 10_000
"""Rows from which they are written before `flush_seconds` are over."""
_MOST_ROWS = 200_000
"""Most rows that wait where the table cannot be written; of more, the oldest are lost."""


@dataclass(frozen=True, eq=False)
class Answered:
    """Rows of one request, and what was said of them."""

    served: Served
    role: Role
    request_id: str
    first_row: int
    """Position of the first of these rows in the request."""
    rows: pa.Table
    """In the contract's types, null where a value has another."""
    predictions: Mapping[str, Sequence[Any]]
    """Columns, None for a refused row."""
    broken: Sequence[Broken]

    def table(self, event_time: datetime) -> pa.Table:
        """Return them as the log has them."""
        task, contract = self.served.predictor.task, self.served.predictor.contract
        names = [column.name for column in contract.columns if not column.is_binary]
        written = own_columns.beside(names, (*OWN, *task.prediction_types))
        num_rows = self.rows.num_rows
        reasons: list[list[str] | None] = [None] * num_rows
        for broken in self.broken:
            reasons[broken.row] = [*(reasons[broken.row] or ()), broken.reason]
        columns = {written[name]: self.rows.column(name) for name in names}
        columns |= {
            name: pa.array(self.predictions[name], arrow_type(kind)) for name, kind in task.prediction_types.items()
        }
        columns |= {
            "event_time": pa.array([event_time] * num_rows, pa.timestamp("us", "UTC")),
            "request_id": pa.array([self.request_id] * num_rows, pa.string()),
            "row": pa.array(range(self.first_row, self.first_row + num_rows), pa.int32()),
            "role": pa.array([self.role] * num_rows, pa.string()),
            "model_name": pa.array([self.served.name] * num_rows, pa.string()),
            "model_version": pa.array([self.served.number] * num_rows, pa.int32()),
            "refused": pa.array(reasons, pa.list_(pa.string())),
        }
        return pa.table(columns)


class PredictionLog:
    """The log. Any thread may add to it."""

    def __init__(
        self, table: str, *, flush_seconds: float, observe: Callable[[int], None], observe_lost: Callable[[int], None]
    ) -> None:
        """Look whether the table can be written, and start the thread that writes it.

        Args:
            table: path or URI of the Delta table; made with the first rows.
            flush_seconds: rows are written at the latest after so long.
            observe: is called with the number of rows written.
            observe_lost: is called with the number of rows that could not be.

        Raises:
            ConfigError: deltalake is not installed, or the path holds credentials.
            StorageError: nothing can be written there.
        """
        try:
            import deltalake  # noqa: F401
        except ImportError:
            raise ConfigError('--log needs deltalake: pip install "deltalake>=1.6,<2"') from None
        self._table = storage.absolute(table)
        storage.check_writable(self._table)
        self._flush_seconds, self._observe, self._observe_lost = flush_seconds, observe, observe_lost
        self._waiting: deque[pa.Table] = deque()
        self._num_rows = 0
        self._changed = threading.Condition()
        self._is_closed, self._is_failing = False, False
        self._thread = threading.Thread(target=self._write_on, name="prediction log", daemon=True)
        self._thread.start()

    def add(self, answered: Answered) -> None:
        """Have rows written."""
        rows = answered.table(datetime.now(UTC))
        with self._changed:
            self._waiting.append(rows)
            self._num_rows += rows.num_rows
            if self._num_rows >= _FLUSH_ROWS:
                self._changed.notify_all()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_closed or (self._num_rows >= _FLUSH_ROWS and not self._is_failing),
                    self._flush_seconds,
                )
                is_last, tables = self._is_closed, list(self._waiting)
                self._waiting.clear()
                self._num_rows = 0
            for rows in _by_schema(tables):
                self._write(rows, is_last=is_last)
            if is_last:
                return

    def _write(self, rows: pa.Table, *, is_last: bool) -> None:
        from deltalake import write_deltalake

        try:
            write_deltalake(storage.rust_uri(self._table), rows, mode="append", schema_mode="merge")
        except Exception as error:  # of the store; requests are answered all the same
            if not self._is_failing:
                logger.warning(
                    "%s: %d answered rows could not be written: %s", self._table, rows.num_rows, one_line(str(error))
                )
            self._is_failing = True
            if is_last:
                self._observe_lost(rows.num_rows)
                logger.error("%s: %d answered rows are lost", self._table, rows.num_rows)
                return
            with self._changed:
                self._waiting.appendleft(rows)
                self._num_rows += rows.num_rows
                while self._num_rows > _MOST_ROWS:
                    lost = self._waiting.popleft().num_rows
                    self._num_rows -= lost
                    self._observe_lost(lost)
            return
        self._is_failing = False
        self._observe(rows.num_rows)


def _by_schema(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return tables joined where neighbours have the same columns."""
    joined: list[pa.Table] = []
    for rows in tables:
        if joined and joined[-1].schema.equals(rows.schema):
            joined[-1] = pa.concat_tables([joined[-1], rows])
        else:
            joined.append(rows)
    return joined
