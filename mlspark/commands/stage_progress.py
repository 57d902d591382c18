"""How far Spark's stages are, while a job has nothing else to say: one line that changes, or a line now and then. Driver."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from pyspark.sql import SparkSession

_SECONDS = 30.0
"""Seconds between two lines where the output is no terminal; nothing is said of a job that takes less."""
_SECONDS_OF_A_TERMINAL = 1.0
_CLEAR = "\r\x1b[K"


class Handler(logging.StreamHandler[TextIO]):
    """Log lines on standard output, each in place of the line of progress where there is one."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream.isatty():
            self.stream.write(_CLEAR)
        super().emit(record)


@contextmanager
def shown(spark: SparkSession, name: str, *, output: TextIO | None = None, seconds: float = _SECONDS) -> Iterator[None]:
    """Show how far the stages of `spark` are while the context lasts.

    Args:
        spark: the session.
        name: of the job.
        output: where to; standard output unless given.
        seconds: between two lines where the output is no terminal.
    """
    stream = output or sys.stdout
    is_terminal, started, ended = stream.isatty(), time.monotonic(), threading.Event()

    def show() -> None:
        while not ended.wait(_SECONDS_OF_A_TERMINAL if is_terminal else seconds):
            text = stages(spark)
            if text and not ended.is_set():
                line = f"{name}: {time.monotonic() - started:.0f} s, {text}"
                stream.write(f"{_CLEAR}{line}" if is_terminal else f"{line}\n")
                stream.flush()

    thread = threading.Thread(target=show, name="stage progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if is_terminal:
            stream.write(_CLEAR)
            stream.flush()


def stages(spark: SparkSession) -> str:
    """Return how far the stages are that run at this moment: "stage 3: 12 of 200 tasks"; "" where none runs."""
    tracker = spark.sparkContext.statusTracker()
    found = ((stage, tracker.getStageInfo(stage)) for stage in sorted(tracker.getActiveStageIds()))
    return ", ".join(
        f"stage {stage}: {info.numCompletedTasks:,} of {info.numTasks:,} tasks"
        + (f", {info.numFailedTasks:,} failed" if info.numFailedTasks else "")
        for stage, info in found
        if info is not None
    )
