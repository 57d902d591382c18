"""What `mlspark plan` says of 2 and 4 ranks, from runs of one, beside what they take.

    python benchmarks/scaling.py [--quick] [--json FILE] [--rows N] [--repeats N]

Made-up census rows, the network of conf/census.yaml, batches of 512 and 4,096 rows, 2 epochs, one thread a rank, gloo on
loopback, local[4]. The cases take turns; of each the least seconds of its repeats count, as other processes only ever add
some. The seconds are those in training (`train_seconds`): neither the start of Spark and ranks nor the last evaluation.

Speed and fixed seconds of a step are fitted to the runs of one rank; parameters, rows and row groups are looked up, as
`mlspark plan` does; its network and latency are those that it assumes. More ranks than cores share them.

    error_2, error_4   predicted over measured seconds, less 1, of 2 and of 4 ranks: of the batch where it is off by more
    fitted_error_4     the same of 4 ranks, with the latency that makes 2 ranks right for the small batch
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from _figures import tell

from mlspark import session
from mlspark.datasets import census_like
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages.plan import Given, plan
from mlspark.stages.prepare import prepare
from mlspark.stages.scaling import Speed
from mlspark.stages.train import train

ROOT = Path(__file__).resolve().parents[1]
RANKS, BATCHES, EPOCHS = (1, 2, 4), (512, 4096), 2


def measure(settings: Any, *, repeats: int) -> list[dict[str, Any]]:
    """Return the runs: ranks, batch, rows, steps, seconds in training, load of the machine when they began."""
    spark = session.start("scaling", {"spark.master": f"local[{RANKS[-1]}]"})
    try:
        prepare(spark, settings(1, BATCHES[0], 0))
        runs = []
        for repeat in range(repeats):
            for ranks in RANKS:
                for batch in BATCHES:
                    load, began = os.getloadavg()[0], time.monotonic()
                    report = train(spark, settings(ranks, batch, repeat))
                    assert not report.get("already_done"), report
                    runs.append({"ranks": ranks, "batch": batch, "rows": report["rows_per_epoch"], "load": load,
                                 "steps": report["steps"], "seconds": report["train_seconds"],
                                 "job_seconds": time.monotonic() - began})  # fmt: skip
                    print(json.dumps(runs[-1]), flush=True)
    finally:
        spark.stop()
    return runs


def predicted(settings: Settings, speed: Speed, ranks: int, *, latency_seconds: float = 50e-6) -> tuple[float, int]:
    """Return the seconds in training that `mlspark plan` says, and the parameters that it counts."""
    given = Given(
        rows_per_second=speed.rows_per_second,
        step_seconds=speed.step_seconds,
        ranks_per_machine=RANKS[-1],
        latency_seconds=latency_seconds,
        start_seconds=0.0,
    )
    found = plan(settings, given, ranks=[ranks])
    return found["ranks"][0]["hours"] * 3600, found["speed"]["parameters"]


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Little data, once.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json")] = None,
    rows: Annotated[int, typer.Option(help="Census-like rows.")] = 100_000,
    repeats: int = 2,
) -> None:
    """Run, predict, compare."""
    rows, repeats = (4_000, 1) if quick else (rows, repeats)
    with tempfile.TemporaryDirectory() as folder:
        census_like.write(Path(folder), num_train=rows, num_test=500, seed=1, bad_rows=0)

        def settings(ranks: int, batch: int, seed: int) -> Settings:
            return loading.load(
                [str(ROOT / "conf" / "census.yaml")],
                [
                    f"storage.root={folder}/home", f"sources.root={folder}", f"contract={ROOT / 'schemas' / 'census.json'}",
                    f"training.num_processes={ranks}", f"training.global_batch_size={batch}", f"training.seed={seed}",
                    f"training.epochs={EPOCHS}", "training.recovery.resume=false",
                ],
            )  # fmt: skip

        runs = measure(settings, repeats=repeats)
        least = {
            (ranks, batch): min(
                (r for r in runs if (r["ranks"], r["batch"]) == (ranks, batch)), key=lambda r: r["seconds"]
            )
            for ranks in RANKS
            for batch in BATCHES
        }
        alone = [least[1, batch] for batch in BATCHES]
        speed = Speed.fitted([(EPOCHS * run["rows"], run["steps"], run["seconds"]) for run in alone], 0)
        errors: dict[int, dict[int, float]] = {ranks: {} for ranks in RANKS[1:]}
        for ranks in RANKS[1:]:
            for batch in BATCHES:
                seconds, parameters = predicted(settings(ranks, batch, 0), speed, ranks)
                errors[ranks][batch] = seconds / least[ranks, batch]["seconds"] - 1
        # A step of two ranks waits for two messages.
        small = least[2, BATCHES[0]]
        without, _ = predicted(settings(2, BATCHES[0], 0), speed, 2, latency_seconds=0.0)
        latency = max(0.0, (small["seconds"] - without) / small["steps"] / 2)
        fitted = {
            batch: predicted(settings(4, batch, 0), speed, 4, latency_seconds=latency)[0] / least[4, batch]["seconds"]
            - 1
            for batch in BATCHES
        }
    tell(
        {
            "rows_per_second": speed.rows_per_second,
            "step_ms": 1000 * speed.step_seconds,
            "parameters": parameters,
            "error_2": max(errors[2].values(), key=abs),
            "error_4": max(errors[4].values(), key=abs),
            "latency_ms": 1000 * latency,
            "fitted_error_4": max(fitted.values(), key=abs),
            "cores": os.cpu_count(),
        },
        json_file,
        {"errors": errors, "fitted_errors_4": fitted, "runs": runs},
    )


if __name__ == "__main__":
    typer.run(main)
