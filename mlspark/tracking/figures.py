"""Figures on their way to a run of MLflow: sent in a thread of their own, so that a training waits for no server. Driver."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric

from mlspark.tracking.answers import LONGEST_PAUSE_SECONDS, in_words, may_pass

logger = logging.getLogger(__name__)

_MAX_BATCH = 100
"""Most figures of one request."""
_MOST_WAITING = 100_000
"""Figures that wait for a server that is down; of more, the oldest are dropped."""
_FIRST_PAUSE_SECONDS = 0.5


class Figures:
    """The figures of one run. Any thread may add some; they are sent in order, as often as it takes."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._waiting: deque[Metric] = deque(maxlen=_MOST_WAITING)
        self._changed = threading.Condition()
        self._is_closed, self._is_sending, self._has_warned = False, False, False
        self._thread: threading.Thread | None = None

    def add(self, figures: Mapping[str, float], *, step: int) -> None:
        """Have the figures of a step sent, with this moment as their time."""
        now = int(time.time() * 1000)
        with self._changed:
            self._waiting.extend(Metric(name, value, now, step) for name, value in figures.items())
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._send_all, name=f"figures {self._run_id[:8]}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Return whether all figures so far are sent, at the latest after `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._is_sending, seconds)

    def close(self, seconds: float) -> None:
        """End the thread when all figures are sent, at the latest after `seconds`, with a warning then; raises nothing."""
        is_sent = self.flush(seconds)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            num_waiting = len(self._waiting)
        if not is_sent:
            logger.warning(
                "%d figures of run %s could not be sent to MLflow in %.0f s and are lost; its events file has them",
                num_waiting, self._run_id, seconds,
            )  # fmt: skip

    def _send_all(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                batch = [self._waiting.popleft() for _ in range(min(_MAX_BATCH, len(self._waiting)))]
                self._is_sending = True
            is_sent = self._send(batch)
            with self._changed:
                if not is_sent:
                    self._waiting.extendleft(reversed(batch))
                self._is_sending = False
                self._changed.notify_all()
                if not is_sent:
                    self._changed.wait_for(lambda: self._is_closed, pause)
            pause = _FIRST_PAUSE_SECONDS if is_sent else min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _send(self, batch: list[Metric]) -> bool:
        """Return whether the figures need no longer be kept: MLflow has them, or will never take them."""
        try:
            self._client.log_batch(self._run_id, metrics=batch)
        except Exception as error:  # a training never ends because of tracking
            if not may_pass(error):
                logger.warning("MLflow refuses %d figures: %s", len(batch), in_words(error))
                return True
            if not self._has_warned:
                logger.warning("MLflow does not answer; figures wait and are sent later: %s", in_words(error))
                self._has_warned = True
            return False
        if self._has_warned:
            logger.info("MLflow answers again; the figures that waited are being sent")
            self._has_warned = False
        return True
