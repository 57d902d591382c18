"""Ctrl-C and SIGTERM in a job: Spark's work is cancelled, what can be kept is kept, and one line says so. Driver."""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

AGAIN = "the same command goes on, or starts anew what cannot"
_CANCEL_SECONDS = 10.0
"""Seconds that Spark may take to say that it has cancelled its jobs."""


class Interruption(KeyboardInterrupt):
    """The user, or who runs the job, ends it. Its message, if any, says where it was."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.status = 128 + signal_number
        """Exit status by which shells know the signal."""


def line(interruption: KeyboardInterrupt) -> str:
    """Return what to tell the user, without the name of the job."""
    where = str(interruption)
    if not where:
        return f"interrupted; {AGAIN}"
    return f"interrupted {where}" if ";" in where else f"interrupted {where}; the same command goes on"


def status(interruption: KeyboardInterrupt) -> int:
    return int(getattr(interruption, "status", 128 + signal.SIGINT))


@contextlib.contextmanager
def raised(spark: SparkSession) -> Iterator[None]:
    """Have SIGINT and SIGTERM raise Interruption meanwhile, Spark's jobs cancelled; a second one ends the process at once.

    Spark's own handler does so for SIGINT, too, but lets Spark log each task that it cancels with two traces. What fails on
    the way out, like the closed connection to Java, is not told in place of the interruption, and code that swallows the
    exception does not make it unsaid.
    """
    interruptions: list[Interruption] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in handled:
            signal.signal(each, lambda again, _: os._exit(128 + again))
        # The bridge to Java logs that it is asked while it waits for an answer; loggers with a level of their own go on.
        root.setLevel(logging.CRITICAL + 1)
        cancel.set()
        is_cancelled.wait(_CANCEL_SECONDS)
        interruptions.append(Interruption(number))
        raise interruptions[0]

    def cancel_when_asked() -> None:
        cancel.wait()
        if not is_over.is_set():
            with contextlib.suppress(Exception):  # the JVM may be gone
                _silence(spark)
                spark.sparkContext.cancelAllJobs()
        is_cancelled.set()

    handled = (signal.SIGINT, signal.SIGTERM)
    root = logging.getLogger()
    level = root.level
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # In a thread of its own: a thread that waits for Java's answer cannot ask Java for anything else meanwhile, and the
    # handler runs in one that may be waiting.
    cancel, is_cancelled, is_over = threading.Event(), threading.Event(), threading.Event()
    threading.Thread(target=cancel_when_asked, name="interruption", daemon=True).start()
    before: dict[signal.Signals, Any] = {number: signal.signal(number, interrupt) for number in handled}
    if "PYSPARK_GATEWAY_PORT" in os.environ:
        _leave_to_python()
    try:
        yield
        if interruptions:  # raised within a finalizer, say, where Python drops it
            raise interruptions[0]
    except Exception:
        if interruptions:
            raise interruptions[0] from None
        raise
    finally:
        is_over.set()
        cancel.set()
        root.setLevel(level)
        for number, handler in before.items():
            signal.signal(number, handler)


def rearm() -> None:
    """Have the handlers of `raised` be those that the system calls, whatever was imported since. Main thread; else nothing.

    Polars, which MLflow imports where it is installed, replaces that of SIGINT by one that calls it, but has the system go
    on with what was interrupted: a process that waits for Java's answer would hear of Ctrl-C when the answer comes.
    """
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _silence(spark: SparkSession) -> None:
    """Have Spark log nothing more; its own setLogLevel leaves loggers alone that have a level of their own."""
    core: Any = spark._jvm.org.apache.logging.log4j  # type: ignore[union-attr]
    core.core.config.Configurator.setAllLevels("", core.Level.OFF)


def _leave_to_python() -> None:
    """Have spark-submit's JVM ignore Ctrl-C, which a terminal sends to both: it would end before this process can save."""
    jvm: Any = launch_gateway().jvm  # type: ignore[no-untyped-call]
    with contextlib.suppress(Exception):  # a JVM without sun.misc.Signal
        jvm.sun.misc.Signal.handle(jvm.sun.misc.Signal("INT"), jvm.sun.misc.SignalHandler.SIG_IGN)
