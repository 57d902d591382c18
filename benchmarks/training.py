"""What our way of training costs beside bare torchrun: the time of a step, the launch, the wait for data.

    python benchmarks/training.py [--quick] [--json FILE] [--rows N] [--rounds N]

The network of conf/census.yaml on 14 columns (6 dense, 8 categorical), global batch 4,096, 2 ranks of one thread on gloo,
local[2]. The cases take turns in each round, and each is a run of its own:

    bare     `_bare_training.py`: torchrun, DDP, AdamW, every rank's tensors in memory
    stream   mlspark.training.launcher, rows streamed from Parquet in each epoch
    memory   the same with training.memory_bytes: a rank's rows are read once

    step_ratio         seconds of a step of stream / of bare, the first epoch of each left out, median of the rounds
                       Aim: at most 1.05
    memory_step_ratio  the same of memory
    launch_seconds     from the call of `launch` to the first step: executors checked, ranks started, imports
    bare_launch_seconds  the same from the start of torchrun
    data_wait          share of the training time that ranks of stream waited for data. Aim: at most 0.03
    rows_per_second    of stream, both ranks together
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from _encoded_table import TASK, TENSORS, write_table
from _figures import paired, tell

from mlspark import session
from mlspark.models.tabular import TabularSettings
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.training.events import Begun, Event
from mlspark.training.launcher import launch
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

ROOT = Path(__file__).resolve().parents[1]
RANKS, BATCH, EPOCHS = 2, 4096, 4


def bare(table: Path) -> dict[str, float]:
    """Return figures of a run by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    command += [str(ROOT / "benchmarks" / "_bare_training.py"), str(table), str(BATCH), str(EPOCHS)]
    started = time.time()
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    step = statistics.median(found["seconds"][1:]) / found["steps"]
    return {"launch": found["began"] - started, "step": step}


def ours(spark: Any, snapshot: Snapshot, run: Path, *, memory_bytes: int) -> dict[str, float]:
    """Return figures of a run by the launcher."""
    spec = TrainingSpec(
        run_uri=str(run),
        tensors=TENSORS,
        task=TASK,
        model=TabularSettings(dropout=0.1),
        training=TrainingSettings(
            num_processes=RANKS, epochs=EPOCHS, global_batch_size=BATCH, memory_bytes=memory_bytes
        ),
        streaming=StreamingSettings(remainder="drop"),
    )
    snapshot.save(spec.snapshot_uri)
    began: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, Begun):
            began.append(time.time())

    started = time.time()
    outcome = launch(spark, spec, note)
    steps = outcome.steps / EPOCHS
    epochs = outcome.epochs[1:]
    step = statistics.median(epoch.seconds for epoch in epochs) / steps
    wait = sum(epoch.wait_seconds for epoch in epochs) / sum(epoch.seconds for epoch in epochs)
    return {"launch": began[0] - started, "step": step, "wait": wait, "rows_per_second": BATCH / step}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="100,000 rows, one round.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows; 800,000 unless --quick.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Runs of each case; 3 unless --quick.")] = None,
) -> None:
    """Measure what training costs beside bare torchrun."""
    num_rows, num_rounds = rows or (100_000 if quick else 800_000), rounds or (1 if quick else 3)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    runs: dict[str, list[dict[str, float]]] = {"bare": [], "stream": [], "memory": []}
    with tempfile.TemporaryDirectory(prefix="mlspark-training-") as name:
        table = Path(name) / "table"
        snapshot = write_table(table, num_rows)
        spark = session.start("training", {"spark.master": f"local[{RANKS}]"})
        spark.sparkContext.setLogLevel("ERROR")
        try:
            for number in range(num_rounds):
                cases = {
                    "bare": lambda: bare(table),
                    "stream": lambda: ours(spark, snapshot, Path(name) / f"stream{number}", memory_bytes=0),  # noqa: B023
                    "memory": lambda: ours(spark, snapshot, Path(name) / f"memory{number}", memory_bytes=2**32),  # noqa: B023
                }
                names = list(cases)
                for case in names[number % 3 :] + names[: number % 3]:
                    runs[case].append(cases[case]())
                    step, launched = runs[case][-1]["step"] * 1e3, runs[case][-1]["launch"]
                    print(f"round {number + 1}: {case:<8}step {step:.2f} ms, launch {launched:.1f} s", flush=True)
        finally:
            spark.stop()

    def median(case: str, what: str) -> float:
        return statistics.median(each[what] for each in runs[case])

    steps = {case: [each["step"] for each in found] for case, found in runs.items()}
    step_ratio, of_stream = paired(steps["stream"], steps["bare"])
    memory_step_ratio, of_memory = paired(steps["memory"], steps["bare"])
    figures = {
        "step_ratio": round(step_ratio, 3),
        "memory_step_ratio": round(memory_step_ratio, 3),
        "launch_seconds": round(median("stream", "launch"), 2),
        "bare_launch_seconds": round(median("bare", "launch"), 2),
        "data_wait": round(median("stream", "wait"), 4),
        "memory_data_wait": round(median("memory", "wait"), 4),
        "rows_per_second": round(median("stream", "rows_per_second")),
        "bare_step_ms": round(median("bare", "step") * 1e3, 2),
        "rows": num_rows,
        "rounds": num_rounds,
    }
    spread = {case: {what: sorted(each[what] for each in found) for what in found[0]} for case, found in runs.items()}
    print(f"\n{'':<24}{'min':>12}{'median':>12}{'max':>12}")
    for case, values in spread.items():
        for what, each in values.items():
            print(f"{case + ' ' + what:<24}{each[0]:>12.4f}{statistics.median(each):>12.4f}{each[-1]:>12.4f}")
    print()
    ranges = {"step_ratio": of_stream, "memory_step_ratio": of_memory}
    tell(figures, json_file, {"ranges": ranges, "spread": spread})


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
