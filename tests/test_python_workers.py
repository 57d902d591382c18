"""Python workers are ready before there is work for them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mlspark import python_workers
from mlspark.commands import job
from mlspark.commands.job import Later

MODULE = "this"  # of the standard library; nobody imports it


def imported(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield whether the Python worker has imported the module."""
    for _ in batches:
        yield pa.RecordBatch.from_pydict({"is_there": [MODULE in sys.modules]})


def failing(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Raise in the worker."""
    raise ValueError("no version")


@pytest.mark.usefixtures("own_workers")
def test_worker_imports_ahead_and_tasks_find_it(spark: SparkSession, capfd: pytest.CaptureFixture[str]) -> None:
    python_workers.make_ready(spark, partial(python_workers.importing, [MODULE])).join()
    [row] = spark.range(0, 1, 1, 1).mapInArrow(imported, "is_there boolean").collect()
    assert row["is_there"]
    assert MODULE not in sys.modules  # here
    capfd.readouterr()


def test_module_that_is_not_there_is_no_failure() -> None:
    """Spark would write an error: where torch is not installed, as for versions of trees."""
    batch = pa.RecordBatch.from_pydict({"id": [0]})
    assert list(python_workers.importing(["no_such_module"], iter([batch]))) == [batch]


def test_failure_in_the_worker_is_left_to_the_task(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    python_workers.make_ready(spark, failing).join()
    assert raised == []


def test_one_is_made_ready_after_the_other() -> None:
    at_work: list[int] = []
    most: list[int] = []

    class Rows:
        def collect(self) -> None:
            most.append(len(at_work))
            at_work.pop()
            raise RuntimeError

    def map_in_arrow(load: Any, schema: str) -> Rows:
        at_work.append(1)
        return Rows()

    session: Any = SimpleNamespace(range=lambda *_: SimpleNamespace(mapInArrow=map_in_arrow))
    waiting = [python_workers.make_ready(session, lambda batches: batches) for _ in range(20)]
    for thread in waiting:
        thread.join()
    assert most == [1] * 20


@pytest.mark.parametrize(
    ("master", "cores", "are_here"),
    [
        ("local[2]", 2, True),
        ("local[*]", 16, True),
        ("spark://host:7077", 8, False),
        ("local-cluster[2,1,1024]", 2, False),
        ("local[1]", 1, False),
    ],
)
def test_workers_are_here_in_local_mode_with_several_cores(master: str, cores: int, are_here: bool) -> None:
    session: Any = SimpleNamespace(sparkContext=SimpleNamespace(master=master, defaultParallelism=cores))
    assert python_workers.are_here(session) == are_here


@pytest.mark.parametrize(
    ("are_here", "are_copies", "in_workers", "of_copies", "made"),
    [
        (False, True, [MODULE], ["copied"], []),
        (True, True, [], [], []),
        (True, True, [MODULE], ["copied"], [[MODULE, "copied"], []]),  # any worker has them from its start
        (True, False, [MODULE], ["copied"], [[MODULE, "copied"], [MODULE]]),
        (True, False, [], ["copied"], [["copied"]]),  # no use in a worker that is not copied
    ],
)
def test_workers_import_what_stages_need(
    monkeypatch: pytest.MonkeyPatch,
    are_here: bool,
    are_copies: bool,
    in_workers: list[str],
    of_copies: list[str],
    made: list[list[str]],
) -> None:
    asked: list[Any] = []

    def import_once(spark: Any, modules: Any) -> bool:
        asked.append(modules)
        return are_copies

    monkeypatch.setattr(python_workers, "are_here", lambda spark: are_here)
    monkeypatch.setattr(python_workers, "import_once", import_once)
    monkeypatch.setattr(python_workers, "make_ready", lambda spark, load: asked.append(*load.args))
    stages: Any = [
        SimpleNamespace(work=Later("mlspark.stages.score", "score", of_workers=in_workers)),
        SimpleNamespace(work=Later("mlspark.stages.train", "train", of_copies=lambda settings: of_copies)),
    ]
    job._begin_workers(NotImplemented, stages, NotImplemented)
    assert asked == made


ONCE = """
import sys
from functools import partial
from mlspark import python_workers, session
spark = session.start("once", dict(setting.split("=") for setting in sys.argv[1:]))
python_workers.import_once(spark, ["no_such_module", "broken_module", "fractions"])

def told(batches):
    import numpy, os, pyarrow, sys
    from mlspark import python_workers
    found = {
        "daemon": os.getppid(), "has": "fractions" in sys.modules, "fresh": python_workers.can_fork(),
        "drawn": numpy.random.rand(),
    }
    for _ in batches:
        yield pyarrow.RecordBatch.from_pylist([found])

def ask(workers):
    schema = "daemon bigint, has boolean, fresh boolean, drawn double"
    return spark.range(0, workers, 1, workers).mapInArrow(told, schema).collect()

python_workers.make_ready(spark, partial(python_workers.importing, ["fractions"])).join()
first, [again] = ask(1), ask(1)
rows = ask(2)
print("told:", len({row.daemon for row in rows}), all(row.has for row in rows), len({row.drawn for row in rows}))
print("may be copied:", first[0].fresh, again.fresh)
python_workers.import_none(spark)
[none] = ask(1)
print("by the stock daemon:", none.has, none.fresh)
"""
BROKEN = """
import os
print("said by Python")
os.write(1, b"said by what it loads")
raise OSError("libbroken.so: cannot open shared object file")
"""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ([], "told: 1 True 2\nmay be copied: True False\nby the stock daemon: False False\n"),
        (["spark.python.daemon.module=pyspark.daemon"], "told: 1 False 2\nmay be copied: False False\n"),
        (["spark.submit.pyFiles=sent.zip"], "told: 1 False 2\nmay be copied: False False\n"),
    ],
)
def test_workers_are_copies_of_one_that_has_imported(tmp_path: Path, settings: list[str], told: str) -> None:
    """In a process of its own: the tests' session has workers already. Spark must not read what a module prints."""
    (tmp_path / "broken_module.py").write_text(BROKEN)
    ZipFile(tmp_path / "sent.zip", "w").close()
    command = [sys.executable, "-c", ONCE, *(setting.replace("=sent", f"={tmp_path}/sent") for setting in settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
    assert told in done.stdout, done.stderr
