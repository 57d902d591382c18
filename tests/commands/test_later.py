"""What takes seconds to import is imported by or beside the start of Spark, and the call of the work tells its errors."""

import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from mlspark.commands import job
from mlspark.commands.job import Later
from mlspark.errors import ConfigError

from ..conftest import wait_until


@pytest.mark.parametrize("is_submitted", [True, False])
def test_module_is_imported_beside_java_that_spark_submit_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_submitted: bool
) -> None:
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    if not is_submitted:
        monkeypatch.delenv("PYSPARK_GATEWAY_PORT")
    (tmp_path / "slow_work.py").write_text(
        "import threading\nthread = threading.get_ident()\n"
        "def work(spark, settings):\n    return {'spark': spark, 'settings': settings}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "slow_work", raising=False)
    later: Any = Later("slow_work", "work")
    later.begin(None)
    wait_until(lambda: hasattr(sys.modules.get("slow_work"), "work"), 60.0)
    assert later("session", "pipeline") == {"spark": "session", "settings": "pipeline"}
    assert (sys.modules["slow_work"].thread != threading.get_ident()) == is_submitted


def test_module_that_fails_is_told_once_by_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_work.py").write_text("raise ImportError('no such library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    later: Any = Later("broken_work", "work")
    later.begin(None)
    wait_until(lambda: all("broken_work" not in t.name for t in threading.enumerate()), 60.0)
    with pytest.raises(ImportError, match="no such library"):
        later(None, None)
    assert capfd.readouterr().err == ""


def test_modules_of_later_stages_are_imported_in_a_thread_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("first_of_two", "second_of_two"):
        (tmp_path / f"{name}.py").write_text(
            "import sys, threading\nseen = threading.get_ident(), sys.getswitchinterval()\n"
        )
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "broken_one.py").write_text("raise ImportError('no such library')\n")
    monkeypatch.syspath_prepend(tmp_path)
    interval = sys.getswitchinterval()
    settings: Any = None  # asked for where a stage imports MLflow
    job._import_beside(["first_of_two", "broken_one", "second_of_two"], settings)
    wait_until(lambda: all(t.name != "import of stages" for t in threading.enumerate()), 60.0)
    first, second = (sys.modules[name].seen for name in ("first_of_two", "second_of_two"))
    assert first == second
    assert first[0] != threading.get_ident()
    assert first[1] < interval  # what this thread waits for comes in between
    assert sys.getswitchinterval() == interval
    assert capfd.readouterr().err == ""


def test_what_mlflow_opens_a_database_with_is_imported_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("mlspark.tracking.stores.import_ahead", asked.append)
    settings: Any = SimpleNamespace(tracking=SimpleNamespace(uri="sqlite:///mlflow.db"))
    later: Any = Later("mlspark.tracking.stores", "opened")
    later.begin(settings)
    wait_until(lambda: asked == ["sqlite:///mlflow.db"], 60.0)


INTERRUPTED = """
import signal, socket
from mlspark.commands import job
from mlspark.commands.job import Later


def interrupt(number, frame):
    raise KeyboardInterrupt


signal.signal(signal.SIGINT, interrupt)
Later("polars", "Series")("imported", [1])
here, there = socket.socketpair()
print("waits", flush=True)
here.recv(1)
"""


def test_interruption_is_heard_at_once_though_polars_is_imported_after_its_handler() -> None:
    """Polars has the system go on with a system call that a signal interrupts."""
    waiting = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "waits\n"
    with waiting:
        time.sleep(1.0)  # it waits within the call: before, Python would see the signal itself
        waiting.send_signal(signal.SIGINT)
        try:
            waiting.wait(60.0)
        finally:
            waiting.kill()
        assert waiting.stderr is not None
        assert waiting.stderr.read().endswith("KeyboardInterrupt\n")


def test_spark_stops_when_the_worker_that_is_being_made_ready_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark would write an error of a worker at work when it stops: where a stage fails soon, or has nothing to do."""
    happened: list[str] = []

    def make_ready(spark: Any, load: Any) -> None:
        ready = threading.Thread(target=lambda: (time.sleep(0.5), happened.append("ready")))
        ready.start()
        monkeypatch.setattr(job.python_workers, "_made_ready", [ready])

    def fail(spark: Any, settings: Any) -> Any:
        raise ConfigError("no such version")

    settings = SimpleNamespace(name="census", all_sources={}, model_dump=lambda mode: {})
    context = SimpleNamespace(master="local[2]", defaultParallelism=2)
    spark = SimpleNamespace(sparkContext=context, stop=lambda: happened.append("stopped"))
    monkeypatch.setattr(job.loading, "load", lambda files, overrides: settings)
    monkeypatch.setattr(job.costs, "price", lambda settings: None)
    monkeypatch.setattr(job.session, "start", lambda *_, **__: spark)
    monkeypatch.setattr(job.session, "plan_ahead", lambda spark: None)
    monkeypatch.setattr(job.interruption, "raised", lambda spark: nullcontext())
    monkeypatch.setattr(job.python_workers, "import_once", lambda spark, modules: True)
    monkeypatch.setattr(job.python_workers, "make_ready", make_ready)
    monkeypatch.setattr(job, "print_error", happened.append)
    monkeypatch.setitem(sys.modules, "failing_work", SimpleNamespace(fail=fail))
    stage = job.Stage(
        "score", Later("failing_work", "fail", of_workers=["torch"]), lambda settings: None, shows_stages=False
    )
    with pytest.raises(typer.Exit):
        job.run_stages("score", lambda settings: [stage], [], [])
    assert happened == ["score: no such version", "ready", "stopped"]  # nobody waits to hear of it
