"""What benchmarks/streaming.py measures in processes of their own: plans, memory, ranks, and torchdata's nodes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from _own_environment import python_with


class Nodes:
    """What people write with torchdata's nodes, in an environment of its own, kept for the next time."""

    def __init__(self, folder: Path, batch: int, window_groups: int) -> None:
        """Start it.

        Raises:
            CalledProcessError: torchdata cannot be installed.
        """
        pins = [
            f"torch=={torch.__version__.partition('+')[0]}",
            f"numpy=={np.__version__}",
            f"pyarrow=={pa.__version__}",
        ]
        python = python_with("torchdata-nodes", ["torchdata==0.11.0", *pins])
        script = Path(__file__).with_name("_torchdata_nodes.py")
        command = [python, str(script), str(folder), str(batch), str(window_groups)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={})
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def __call__(self, how: str) -> tuple[int, float]:
        """Return the rows of an epoch, `plain` or `shuffled`, and its processor seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(how, file=self._process.stdin, flush=True)
        rows, _, cpu_seconds = json.loads(self._process.stdout.readline())
        return rows, cpu_seconds

    def close(self) -> None:
        self._process.communicate()


def in_a_process(code: str, *arguments: object) -> Any:
    """Return what `code` printed as JSON, run by itself."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


PLAN = """
import json, time, numpy as np
from mlspark.streaming.plan import Plan, RankPlan
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
sizes, before = np.full(2_000_000, 50_000), peak()
started = time.perf_counter()
plan = Plan(sizes, batch_size=2**20, seed=1, epoch=1, lanes=1024, shuffle_window_rows=400_000 * 1024)
share = RankPlan(plan, 1023, 1024)
segments, order = plan.segments(share.lanes), share.block_order(0)
print(json.dumps([time.perf_counter() - started, peak() - before + sizes.nbytes / 2**20]))
"""
MEMORY = """
import json, sys
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream
def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
snapshot, columns, used = Snapshot.load(sys.argv[1]), json.loads(sys.argv[3]), []
with Stream(snapshot, columns=columns, batch_size=1024, shuffle_window_rows=400_000) as batches:
    for _ in range(int(sys.argv[2])):
        for batch in batches: pass
        used.append(resident("VmRSS"))
print(json.dumps({"rss": used, "peak": resident("VmHWM")}))
"""
PEAK = """
import gc, json, sys
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream
def resident(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) / 1024
columns, read_ahead = json.loads(sys.argv[3]), int(sys.argv[4])
for name in sys.argv[1:3]:  # the first makes what a process has once
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the peak from here on
    before = resident("VmRSS")
    with Stream(Snapshot.load(name), columns=columns, batch_size=1024, read_ahead_bytes=read_ahead) as batches:
        for batch in batches: pass
print(json.dumps((resident("VmHWM") - before) * 2**20))
"""
_RANK = """
import json, sys, time
from mlspark.streaming.snapshot import Snapshot
from mlspark.streaming.stream import Stream
snapshot, rank, columns = Snapshot.load(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
batches = Stream(snapshot, columns=columns, batch_size=1024, shuffle_window_rows=400_000, rank=rank,
                 world_size=int(sys.argv[4]), workers=1)
next(iter(batches))
print("ready", flush=True); sys.stdin.readline()
started = time.perf_counter()
with batches:
    batches.load_state_dict(batches.state_dict() | {"step": 0})
    for batch in batches: pass
print(time.perf_counter() - started)
"""


def at_once(snapshot_file: Path, columns: str, world_size: int) -> float:
    """Return the seconds of the slowest of some ranks that start together, one reader thread each."""
    command = [sys.executable, "-c", _RANK, str(snapshot_file)]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), columns, str(world_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write("\n")
        rank.stdin.flush()
    return max(float(rank.communicate()[0]) for rank in ranks)
