"""Rows a second of steps on a GPU, ours and bare, computed one by one and as CUDA graphs. No Spark.

    python benchmarks/gpu_steps.py [--quick] [--json FILE] [--rows N] [--rounds N] [--batch N ...]

The network of conf/census.yaml on 14 columns (6 dense, 8 categorical), one rank, batches of 8,192 and of 65,536 rows. The
cases take turns in each round:

    ours_eager      `mlspark.training.loop.fit` on rows streamed from Parquet, training.graph=off; epochs but the first
    ours_captured   the same with training.graph=auto
    bare_eager      a loop of one's own on tensors that lie on the GPU: AdamW, one_cycle
    bare_compile    the same with torch.compile
    bare_captured   the same as one CUDA graph, optimizer included, with a constant learning rate

Figures are medians of the rounds, rows a second: CASE_BATCH; over_bare_BATCH, ours_captured / bare_eager of a round (aim:
at least 2.5 at 8,192); waits_BATCH, the share of its time that ours_captured waited for data; equal_weights_BATCH, whether
both of ours ended with the same bits. Without a GPU the eager ones run alone, on one thread.
"""

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from _encoded_table import CARDINALITIES, NUMBERS, TASK, TENSORS, write_table
from _figures import paired, tell
from torch import nn
from torch.nn import functional

from mlspark import storage
from mlspark.models import build
from mlspark.models.tabular import TabularSettings
from mlspark.streaming.settings import StreamingSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.training.events import EpochEnded, Event
from mlspark.training.loop import fit
from mlspark.training.settings import TrainingSettings
from mlspark.training.spec import TrainingSpec

EPOCHS, RATE, WARM_STEPS = 3, 2e-3, 5
HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
OURS, BARE = ("ours_eager", "ours_captured"), ("bare_eager", "bare_compile", "bare_captured")


def ours(snapshot: Snapshot, run: Path, batch: int, graph: str) -> dict[str, Any]:
    """Return rows a second of a run of ours, its wait for data, and the digest of its weights."""
    spec = TrainingSpec(
        run_uri=str(run),
        tensors=TENSORS,
        task=TASK,
        model=TabularSettings(),
        training=TrainingSettings(
            num_processes=1, use_gpu=HAS_GPU, epochs=EPOCHS, global_batch_size=batch, graph=graph
        ),
        streaming=StreamingSettings(remainder="drop", workers=min(8, os.cpu_count() or 1)),
    )
    snapshot.save(spec.snapshot_uri)
    epochs: list[EpochEnded] = []

    def note(event: Event) -> None:
        if isinstance(event, EpochEnded):
            epochs.append(event)

    dist.init_process_group("nccl" if HAS_GPU else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        fit(spec, on_event=note)
    finally:
        dist.destroy_process_group()
    torch.use_deterministic_algorithms(False)  # bare loops are as most write them
    seconds = sum(epoch.seconds for epoch in epochs[1:])
    return {
        "speed": sum(epoch.rows for epoch in epochs[1:]) / seconds,
        "wait": sum(epoch.wait_seconds for epoch in epochs[1:]) / seconds,
        "weights": storage.read_json(storage.join(spec.best_uri, "manifest.json"))["files"]["weights"]["sha256"],
    }


class Bare:
    """A training loop of one's own on rows that lie where it computes."""

    def __init__(self, num_rows: int, batch: int) -> None:
        torch.manual_seed(0)
        self.batch = batch
        self.dense = torch.randn(num_rows, len(NUMBERS), device=DEVICE)
        self.ids = torch.stack([torch.randint(0, of, (num_rows,), device=DEVICE) for of in CARDINALITIES], dim=1)
        self.label = (torch.rand(num_rows, device=DEVICE) < 0.3).float()
        self.order = torch.randperm(num_rows, device=DEVICE)
        self.place = 0

    def rows(self) -> torch.Tensor:
        """Return the places of the next batch's rows."""
        self.place = 0 if self.place + self.batch > len(self.order) else self.place
        self.place += self.batch
        return self.order[self.place - self.batch : self.place]

    def loss(self, model: Callable[..., torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        logits = model(dense=self.dense[rows], ids=self.ids[rows])[:, 0]
        return functional.binary_cross_entropy_with_logits(logits, self.label[rows])

    def speed(self, case: str, steps: int) -> float:
        """Return rows a second of a case."""
        torch.manual_seed(0)
        model = build(TabularSettings(), TENSORS, 1).to(DEVICE)
        take = self.captured(model) if case == "bare_captured" else self.eager(model, steps, case == "bare_compile")
        for _ in range(WARM_STEPS):
            take()
        if HAS_GPU:
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(steps):
            take()
        if HAS_GPU:
            torch.cuda.synchronize()
        return steps * self.batch / (time.perf_counter() - started)

    def eager(self, model: nn.Module, steps: int, is_compiled: bool) -> Callable[[], None]:
        """Return a step as most write it."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps + WARM_STEPS + 1)
        forward = torch.compile(model) if is_compiled else model

        def take() -> None:
            self.loss(forward, self.rows()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

        return take

    def captured(self, model: nn.Module) -> Callable[[], None]:
        """Return a whole step as one CUDA graph."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-2, fused=True, capturable=True)
        rows = self.rows().clone()

        def whole() -> None:
            optimizer.zero_grad()
            self.loss(model, rows).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                whole()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            whole()

        def take() -> None:
            rows.copy_(self.rows())
            graph.replay()

        return take


def measure(snapshot: Snapshot, folder: Path, batch: int, rounds: int) -> dict[str, Any]:
    """Return the figures of a batch size."""
    cases = [case for case in (*OURS, *BARE) if HAS_GPU or case.endswith("eager")]
    for case in (case for case in (*OURS, *BARE) if case not in cases):
        print(f"{case} of {batch} rows: skipped, there is no GPU")
    speeds: dict[str, list[float]] = {case: [] for case in cases}
    steps, bare, runs = snapshot.num_rows // batch, Bare(snapshot.num_rows, batch), dict[str, dict[str, Any]]()
    for number in range(rounds):
        for place in range(len(cases)):
            case = cases[(number + place) % len(cases)]
            if case in OURS:
                run = folder / f"{case}-{batch}-{number}"
                runs[case] = ours(snapshot, run, batch, "auto" if case == "ours_captured" else "off")
                speeds[case].append(runs[case]["speed"])
            else:
                speeds[case].append(bare.speed(case, steps))
            print(f"round {number + 1}, {batch} rows: {case:<14} {speeds[case][-1] / 1e6:6.3f} M rows/s", flush=True)
    found: dict[str, Any] = {f"{case}_{batch}": round(statistics.median(of)) for case, of in speeds.items()}
    if HAS_GPU:
        found[f"over_bare_{batch}"], _ = paired(speeds["ours_captured"], speeds["bare_eager"])
        found[f"waits_{batch}"] = runs["ours_captured"]["wait"]
        found[f"equal_weights_{batch}"] = runs["ours_captured"]["weights"] == runs["ours_eager"]["weights"]
    return found


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description="Rows a second of steps on a GPU, ours and bare.")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, one round, batches of 256 and 1,024 rows.")
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--rows", type=int, help="Rows; 4,000,000 unless --quick.")
    parser.add_argument("--rounds", type=int, help="Runs of each case; 3 unless --quick.")
    parser.add_argument("--batch", type=int, action="append", help="Rows of a batch; 8,192 and 65,536 unless --quick.")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("mlspark.training.graph").setLevel(logging.DEBUG)
    torch.set_num_threads(1)
    num_rows = options.rows or (20_000 if options.quick else 4_000_000)
    batches = options.batch or ([256, 1024] if options.quick else [8192, 65_536])
    figures: dict[str, Any] = {"device": torch.cuda.get_device_name() if HAS_GPU else "cpu", "rows": num_rows}
    with tempfile.TemporaryDirectory(prefix="mlspark-gpu-steps-") as name:
        snapshot = write_table(Path(name) / "table", num_rows)
        for batch in batches:
            rounds = options.rounds or (1 if options.quick else 3)
            figures |= measure(snapshot, Path(name), batch, rounds)
    tell(figures, options.json)


if __name__ == "__main__":
    main()
