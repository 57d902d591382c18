"""What the queue's file promises to those who write to it at once."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlspark.errors import ConfigError, DamagedFile, StorageError
from mlspark.queue.job import Limits
from mlspark.queue.store import Store

from .conftest import Queue, submission

ONE = submission("pass")


def test_same_identity_is_the_same_job_until_it_fails(queue: Queue) -> None:
    store = queue.store
    first, is_new = store.submit(ONE)
    assert (first.id, first.state, is_new) == ("fake-01234567", "queued", True)
    assert store.submit(ONE) == (first, False)
    claimed = store.claim()
    assert claimed is not None
    assert store.submit(ONE) == (claimed, False)
    store.end(claimed, "succeeded", 0, "")
    assert store.submit(ONE)[0].id == first.id
    again, is_new = store.submit(ONE, is_again=True)
    assert (again.id, is_new) == ("fake-01234567-2", True)
    store.end(again, "failed", 1, "prepare: exit status 1, a fault")
    third, is_new = store.submit(ONE)
    assert (third.id, is_new) == ("fake-01234567-3", True)


def test_what_cannot_be_seen_is_the_same_job_only_while_it_is_open(queue: Queue) -> None:
    unseen = replace(ONE, is_seen=False)
    first, _ = queue.store.submit(unseen)
    assert queue.store.submit(unseen)[0].id == first.id
    queue.store.end(first, "succeeded", 0, "")
    assert queue.store.submit(unseen)[1]


def test_many_processes_submit_the_same_at_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mlspark.queue.store import Store\n"
        "from mlspark.queue.job import Stage, Submission\n"
        "asked = Submission('fake', (Stage('prepare', ('true',)),), 'local', '/', {}, '', '0123456789', True)\n"
        "print(Store(Path(sys.argv[1])).submit(asked)[0].id)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "queue.sqlite")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert {process.communicate(timeout=120)[0] for process in processes} == {"fake-01234567\n"}
    store = Store(tmp_path / "queue.sqlite")
    assert [job.id for job in store.jobs()] == ["fake-01234567"]
    store.close()


def test_a_job_ends_once(queue: Queue) -> None:
    job, _ = queue.store.submit(ONE)
    queue.store.end(job, "cancelled", 130, "cancelled")
    with pytest.raises(AssertionError, match="has ended already"):
        queue.store.end(job, "failed", 1, "")
    assert [(end["round"], end["state"]) for end in queue.store.ends(job)] == [(1, "cancelled")]


def test_jobs_run_in_the_order_of_their_submission(queue: Queue) -> None:
    jobs = [queue.submit("pass") for _ in range(3)]
    claimed = [queue.store.claim() for _ in range(4)]
    assert [job and job.id for job in claimed] == [*(job.id for job in jobs), None]


def test_retry_begins_another_round_with_the_stage_that_failed(queue: Queue) -> None:
    job = queue.submit("pass", "pass")
    claimed = queue.store.claim()
    assert claimed is not None
    attempt = queue.store.begin_attempt(claimed)
    queue.store.end_attempt(claimed, replace(attempt, state="succeeded"), next_stage=1)
    queue.store.end(queue.job(job), "failed", 1, "train: exit status 1, a fault")
    again = queue.store.retry(job.id, limits=Limits(seconds=60.0, why="time limit of 60s"))
    assert (again.state, again.stage, again.round, again.reason) == ("queued", 1, 2, "")
    assert again.submission.limits.seconds == 60.0
    with pytest.raises(ConfigError, match=r"is queued; wait for its end"):
        queue.store.retry(job.id)
    queue.store.end(again, "succeeded", 0, "")
    with pytest.raises(ConfigError, match=r"has succeeded; `mlspark submit --again`"):
        queue.store.retry(job.id)


def test_jobs_are_named_by_the_beginning_of_their_ids(queue: Queue) -> None:
    first, _ = queue.store.submit(ONE)
    queue.store.submit(submission("pass", identity="01299999aaaa"))
    assert queue.store.job("fake-0123").id == first.id
    with pytest.raises(ConfigError, match=r"fake-012: 2 jobs begin so \(fake-01299999, fake-01234567"):
        queue.store.job("fake-012")
    with pytest.raises(ConfigError, match=r"other: no such job in .*; `mlspark jobs` lists them"):
        queue.store.job("other")


def test_what_is_no_queue_is_named(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite"
    file.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(DamagedFile, match=r"queue\.sqlite: file is not a database; move it away"):
        Store(file)
    with pytest.raises(StorageError, match=r"unable to open database file; make room"):
        Store(tmp_path / "absent" / "queue.sqlite")


def test_queue_of_another_version_is_refused(queue: Queue) -> None:
    queue.store.database.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match=r"of another version of mlspark \(99, this one has 1\)"):
        Store(queue.places.database)
