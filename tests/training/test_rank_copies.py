"""Ranks that are copies of a Python worker which has imported what they need: apart from it, watched, and ended with it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pyspark import BarrierTaskContext
from pyspark.sql import SparkSession

from mlspark import python_workers
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import barrier_stage
from mlspark.training.launcher import launch
from mlspark.training.spec import Functions

from ..conftest import is_alive, wait_until
from .conftest import new_run
from .test_launcher import ignore

WORKER = """
import fractions, json, logging, os, socket, sys, tempfile
from functools import partial
from mlspark.training import barrier_stage

logging.basicConfig(filename="log")
sockets, file, folder = socket.socketpair(), open(__file__), tempfile.TemporaryDirectory()
start = partial(barrier_stage._forked, "work", "spec of the run")
found = barrier_stage._output_of(start, shows_output=False)
sys.stderr.write(json.dumps(found))
assert os.path.exists(folder.name) and not os.path.getsize("log")
"""


def worker(folder: Path, work: str) -> "subprocess.Popen[str]":
    """A process that runs `work` as its rank, a copy of itself, and writes (status, output) to standard error."""
    (folder / "worker.py").write_text(WORKER)
    (folder / "work.py").write_text(work)
    return subprocess.Popen(
        [sys.executable, "worker.py"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(folder: Path, work: str) -> Any:
    process = worker(folder, work)
    _, told = process.communicate(timeout=240.0)
    assert process.returncode == 0, told
    return json.loads(told)


OF_ITS_OWN = """
import atexit, logging, multiprocessing, os, signal, sys, tempfile, threading
def file(number):
    return os.readlink(f"/proc/self/fd/{number}").partition(":")[0]
files = sorted({file(number) for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")})
print(__name__, sys.argv[1:], "fractions" in sys.modules)
print(files, file(0), file(1) == file(2) == "pipe", repr(sys.stdin.read()))
print(os.getsid(0) == os.getpid(), threading.active_count(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
logging.getLogger().warning("of the rank")
multiprocessing.set_start_method("spawn")
print(multiprocessing.parent_process(), multiprocessing.current_process().name)
kept, written = tempfile.TemporaryDirectory(dir="."), open("metrics", "w")
written.write("unflushed")
atexit.register(lambda: print("the end", threading.active_count()))
"""


def test_copy_has_what_was_imported_and_nothing_else_of_its_parent(tmp_path: Path) -> None:
    status, output = ended(tmp_path, OF_ITS_OWN)
    assert (status, output.splitlines()) == (
        0,
        [
            "__main__ ['spec of the run'] True",
            "['/dev/null', 'pipe'] /dev/null True ''",
            "True 1 True",
            "None MainProcess",
            "the end 1",
        ],
    )


def test_copy_ends_as_a_program_does(tmp_path: Path) -> None:
    """What it has written and not flushed is kept, and its folder for the time being is gone."""
    ended(tmp_path, OF_ITS_OWN)
    assert (tmp_path / "metrics").read_text() == "unflushed"
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "__pycache__"] == []


def test_fatal_error_is_told_where_python_is_to_tell_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    status, output = ended(tmp_path, "import os\nos.abort()")
    assert status == 134
    assert "Fatal Python error: Aborted" in output
    assert "work.py" in output


@pytest.mark.parametrize(
    ("work", "status", "output"),
    [
        ("print('done')", 0, "done\n"),
        ("raise SystemExit(3)", 3, ""),
        ("import os; os._exit(143)", 143, ""),
        ("import os, signal; print('killed', flush=True); os.kill(os.getpid(), signal.SIGKILL)", 137, "killed\n"),
        ("raise ValueError('odd')", 1, "ValueError: odd\n"),
        ("import sys; sys.stdout.buffer.write(b'\\xff' + b'x' * 5_000_000 + b' end'); sys.exit(4)", 4, "x end"),
        (
            "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.5), print('late'))).start()",
            0,
            "late\n",
        ),
    ],
)
def test_status_and_the_end_of_the_output_come_back(tmp_path: Path, work: str, status: int, output: str) -> None:
    found = ended(tmp_path, work)
    assert found[0] == status
    assert found[1].endswith(output)
    assert len(found[1]) <= 20_000


WAITING = """
import os, pathlib, signal, subprocess, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("pids.new").write_text(f"{os.getpid()} {os.getppid()} {left.pid}")
os.rename("pids.new", "pids")
time.sleep(600)
"""


@pytest.mark.parametrize("end", ["worker", "supervisor", "stopped rank"])
def test_nothing_is_left_of_a_copy_whose_worker_is_gone(tmp_path: Path, end: str) -> None:
    process = worker(tmp_path, WAITING)
    wait_until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    if end == "supervisor":  # as Spark's Python asks it to end
        os.kill(pids[1], signal.SIGTERM)
    else:
        if end == "stopped rank":
            os.kill(pids[0], signal.SIGSTOP)
        process.kill()
    wait_until(lambda: not any(map(is_alive, pids)))
    assert (tmp_path / "saved").exists()
    process.communicate(timeout=120.0)


def test_worker_with_threads_of_its_own_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not python_workers.can_fork()  # the tests' process is no worker
    monkeypatch.setattr(python_workers, "_tasks", 1)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert not python_workers.can_fork()
    end.set()
    thread.join()


def test_tasks_need_not_agree_on_a_port_that_the_driver_has_found() -> None:
    """Spark takes a second for each answer."""
    agree = BarrierTaskContext.allGather

    def task(batches: Any) -> Any:
        yield BarrierTaskContext.allGather(NotImplemented, str(batches))

    assert list(barrier_stage._with_port(12345, task, "any")) == [["12345"]]
    assert BarrierTaskContext.allGather is agree
    with socket.create_server(("127.0.0.1", barrier_stage._free_port("127.0.0.1"))):
        pass


def noting(folder: str, tensors: Any, num_outputs: int) -> Any:
    """A model that notes which process makes it, and from what."""
    from torch import nn

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(tensors.num_dense, num_outputs)

        def forward(self, dense: Any, ids: Any) -> Any:
            return self.layer(dense)

    Path(folder, os.environ["RANK"]).write_text(Path("/proc/self/cmdline").read_text())
    return Linear()


def test_ranks_of_a_local_session_are_copies_of_a_worker(
    spark: SparkSession, tmp_path: Path, snapshot: Snapshot
) -> None:
    (tmp_path / "noted").mkdir()
    spec = new_run(tmp_path, snapshot, num_processes=2)
    launch(spark, spec, ignore, functions=Functions(partial(noting, str(tmp_path / "noted"))))
    commands = [(tmp_path / "noted" / rank).read_text() for rank in "01"]
    assert all("mlspark.commands.worker_daemon" in command for command in commands)
