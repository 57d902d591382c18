"""Workers, supervisors and stages as real processes: what becomes of jobs, whoever is killed."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from mlspark.queue import supervisor, worker
from mlspark.queue.job import Limits

from ..conftest import is_alive, wait_until
from .conftest import Queue, kill

SAY = "import sys; from pathlib import Path\n"
REPORT = SAY + "Path(sys.argv[sys.argv.index('--report') + 1]).write_text('{\"rows\": 3}')\n"


def waits_for(file: Path, *, first: str = "") -> str:
    """A program that notes its process in started-PID and goes on when `file` is there."""
    return (
        f"import os, time; from pathlib import Path\n{first}\nfile = Path({str(file)!r})\n"
        "(file.parent / f'started-{os.getpid()}').touch()\n"
        "while not file.exists(): time.sleep(0.02)\n"
    )


def started(folder: Path) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("started-*")]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_stages_run_one_after_the_other_and_leave_their_reports(queue: Queue) -> None:
    job = queue.submit(REPORT + "print('first', sys.argv[1:])", "print('second')")
    queue.start_worker()
    ended = queue.ended(job)
    assert (ended.state, ended.exit_status, ended.reason) == ("succeeded", 0, "")
    assert queue.states(job) == ["succeeded", "succeeded"]
    folder = queue.places.attempt(job, queue.attempts(job)[0])
    assert queue.log(job, 1) == f"first ['--config', '{folder}/settings.yaml', '--report', '{folder}/report.json']\n"
    assert (folder / "settings.yaml").read_text() == "name: fake\n"
    assert queue.log(job, 2) == "second\n"
    assert json.loads(queue.places.report(job, "prepare").read_text()) == {"rows": 3}
    assert not queue.places.report(job, "train").exists()
    assert len(queue.store.ends(job)) == 1


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(queue: Queue, tmp_path: Path) -> None:
    passes = queue.submit(SAY + f"count = Path({str(tmp_path / 'count')!r})\n"
                          "tried = len(count.read_text()) if count.exists() else 0\ncount.write_text('x' * (tried + 1))\n"
                          "sys.exit(0 if tried == 2 else 1)")  # fmt: skip
    trace = "org.apache.spark.SparkException: lost\\n\\tat org.apache.spark.X$.run(X.scala:3)\\n\\t... 7 more"
    wrong = queue.submit(f"import sys; sys.exit('{trace}')", limits=Limits(retries=0))
    corrected = queue.submit("import sys; print('name: missing', file=sys.stderr); sys.exit(2)", "pass")
    queue.start_worker()
    assert queue.ended(passes).state == "succeeded"
    assert queue.states(passes) == ["failed", "failed", "succeeded"]
    ended = queue.ended(wrong)
    assert (ended.exit_status, len(queue.attempts(wrong))) == (1, 1)
    assert ended.reason == "prepare: exit status 1, a fault: org.apache.spark.SparkException: lost"
    ended = queue.ended(corrected)
    assert (ended.state, ended.exit_status) == ("failed", 2)
    assert ended.reason == "prepare: exit status 2, to be corrected: name: missing"
    assert queue.states(corrected) == ["failed"]


def test_a_program_that_is_not_there_fails_the_job(queue: Queue) -> None:
    job = queue.submit("pass", folder="/no/such/folder")
    queue.start_worker()
    assert (
        queue.ended(job).reason
        == "prepare: exit status 127, no such program: /no/such/folder: No such file or directory"
    )


def test_cancel_leaves_no_process(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage ignores every signal that can be ignored, and has started another one in a session of its own."""
    deaf = "import signal\nfor name in ('SIGINT', 'SIGTERM', 'SIGHUP'): signal.signal(getattr(signal, name), signal.SIG_IGN)"
    child = waits_for(tmp_path / "never", first=deaf)
    parent = (
        f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n" + child
    )
    job = queue.submit(parent)
    later = queue.submit("pass")
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.5)
    by_hand = worker.Worker(queue.places, queue.store)

    def look(until: int) -> bool:
        by_hand.look()
        return len(started(tmp_path)) == until

    wait_until(lambda: look(2))
    queue.store.cancel(job.id)
    wait_until(lambda: not by_hand.look() or not queue.job(job).is_open)
    assert not any(map(is_alive, started(tmp_path)))
    ended = queue.job(job)
    assert (ended.state, ended.exit_status, ended.reason) == ("cancelled", 130, "prepare: cancelled")
    assert queue.store.cancel(later.id).state == "queued" or queue.ended(later).state in ("cancelled", "succeeded")


def test_a_queued_job_is_cancelled_at_once(queue: Queue) -> None:
    job = queue.submit("pass")
    assert queue.store.cancel(job.id).state == "cancelled"
    queue.start_worker()
    assert queue.ended(queue.submit("pass")).state == "succeeded"
    assert queue.attempts(job) == []


def test_a_stage_outlives_its_worker_and_is_run_once(queue: Queue, tmp_path: Path) -> None:
    job = queue.submit(waits_for(tmp_path / "go"), "print('second')")
    first = queue.start_worker()
    wait_until(lambda: started(tmp_path))
    kill(first.pid)
    second = queue.start_worker()
    wait_until(lambda: queue.places.has_worker())
    kill(second.pid)
    (tmp_path / "go").touch()  # it ends without any worker
    wait_until(lambda: (queue.places.attempt(job, queue.attempts(job)[0]) / "end.json").exists())
    queue.start_worker()
    assert queue.ended(job).state == "succeeded"
    assert queue.states(job) == ["succeeded", "succeeded"]
    assert len(started(tmp_path)) == 1


def test_a_stage_whose_supervisor_was_killed_is_ended_and_runs_again(queue: Queue, tmp_path: Path) -> None:
    job = queue.submit(waits_for(tmp_path / "go"))
    queue.start_worker()
    wait_until(lambda: started(tmp_path))
    [stage] = started(tmp_path)
    kill(parent_of(stage))
    wait_until(lambda: len(started(tmp_path)) == 2)
    assert not is_alive(stage)
    (tmp_path / "go").touch()
    assert queue.ended(job).state == "succeeded"
    assert queue.states(job) == ["lost", "succeeded"]


def test_a_stage_whose_supervisor_is_asked_to_end_is_interrupted_and_runs_again(queue: Queue, tmp_path: Path) -> None:
    """As all processes are when the machine is shut down."""
    job = queue.submit(waits_for(tmp_path / "go"), limits=Limits(retries=0))
    first = queue.start_worker()
    wait_until(lambda: started(tmp_path))
    [stage] = started(tmp_path)
    first.terminate()
    os.kill(parent_of(stage), signal.SIGTERM)
    assert first.wait(60) == 0
    wait_until(lambda: not is_alive(stage))
    queue.start_worker()
    wait_until(lambda: len(started(tmp_path)) == 2)
    (tmp_path / "go").touch()
    assert queue.ended(job).state == "succeeded"
    assert queue.states(job) == ["interrupted", "succeeded"]
    assert queue.attempts(job)[0].exit_status == 130


def test_an_end_that_cannot_be_written_yet_is_written_later(queue: Queue, tmp_path: Path) -> None:
    """As on a full disk: the stage does not run again for that."""
    in_the_way = "import os; os.mkdir(os.environ['MLSPARK_ATTEMPT'] + '/end.tmp')"
    (tmp_path / "go").touch()
    job = queue.submit(waits_for(tmp_path / "go", first=in_the_way))
    queue.start_worker()
    wait_until(lambda: started(tmp_path) and not any(map(is_alive, started(tmp_path))))
    assert queue.states(job) == ["running"]
    (queue.places.attempt(job, queue.attempts(job)[0]) / "end.tmp").rmdir()
    assert queue.ended(job).state == "succeeded"
    assert queue.states(job) == ["succeeded"]


def test_a_running_stage_says_how_long_it_runs(queue: Queue) -> None:
    job = queue.submit("pass")
    claimed = queue.store.claim()
    assert claimed is not None
    attempt = queue.store.begin_attempt(claimed)
    assert queue.places.seconds(job, attempt) == 0.0
    folder = queue.places.attempt(job, attempt)
    folder.mkdir(parents=True)
    supervisor._write(folder / "seconds", 5.25)
    assert queue.places.seconds(job, attempt) == 5.25
    assert queue.places.seconds(job, replace(attempt, state="succeeded", seconds=6.5)) == 6.5


def test_an_attempt_that_was_recorded_but_never_started_is_lost(queue: Queue) -> None:
    """The worker was killed in between."""
    job = queue.submit("pass")
    claimed = queue.store.claim()
    assert claimed is not None
    queue.store.begin_attempt(claimed)
    queue.start_worker()
    assert queue.ended(job).state == "succeeded"
    assert queue.states(job) == ["lost", "succeeded"]


def test_time_limit_holds_for_all_stages_together(queue: Queue, tmp_path: Path) -> None:
    limits = Limits(seconds=3.0, why="time limit of 3s")
    job = queue.submit("import time; time.sleep(1)", waits_for(tmp_path / "never"), limits=limits)
    queue.start_worker()
    ended = queue.ended(job)
    assert (ended.state, ended.exit_status, ended.reason) == ("failed", 124, "train: time limit of 3s is over")
    seconds = [each.seconds for each in queue.attempts(job)]
    assert seconds[0] > 1.0
    assert sum(seconds) > 3.0


def test_one_worker_for_a_queue_which_ends_when_nothing_is_left(queue: Queue) -> None:
    first = queue.start_worker()
    wait_until(queue.places.has_worker)
    assert queue.start_worker().wait(60) == 0
    assert first.poll() is None
    assert (queue.places.folder / "worker.lock").read_text() == f"{first.pid}\n"
    first.kill()
    first.wait()
    job = queue.submit("pass")
    worker.run(queue.places, idle_seconds=0.5)
    assert queue.job(job).state == "succeeded"
    assert not queue.places.has_worker()
