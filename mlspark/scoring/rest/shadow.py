"""A second version that is asked what the first was asked: its answers are logged, and returned to nobody."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from mlspark.contracts.check_json import Row
from mlspark.scoring.rest import answers
from mlspark.scoring.rest.answers import Served
from mlspark.scoring.rest.current import Current
from mlspark.scoring.rest.metrics import Metrics
from mlspark.scoring.rest.prediction_log import Answered, PredictionLog

logger = logging.getLogger(__name__)

_MOST_ROWS = 20_000
"""Most rows that wait for the second version; of more, the newest are left out, and counted."""


@dataclass(frozen=True, eq=False)
class _Asked:
    request_id: str
    first_row: int
    rows: Sequence[Row] | pa.Table
    predictions: Sequence[object]
    """Of the first version, row by row."""


class Shadow:
    """Asks a second version in a thread of its own, when the first has answered."""

    def __init__(self, current: Current, log: PredictionLog, metrics: Metrics) -> None:
        self.current, self._log, self._metrics = current, log, metrics
        self._waiting: deque[_Asked] = deque()
        self._num_rows = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._answer_on, name="shadow", daemon=True)

    def start(self) -> None:
        """Follow the alias, and answer from now on."""
        self.current.start()
        self._thread.start()

    def offer(
        self,
        first: Served,
        request_id: str,
        first_row: int,
        rows: Sequence[Row] | pa.Table,
        predictions: Sequence[object],
    ) -> None:
        """Have the second version asked, unless it is the first one, or too many rows wait."""
        if self.current.served.number == first.number:
            return
        with self._changed:
            if self._num_rows + len(rows) > _MOST_ROWS:
                self._metrics.shadow_dropped.inc(len(rows))
                return
            self._waiting.append(_Asked(request_id, first_row, rows, predictions))
            self._num_rows += len(rows)
            self._changed.notify_all()

    def close(self) -> None:
        """Answer what waits, and end."""
        self.current.stop()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _answer_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._waiting)
                if not self._waiting:
                    return
                asked = self._waiting.popleft()
                self._num_rows -= len(asked.rows)
            try:
                self._answer(asked)
            except Exception:  # of a version that answers nobody
                logger.exception("the shadow version failed on %d rows", len(asked.rows))
                self._metrics.shadow_failed.inc(len(asked.rows))

    def _answer(self, asked: _Asked) -> None:
        served = self.current.served
        verdicts = served.predictor.judge(asked.rows)
        predictions = answers.by_row(verdicts, len(asked.rows))
        columns = answers.columns(served, predictions)
        self._log.add(
            Answered(served, "shadow", asked.request_id, asked.first_row, verdicts.rows, columns, verdicts.broken)
        )
        different = sum(
            _decision(mine) != _decision(other) for mine, other in zip(predictions, asked.predictions, strict=True)
        )
        self._metrics.shadow_rows.inc(len(asked.rows))
        self._metrics.shadow_different.inc(different)


def _decision(prediction: object) -> object:
    """Return what is decided: the class, or the number; None for a refused row."""
    return prediction.get("prediction") if isinstance(prediction, dict) else None
