"""Requests that wait are computed together: one call of the model at a time, on all that came meanwhile."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlspark.contracts.check_json import Row
from mlspark.scoring.predictor import Verdicts
from mlspark.scoring.rest import answers
from mlspark.scoring.rest.answers import Answers, Served
from mlspark.scoring.rest.limits import Limits, Refused

logger = logging.getLogger(__name__)

ROWS_AT_ONCE = 1024
"""Most rows that are computed together. A request with more gives others their turn in between."""


_SMALL_ROWS, _QUICK_SECONDS = 64, 0.005
"""Rows that are computed in the event loop itself, where the last ones took it less time than this: to hand them to the
thread and back would take longer than to compute them."""


@dataclass(frozen=True, eq=False)
class _Part:
    """Rows of one request that wait."""

    served: Served
    rows: Sequence[Row] | pa.Table
    answer: "asyncio.Future[Any]"


class Batcher:
    """Computes what requests ask for: many rows, and models that take long, in a thread, few rows in the event loop.

    Nothing waits on purpose: each call takes what has come since the last one began, so many clients share the cost of a
    call of the model. Few rows of a request that comes alone are computed where it is read.
    """

    def __init__(self, limits: Limits, observe_rows: Callable[[int], None]) -> None:
        """Make it; `run` makes it work.

        Args:
            limits: `waiting_rows` is looked at.
            observe_rows: is called with the number of rows of each batch.
        """
        self._limits, self._observe_rows = limits, observe_rows
        self._parts: deque[_Part] = deque()
        self._wake = asyncio.Event()
        self._is_quick, self._is_alone = False, False
        self.waiting_rows = 0

    async def judge(self, served: Served, rows: Sequence[Row]) -> Answers:
        """Return the answers to rows of JSON, at most `ROWS_AT_ONCE`.

        Raises:
            Refused: 503, too many rows wait.
        """
        answer: Answers = await self._wait(served, rows)
        return answer

    async def judge_table(self, served: Served, rows: pa.Table) -> Verdicts:
        """Return the verdicts on rows of Arrow, at most `ROWS_AT_ONCE`. Raises as `judge`, and as `Predictor.judge`."""
        verdicts: Verdicts = await self._wait(served, rows)
        return verdicts

    async def _wait(self, served: Served, rows: Sequence[Row] | pa.Table) -> Any:
        if self.waiting_rows + len(rows) > self._limits.waiting_rows:
            raise Refused(
                503, f"{self.waiting_rows:,} rows wait already; try again later", headers={"retry-after": "1"}
            )
        loop = asyncio.get_running_loop()
        part = _Part(served, rows, loop.create_future())
        if self._is_alone and self._is_quick and len(rows) <= _SMALL_ROWS:
            # Of the requests that came together the first one finds itself alone, the others wait for one another.
            self._is_alone = False
            loop.call_soon(self._look_around)
            self._finish([part], *_timed([part]))
            return part.answer.result()
        self._is_alone = False
        self._parts.append(part)
        self.waiting_rows += len(rows)
        self._wake.set()
        return await part.answer

    def _look_around(self) -> None:
        """Note whether the next request is to be computed at once: none came beside the last one."""
        self._is_alone = not self._parts

    def _finish(self, parts: Sequence[_Part], results: Sequence[Any], seconds: float) -> None:
        """Answer what was computed."""
        num_rows = sum(len(part.rows) for part in parts)
        if num_rows <= _SMALL_ROWS:
            self._is_quick = seconds < _QUICK_SECONDS
        self._observe_rows(num_rows)
        for part, result in zip(parts, results, strict=True):
            if part.answer.done():  # its time is over
                continue
            if isinstance(result, BaseException):
                part.answer.set_exception(result)
            else:
                part.answer.set_result(result)

    async def run(self) -> None:
        """Compute what comes, until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as model:
            while True:
                parts = self._next()
                if not parts:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                if self._is_quick and sum(len(part.rows) for part in parts) <= _SMALL_ROWS:
                    results, seconds = _timed(parts)
                    await asyncio.sleep(0)
                else:
                    results, seconds = await loop.run_in_executor(model, _timed, parts)
                self._is_alone = len(parts) == 1 and not self._parts
                self._finish(parts, results, seconds)

    def _next(self) -> list[_Part]:
        """Return what is computed next: requests in their order, of one version, or one table."""
        parts: list[_Part] = []
        num_rows = 0
        while self._parts:
            part = self._parts[0]
            is_over = part.answer.done()
            if parts and not is_over:
                is_other = part.served is not parts[0].served or isinstance(part.rows, pa.Table)
                if is_other or num_rows + len(part.rows) > ROWS_AT_ONCE:
                    break
            self._parts.popleft()
            self.waiting_rows -= len(part.rows)
            if is_over:
                continue
            parts.append(part)
            num_rows += len(part.rows)
            if isinstance(part.rows, pa.Table):
                break
        return parts


def _timed(parts: Sequence[_Part]) -> tuple[Sequence[Any], float]:
    """Return the results of parts, and the seconds of this thread's processor time that they took."""
    started = time.thread_time()
    return _computed(parts), time.thread_time() - started


def _computed(parts: Sequence[_Part]) -> Sequence[Any]:
    """Return the result of each part, or what it raises; where all together raise, each is computed alone."""
    served, rows = parts[0].served, parts[0].rows
    try:
        if isinstance(rows, pa.Table):
            return [answers.judged_table(served, rows)]
        return answers.judged(served, [part.rows for part in parts])
    except Exception as error:
        if len(parts) == 1:
            return [error]
        return [result for part in parts for result in _computed([part])]
