"""One version in use at every moment: promote and rollback killed at random moments, and what stands then and afterwards.

    python benchmarks/promotion_kills.py [--quick] [--json FILE] [--kills N] [--seed S]

Versions whose predictions are known row by row are registered, each better than the one before, and in turn one that is
worse. `jobs/promote.py` decides on the newest, or rolls back, in a session of its own, and gets SIGKILL: at a moment drawn
from the whole undisturbed time, or between two steps of what it does once it has decided (the decision is written down, the
alias moves, the audit gets its row, the decision is taken out).

From its start until it is dead the alias of the version in use is read from MLflow's database every 2 ms or so: there must
be one, before or after the move. Then the same command runs to its end, and the alias, the version's tags and the audit are
compared with those of a run that nobody killed: one row for each decision, and nothing left to do.

20 kills are some 42 runs of the command, of 6 s of processor time each. Exits with 1 when two versions, none or a wrong one
is in use, or when a decision is recorded twice or not at all.
"""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from _killed_job import CLOCK, ROOT

from mlspark import storage
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.engines import eager
from mlspark.evaluation import predictions
from mlspark.evaluation.predictions import Predictions
from mlspark.features.encoder import Encoder
from mlspark.features.kinds.as_is import AsIs
from mlspark.models.tabular import TabularSettings
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.settings import loading
from mlspark.stages import promotion_audit
from mlspark.tasks import kinds as tasks
from mlspark.tracking import runs

_NUM_ROWS = 1000
_BEGUN, _DECIDED, _MOVED, _AUDITED, _DONE = "begun", "decided", "alias moved", "audited", "done"
_MOMENTS = (_BEGUN, _DECIDED, _MOVED, _AUDITED, _DONE)
_AIMS = (_DECIDED, CLOCK, _MOVED, _DECIDED, _AUDITED)
_WHAT = ("promoted", "promoted", "rolled_back", "kept_out", "promoted")
_RUN_SECONDS = 300.0


@dataclass
class Result:
    """Sums over all kills."""

    none_in_use: int = 0
    several_in_use: int = 0
    wrong_in_use: int = 0
    """After the re-run, or of a third version at any moment."""
    wrong_audit: int = 0
    """Decisions that the audit has not once."""
    left_undone: int = 0
    looks: int = 0
    by_moment: Counter[str] = field(default_factory=Counter)
    by_verdict: Counter[str] = field(default_factory=Counter)

    @property
    def is_right(self) -> bool:
        return not (
            self.none_in_use + self.several_in_use + self.wrong_in_use + self.wrong_audit + self.left_undone
        )  # fmt: skip


class Bench:
    """The registry and what should stand in it."""

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.random, self.result = home, random.Random(seed), Result()
        config = home / "kills.yaml"
        overrides = [f"storage.root={home}", "name=kills", "promotion.metric=accuracy", "tracking.retry_seconds=60"]
        self.settings = loading.load([str(ROOT / "conf" / "census.yaml")], overrides)
        config.write_text(self.settings.to_yaml())
        self.command = [sys.executable, "jobs/promote.py", f"--config={config}"]
        self.client = runs.connect(self.settings.tracking, str(home))
        self.database = sqlite3.connect(f"file:{home / 'mlflow' / 'mlflow.db'}?mode=ro", uri=True)
        self.num_wrong, self.decisions, self.in_use = 500, 0, 0
        self.pending = home / "promotions" / "kills.pending.json"
        self.times: Mapping[str, float] = {}
        for _ in range(2):
            self._add(is_better=True)
            self.times = self._run(self.in_use, self.newest, wait=True)
            self.in_use, self.decisions = self.newest, self.decisions + 1

    def _add(self, *, is_better: bool) -> None:
        """Register a version that is wrong on fewer rows than any before, or on nearly all."""
        self.num_wrong -= 10 * is_better
        experiment = self.client.get_experiment_by_name(self.settings.tracking.experiment)
        run_id = self.client.create_run(experiment.experiment_id).info.run_id
        target = np.arange(_NUM_ROWS) % 2
        logits = np.where(target == 1, 2.0, -2.0)
        logits[: self.num_wrong if is_better else 900] *= -1
        kept = Predictions.of(np.arange(_NUM_ROWS), target.astype(float), logits[:, None])
        predictions.write(predictions.uri_of(storage.join(str(self.home), "runs", run_id), "test"), kept)
        package = _package(run_id, kept, seed=self.random.randrange(2**31))
        self.newest = versions.register(self.client, package, run_id=run_id, name="kills", alias="challenger")

    def kill(self, aim: str, verdict: str) -> bool:
        """Kill a run, look, run to the end, compare. False when it ended before it was killed."""
        before = self.in_use
        history = [move for move in self._audit() if move.verdict == "promoted" and move.champion_after == before]
        if verdict == "rolled_back" and (not history or history[-1].champion_before is None):
            verdict = "promoted"
        options = []
        if verdict == "rolled_back":
            options, after = ["--rollback"], history[-1].champion_before
        else:
            self._add(is_better=verdict == "promoted")
            after = self.newest if verdict == "promoted" else before
        self.in_use = after
        times = self._run(before, after, *options, aim=aim)
        self.decisions += 1
        if _DONE in times:
            print(f"{verdict:<12}aimed at {aim:<15}had ended", flush=True)
            return False
        moment = max(times, key=lambda each: _MOMENTS.index(each))
        seen, is_pending = self._champions(), self.pending.exists()
        # A rollback that has been carried out and runs again would go back further.
        if not (verdict == "rolled_back" and not is_pending and len(self._audit()) == self.decisions):
            self._run(before, after, *options, wait=True)
        self.result.wrong_in_use += self._champions() != [after]
        rows = self._audit()
        last = rows[-1]
        is_right = len(rows) == self.decisions == len({row.id for row in rows})
        is_right &= (last.verdict, last.champion_before, last.champion_after) == (verdict, before, after)
        tags = self.client.get_model_version("kills", str(last.version)).tags
        self.result.wrong_audit += not (is_right and tags.get("mlspark.promotion") == verdict)
        self.result.left_undone += self.pending.exists()
        self.result.by_moment[moment] += 1
        self.result.by_verdict[verdict] += 1
        print(
            f"{verdict:<12}aimed at {aim:<15}killed after {moment:<15}version {seen} of {before}, {after}", flush=True
        )
        return True

    def _run(
        self, before: int, after: int | None, *options: str, aim: str = "", wait: bool = False
    ) -> dict[str, float]:
        """Run the command, kill it at `aim` unless `wait`, and return moment -> seconds after its start."""
        num_rows = len(self._audit())
        log = self.home / "log"
        started = time.monotonic()
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [*self.command, *options], cwd=ROOT, stdout=out, stderr=out, start_new_session=True
            )
        times = {_BEGUN: 0.0}
        deadline = self._deadline(aim)
        while process.poll() is None:
            self._look({before, after})
            now = time.monotonic() - started
            if _DECIDED not in times and self.pending.exists():
                times[_DECIDED] = now
            if _DECIDED in times and _MOVED not in times and before != after and self._champions() == [after]:
                times[_MOVED] = now
            if _DECIDED in times and _AUDITED not in times and self._num_commits() > num_rows:
                times[_AUDITED] = now
            base = 0.0 if aim == CLOCK else times.get(aim)
            if not wait and base is not None and now >= base + deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            if now > _RUN_SECONDS:
                os.killpg(process.pid, signal.SIGKILL)
                raise SystemExit(f"promote did not end in {_RUN_SECONDS:.0f} s; its log:\n{log.read_text()}")
            time.sleep(0.002)
        self._look({before, after})
        if process.returncode == 0:
            times[_DONE] = time.monotonic() - started
        elif process.returncode != -signal.SIGKILL:
            raise SystemExit(f"promote ended with {process.returncode}; its log:\n{log.read_text()}")
        return times

    def _deadline(self, aim: str) -> float:
        """Return how many seconds after the moment that is aimed at the kill comes."""
        if not aim or not self.times:
            return 0.0
        if aim == CLOCK:
            return self.random.uniform(0.0, self.times[_DONE])
        return self.random.uniform(0.0, max(0.0, self.times.get(_AUDITED, 0.0) - self.times.get(_DECIDED, 0.0)) / 3)

    def _look(self, allowed: set[int | None]) -> None:
        seen = self._champions()
        self.result.looks += 1
        self.result.none_in_use += not seen and self.decisions > 0
        self.result.several_in_use += len(seen) > 1
        self.result.wrong_in_use += len(seen) == 1 and seen[0] not in allowed

    def _champions(self) -> list[int]:
        rows = self.database.execute(
            "SELECT version FROM registered_model_aliases WHERE name = 'kills' AND alias = 'champion'"
        )
        return [int(row[0]) for row in rows]

    def _num_commits(self) -> int:
        return len(list((self.home / "tables" / "kills_promotions" / "_delta_log").glob("*.json")))

    def _audit(self) -> list[Any]:
        return promotion_audit.read(self.settings.table("promotions"), "kills")


def _package(run_id: str, kept: Predictions, *, seed: int) -> Package:
    task = tasks.from_settings({"kind": "binary", "target": "y", "classes": ["no", "yes"], "threshold": 0.5})
    encoder = Encoder(
        pipeline="kills", rows=1, inputs={"x": "float"}, features=(AsIs(name="x", column="x", ids=0),)
    )  # fmt: skip
    model, tensors = TabularSettings(hidden=(16,)), encoder.tensors(task)
    import torch

    torch.manual_seed(seed)
    weights = model.build(tensors, task.num_outputs).state_dict()
    return Package.pack(
        model=eager.pack(model, tensors, task.num_outputs, weights),
        encoder=encoder,
        contract=Contract(
            name="kills", label="y", columns=(ColumnRule(name="x", type="float"), ColumnRule(name="y", type="string"))
        ),
        task=task,
        provenance={
            "run_id": run_id, "table": "none", "table_version": 0, "git_commit": "", "git_is_changed": False,
            "metrics": {"test": kept.metrics(task, intervals=False).to_json()}, "train_seconds": 0.0, "libraries": {},
        },
    )  # fmt: skip


def main(
    quick: Annotated[bool, typer.Option("--quick", help="3 kills instead of 20.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    kills: Annotated[int | None, typer.Option(help="How many.")] = None,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Kill promote at random moments and look which version is in use."""
    started = time.monotonic()
    wanted = kills or (3 if quick else 20)
    with tempfile.TemporaryDirectory(prefix="mlspark-kills-") as name:
        bench = Bench(Path(name), seed)
        print("undisturbed: " + ", ".join(f"{key} {value:.2f} s" for key, value in bench.times.items()), flush=True)
        hit = 0
        for aim, verdict in islice(zip(cycle(_AIMS), cycle(_WHAT), strict=False), 3 * wanted):
            if hit == wanted:
                break
            hit += bench.kill(aim, verdict)
        result = bench.result
    figures = {
        "kills": hit,
        "none_in_use": result.none_in_use,
        "several_in_use": result.several_in_use,
        "wrong_in_use": result.wrong_in_use,
        "wrong_audit": result.wrong_audit,
        "left_undone": result.left_undone,
        "looks": result.looks,
        "seconds": round(time.monotonic() - started, 1),
        "by_moment": {moment: result.by_moment[moment] for moment in _MOMENTS if result.by_moment[moment]},
        "by_verdict": dict(result.by_verdict),
        "seed": seed,
    }
    print()
    for key, value in figures.items():
        print(f"{key:<20}{value}")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(int(not result.is_right or hit < wanted))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
