"""One rank of a training run: epochs, validation, checkpoints, evaluation. No Spark, no MLflow.

The optimised function does not depend on the number of ranks: each step's loss is the sum over the real rows of the
global batch divided by their number, and the global batches are the same for any number of ranks. What differs is the
order of float sums, and the dropout masks, which each rank draws from its own generator.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mlspark.errors import TrainingFailed
from mlspark.models.build import build
from mlspark.streaming.batches import Batch, Batches, open_batches
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint
from mlspark.training.events import EventLog
from mlspark.training.metrics import BinaryMetrics, binary_metrics
from mlspark.training.spec import TrainingSpec


@dataclass
class RankResult:
    """What one rank did. Lists have one entry per epoch; metrics stand in rank 0's result only."""

    rank: int
    world_size: int
    host: str
    steps: int = 0
    rows_seen: list[int] = field(default_factory=list)
    """Real training rows, padding not counted."""
    row_id_sums: list[int] = field(default_factory=list)
    """Sum of their row ids, modulo 2^64: over all ranks equal in every epoch when each row is seen once."""
    wait_seconds: float = 0.0
    """Part of `train_seconds` spent waiting for data."""
    train_seconds: float = 0.0
    """Time in training epochs, without validation and checkpoints."""
    best_epoch: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    """Split (validation, test) -> BinaryMetrics of the best checkpoint as JSON."""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def fit(spec: TrainingSpec) -> RankResult:
    """Train as rank `dist.get_rank()` of the initialised process group and return what this rank did.

    Every rank calls it. Reads the snapshot's partitions split=train, validation, test. Keeps two checkpoints: last
    (weights, optimizer, schedule) and best, of the epoch with the lowest validation log loss, or of the last epoch when
    there are no validation rows. Then reads the best weights back and evaluates them on the test rows, if any.
    The same spec and number of ranks give the same numbers bit for bit.

    Raises:
        DatasetError: the snapshot does not fit the ranks or the batch, or a file cannot be read.
        TrainingFailed: no training rows; the loss is not finite; an evaluation lost rows.
    """
    snapshot = Snapshot.load(spec.snapshot_uri)
    splits = {name: snapshot.where(split=name) for name in ("train", "validation", "test")}
    if not splits["train"].num_rows:
        raise TrainingFailed(
            f"{snapshot.table} version {snapshot.version}: no rows with split=train; run prepare again"
        )
    return _Trainer(spec, splits).run()


class _Trainer:
    """The state of one rank while it trains."""

    def __init__(self, spec: TrainingSpec, splits: Mapping[str, Snapshot]) -> None:
        self.spec, self.settings, self.splits = spec, spec.training, splits
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if self.settings.use_gpu else torch.device("cpu")
        )
        _make_deterministic(self.settings.threads_per_rank)
        torch.manual_seed(self.settings.seed)  # the same initial weights on every rank
        self.model = build(spec.model, spec.layout).to(self.device)
        torch.manual_seed((self.settings.seed << 20) + self.rank + 1)  # but dropout masks of its own
        self.ddp = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )
        self.schedule: LRScheduler | None = None  # needs the steps of an epoch
        self.events = EventLog(spec.events_uri)
        self.result = RankResult(self.rank, self.world_size, socket.gethostname())
        self.best_log_loss = float("inf")

    def run(self) -> RankResult:
        for epoch in range(1, self.settings.epochs + 1):
            train = self._train(epoch)
            validation = self._evaluate("validation")
            if self.rank == 0:
                self._close_epoch(epoch, train, validation)
        self._evaluate_best()
        return self.result

    def _train(self, epoch: int) -> dict[str, Any]:
        """Take the steps of one epoch; returns its figures, those of all ranks where they can be summed."""
        started = time.perf_counter()
        settings, num_rows = self.settings, self.splits["train"].num_rows
        self.ddp.train()  # type: ignore[no-untyped-call]
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        rows_seen = torch.zeros((), dtype=torch.int64, device=self.device)
        row_id_sum = torch.zeros((), dtype=torch.int64, device=self.device)  # wraps around
        with self._open("train", epoch=epoch - 1, shuffle=True) as batches:
            if self.schedule is None:
                total_steps = settings.epochs * batches.num_steps
                self.schedule = OneCycleLR(self.optimizer, settings.learning_rate, total_steps=total_steps)
            for step, on_host in enumerate(batches):
                batch = self._to_device(on_host)
                is_real = ~batch.is_padding
                logits = self.ddp(batch.dense, batch.categorical)  # (B,)
                step_loss_sum = functional.binary_cross_entropy_with_logits(
                    logits, batch.label, weight=is_real.to(torch.float32), reduction="sum"
                )
                # The plan fills every global batch but the last. DDP takes the mean over ranks, hence world_size.
                rows_in_step = min(settings.global_batch_size, num_rows - step * settings.global_batch_size)
                (step_loss_sum * (self.world_size / rows_in_step)).backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                self.schedule.step()
                self.optimizer.zero_grad()
                # Sums stay tensors: reading one out would make every step wait for the device.
                loss_sum += step_loss_sum.detach()
                rows_seen += is_real.sum()
                row_id_sum += (batch.row_id * is_real).sum()
            self.result.steps += batches.num_steps
            wait_seconds = batches.wait_seconds
        totals = torch.stack([loss_sum, rows_seen.to(torch.float64)])
        dist.all_reduce(totals)
        total_loss, total_rows = totals.tolist()
        seconds = time.perf_counter() - started
        if not total_loss < float("inf"):
            raise TrainingFailed(
                f"epoch {epoch}: the training loss is not finite; lower training.learning_rate "
                f"(now {settings.learning_rate}) and look for extreme values in the features"
            )
        self.result.rows_seen.append(int(rows_seen))
        self.result.row_id_sums.append(int(row_id_sum))
        self.result.wait_seconds += wait_seconds
        self.result.train_seconds += seconds
        return {
            "train_loss": total_loss / total_rows,
            "rows": int(total_rows),
            "rows_per_second": total_rows / seconds,
            "data_wait_fraction": wait_seconds / seconds,
            "seconds": seconds,
        }

    def _evaluate(self, split: str) -> BinaryMetrics | None:
        """Return the metrics of the current weights over all rows of a split; None without rows, and but on rank 0."""
        if not self.splits[split].num_rows:
            return None
        self.ddp.eval()
        parts = []
        with self._open(split, epoch=0, shuffle=False) as batches, torch.inference_mode():
            for on_host in batches:
                batch = self._to_device(on_host)
                logits = self.model(batch.dense, batch.categorical)
                parts.append(torch.stack([logits, batch.label, batch.is_padding.to(torch.float32)]))
        mine = torch.cat(parts, dim=1)  # (3, steps * B): as long on every rank
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)] if self.rank == 0 else None
        dist.gather(mine, everyone)
        if everyone is None:
            return None
        logits, label, is_padding = torch.cat(everyone, dim=1).cpu()
        is_real = is_padding == 0
        if int(is_real.sum()) != self.splits[split].num_rows or not bool(logits.isfinite().all()):
            raise TrainingFailed(
                f"evaluation on split={split} gave {int(is_real.sum())} rows of {self.splits[split].num_rows}, "
                f"{int(logits.isfinite().sum())} of {len(logits)} logits finite; lower training.learning_rate "
                f"or prepare the table again"
            )
        return binary_metrics(logits[is_real].numpy(), label[is_real].numpy())

    def _close_epoch(self, epoch: int, train: Mapping[str, Any], validation: BinaryMetrics | None) -> None:
        """Write checkpoints and the epoch's event: rank 0."""
        assert self.schedule is not None
        is_best = validation is None or validation.log_loss < self.best_log_loss
        measured = {} if validation is None else {"validation": validation.to_json()}
        about = {"epoch": epoch, "step": self.result.steps, "metrics": measured}
        weights = self.model.state_dict()
        state = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        checkpoint.save(self.spec.checkpoint_uri("last"), weights=weights, about=about, state=state)
        if is_best:
            checkpoint.save(self.spec.checkpoint_uri("best"), weights=weights, about=about)
            self.result.best_epoch, self.result.metrics = epoch, measured
            self.best_log_loss = self.best_log_loss if validation is None else validation.log_loss
        event = {
            "event": "epoch",
            "epoch": epoch,
            "epochs": self.settings.epochs,
            "step": self.result.steps,
            "learning_rate": self.schedule.get_last_lr()[0],
            "is_best": is_best,
            **train,
        }
        if validation is not None:
            event |= {
                "validation_log_loss": validation.log_loss,
                "validation_accuracy": validation.accuracy,
                "validation_roc_auc": validation.roc_auc,
            }
        self.events.write(event)

    def _evaluate_best(self) -> None:
        """Read the best checkpoint on every rank and evaluate it on the test rows."""
        dist.barrier()  # rank 0 has written it
        self.model.load_state_dict(checkpoint.load(self.spec.checkpoint_uri("best")).weights)
        test = self._evaluate("test")
        if test is not None:
            self.result.metrics["test"] = test.to_json()
            self.events.write({"event": "evaluation", "split": "test", "step": self.result.steps, **test.to_json()})

    def _open(self, split: str, *, epoch: int, shuffle: bool) -> Batches[Batch]:
        streaming = self.spec.streaming
        if split != "train":
            streaming = streaming.model_copy(update={"remainder": "pad"})  # an evaluation leaves no row out
        return open_batches(
            self.splits[split],
            self.spec.layout,
            streaming,
            rank=self.rank,
            world_size=self.world_size,
            global_batch_size=self.settings.global_batch_size,
            seed=self.settings.seed,
            epoch=epoch,
            shuffle=shuffle,
        )

    def _to_device(self, batch: Batch) -> Batch:
        tensors = (batch.dense, batch.categorical, batch.label, batch.row_id, batch.is_padding)
        return Batch(*(tensor.to(self.device, non_blocking=True) for tensor in tensors))


def _make_deterministic(threads: int) -> None:
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for on GPUs
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # only costs time
