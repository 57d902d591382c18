"""Petastorm is imported on pyarrow and numpy of today, and leaves no trace of how."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlspark.streaming.read_ahead import ReadOptions
from mlspark.streaming.reader import PlannedReader, Workers

from .conftest import write_snapshot
from .in_workers import stand_ins

ROOT = Path(__file__).parents[2]

SCRIPT = """
import importlib, json, pickle, sys
import numpy as np

NAMES = ("unicode_", "string_")

def removed():
    missing = []
    for module in ("pyarrow.filesystem", "pyarrow.hdfs"):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            missing.append(module)
    return missing + [name for name in NAMES if not hasattr(np, name)]

before = removed()
from mlspark.streaming.read_ahead import ReadOptions
from mlspark.streaming.reader import PlannedReader, Workers
from mlspark.streaming.snapshot import Snapshot
after = removed()

from petastorm.transform import TransformSpec  # what a person imports and sends of Petastorm after that
from petastorm.unischema import Unischema, UnischemaField
sent = (TransformSpec(removed_fields=["age"]), Unischema("ids", [UnischemaField("id", np.int64, (), None, False)]))
transform, schema = pickle.loads(pickle.dumps(sent))
sums = []
for pool in ("thread", "process"):
    with Workers(["row_id"], lambda table: sum(table["row_id"].to_pylist()), options=ReadOptions(2, pool)) as workers:
        with PlannedReader(workers, Snapshot.load(sys.argv[1]).row_group_items()) as reader:
            sums.append(sum(reader))
print(json.dumps([before, after, removed(), transform.removed_fields, list(schema.fields), sums]))
"""


def test_import_leaves_no_stand_in_and_petastorm_works_after_it(tmp_path):
    write_snapshot(tmp_path, [[3] * 40]).save(str(tmp_path / "snapshot.json"))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "snapshot.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    before, after, at_the_end, removed_fields, fields, sums = json.loads(done.stdout.splitlines()[-1])
    assert {"pyarrow.filesystem", "pyarrow.hdfs"} <= set(before)
    assert before == after == at_the_end
    assert (removed_fields, fields) == (["age"], ["id"])
    assert sums == [sum(range(120))] * 2


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_workers_see_no_stand_in(tmp_path, pool):
    snapshot = write_snapshot(tmp_path, [[3] * 4])
    numpy_has = [name for name in ("unicode_", "string_") if name in np.__dict__]
    with (
        Workers(["row_id"], stand_ins, options=ReadOptions(2, pool)) as workers,
        PlannedReader(workers, snapshot.row_group_items()) as reader,
    ):
        assert list(reader) == [numpy_has] * 4
