"""One rank of a training run: epochs, validation, checkpoints, evaluation. No Spark, no MLflow.

The optimised function does not depend on the number of ranks: each step's loss is the sum over the real rows of the
global batch divided by their number, and the global batches are the same for any number of ranks. What differs is the
order of float sums, and the dropout masks, which each rank draws for itself.

A run that is ended at any step and goes on from a checkpoint ends with the same bits, on as many ranks. For that, nothing
that matters is anywhere but in the checkpoint: random numbers are drawn anew in each step, from (seed, rank, step), so the
state of a generator is never needed, and any moment between two steps can be saved by rank 0 alone.
"""

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mlspark.errors import ConfigError, TrainingFailed
from mlspark.models.build import build, called, imported
from mlspark.streaming.batches import Batch, Batches, Share, keep_share, open_batches
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import checkpoint, optimization, sharding
from mlspark.training.metrics import BinaryMetrics, binary_metrics
from mlspark.training.profile import StepProfiler
from mlspark.training.spec import TrainingSpec

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Event = Mapping[str, Any]

_LOSS_STEPS = 2**20  # losses are summed as whole numbers of these, exactly, so that no order of sums is seen in them
_PROGRESS_SECONDS = 5.0
_EARLY_STEPS = 20  # so soon the first progress is told
_UNCOUNTED_STEPS = 16


class Stopped(Exception):
    """The rank was asked to end, and has left a checkpoint."""


@dataclass(frozen=True)
class Functions:
    """What a user gives in place of the settings' model and loss; None: as the settings say."""

    model: Callable[..., Any] | None = None
    loss: Loss | None = None


@dataclass
class Progress:
    """Where a run is; a part of each checkpoint, the same on all ranks."""

    epoch: int = 0
    """Epoch that is trained, from 0."""
    step: int = 0
    """Steps taken of it."""
    steps: int = 0
    """Of the run."""
    rows: int = 0
    """Real rows of this epoch that were trained on so far, over all ranks."""
    row_id_sum: int = 0
    """Sum of their row ids, as a signed 64-bit number that wraps around: equal in all epochs if each row is seen once."""
    loss: int = 0
    """Sum of their losses, in 2^-20."""
    seconds: float = 0.0
    """Time in the steps of this epoch, without validation and checkpoints; of lost steps, too."""
    wait_seconds: float = 0.0
    """Part of it spent waiting for data: rank 0."""
    history: list[dict[str, Any]] = field(default_factory=list)
    """Figures of each whole epoch."""
    best_epoch: int = 0
    """From 1; 0: none yet."""
    best_metrics: dict[str, Any] = field(default_factory=dict)
    """Split -> BinaryMetrics of the best epoch as JSON."""


@dataclass
class RankResult:
    """What one rank leaves at the end."""

    rank: int
    world_size: int
    host: str
    steps: int
    epochs: list[dict[str, Any]]
    """Figures of each epoch over all ranks, the same on every rank but for seconds: rows, row_id_sum, train_loss, ..."""
    wait_seconds: float
    """Part of `train_seconds` spent waiting for data."""
    train_seconds: float
    best_epoch: int
    metrics: dict[str, Any]
    """Split (validation, test) -> BinaryMetrics of the best checkpoint as JSON; on rank 0 only."""

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def fit(
    spec: TrainingSpec,
    *,
    functions: Functions = Functions(),
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RankResult:
    """Train as rank `dist.get_rank()` of the initialised process group and return what this rank did.

    Every rank calls it. Goes on from the newest checkpoint of the run, if any. Reads the snapshot's partitions
    split=train, validation, test. Keeps checkpoints, and the weights of the best epoch by validation metric, or of the
    last epoch when there are no validation rows; evaluates those on the test rows, if any. The same spec and number of
    ranks give the same numbers bit for bit, however often the run was interrupted.

    Args:
        spec: the run.
        functions: model and loss in place of the settings'.
        on_event: called on rank 0 with JSON values: "resumed", "begun", "progress", "epoch", "checkpoint", "storage",
            "evaluation".
        should_stop: asked between two steps on rank 0; True: write a checkpoint and end.

    Raises:
        DatasetError: the snapshot does not fit the ranks or the batch, or a file cannot be read.
        CheckpointError: the run's checkpoints are of other settings, or cannot be written.
        ConfigError: a setting that this machine or model cannot meet.
        TrainingFailed: no training rows; the loss is not finite; an evaluation lost rows.
        Stopped: `should_stop` said so.
    """
    snapshot = Snapshot.load(spec.snapshot_uri)
    splits = {name: snapshot.where(split=name) for name in ("train", "validation", "test")}
    if not splits["train"].num_rows:
        raise TrainingFailed(
            f"{snapshot.table} version {snapshot.version}: no rows with split=train; run prepare again"
        )
    trainer = _Trainer(spec, snapshot.fingerprint, splits, functions, on_event, should_stop)
    try:
        return trainer.run()
    except Exception as error:
        error.add_note(f"in epoch {trainer.progress.epoch + 1}, after step {trainer.progress.steps} of the run")
        trainer.save_what_there_is()
        raise
    finally:
        trainer.writer.close()


class _Trainer:
    """The state of one rank while it trains."""

    def __init__(
        self,
        spec: TrainingSpec,
        table: str,
        splits: Mapping[str, Snapshot],
        functions: Functions,
        on_event: Callable[[Event], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.spec, self.settings, self.splits = spec, spec.training, splits
        self.identity = spec.identity(table)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.tell: Callable[[Event], None] = on_event if self.rank == 0 else lambda event: None
        self.should_stop = should_stop
        settings = self.settings
        self.device = torch.device("cuda", torch.cuda.current_device()) if settings.use_gpu else torch.device("cpu")
        _set_up_torch(settings.threads_per_rank, deterministic=settings.deterministic)
        torch.manual_seed(settings.seed)  # the same initial weights on every rank
        self.model = self._built(functions)
        self.loss = functions.loss or (imported(settings.loss, "training.loss") if settings.loss else _cross_entropy)
        self.progress = Progress()
        self.writer = checkpoint.Writer(
            retry_seconds=settings.recovery.storage_seconds,
            on_trouble=lambda text: self.tell({"event": "storage", "message": text}),
        )
        self.is_whole = False  # whether weights, optimizer and progress are of one moment
        self.saved_steps = -1
        self.uncounted: list[torch.Tensor] = []
        self.untold_steps, self.untold_seconds = 0, 0.0
        self.share: Share | None = None
        self.steps_per_epoch = _steps(splits["train"].num_rows, settings.global_batch_size, spec.streaming.remainder)
        if settings.shard:
            sharding.shard(self.model)
        self.parallel = self._parallel()
        self.optimizer = optimization.optimizer(settings.optimizer, self.model)
        self.schedule = optimization.schedule(
            settings.optimizer, self.optimizer, epochs=settings.epochs, steps_per_epoch=self.steps_per_epoch
        )
        self.average = optimization.averaged(self.model, settings.ema_decay) if settings.ema_decay else None
        self.scaler = torch.amp.GradScaler("cuda", enabled=settings.precision == "fp16")  # type: ignore[attr-defined]
        self.forward: Callable[..., torch.Tensor] = torch.compile(self.parallel) if settings.compile else self.parallel
        self.profiler = StepProfiler(spec.run_uri, settings.profile_steps if self.rank == 0 else 0)

    def run(self) -> RankResult:
        self._load()
        self._settle()
        self.is_whole = True
        progress, settings = self.progress, self.settings
        self.tell({"event": "begun", "epoch": progress.epoch + 1, "step": progress.steps})
        while progress.epoch < settings.epochs and not self._is_out_of_patience():
            self._train()
            validation = self._evaluate("validation", self._evaluated)
            self._close_epoch(validation)
        self.profiler.close()
        self.writer.wait()
        metrics = self._evaluate_best()
        return RankResult(
            rank=self.rank,
            world_size=self.world_size,
            host=socket.gethostname(),
            steps=progress.steps,
            epochs=progress.history,
            wait_seconds=sum(epoch["wait_seconds"] for epoch in progress.history),
            train_seconds=sum(epoch["seconds"] for epoch in progress.history),
            best_epoch=progress.best_epoch,
            metrics=metrics,
        )

    def save_what_there_is(self) -> None:
        """Write a checkpoint of the last whole step after a failure: rank 0, where it holds everything and can."""
        if self.rank == 0 and self.is_whole and not self.settings.shard and self.progress.steps > self.saved_steps:
            with contextlib.suppress(Exception):  # the failure that brought us here is the one to tell
                self._save()
                self.writer.wait()

    def _built(self, functions: Functions) -> nn.Module:
        settings = self.settings
        if functions.model is not None:
            model = called(functions.model, self.spec.layout, self.spec.model.factory)
        else:
            model = build(self.spec.model, self.spec.layout)
        if settings.sync_batch_norm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if settings.channels_last else model  # type: ignore[call-overload]

    def _parallel(self) -> nn.Module:
        """Return what brings the ranks' gradients together; nothing is needed where there is one rank."""
        if self.world_size == 1 or self.settings.shard:
            return self.model
        return DistributedDataParallel(self.model, gradient_as_bucket_view=True)

    def _load(self) -> None:
        """Go to the newest checkpoint, the same on every rank."""
        found = checkpoint.newest(self.spec.checkpoints_uri, self.identity)
        steps = torch.tensor([found.about["progress"]["steps"] if found else -1], device=self.device)
        of_all = [torch.empty_like(steps) for _ in range(self.world_size)]
        dist.all_gather(of_all, steps)
        if len(seen := {int(each) for each in of_all}) > 1:
            raise TrainingFailed(
                f"{self.spec.checkpoints_uri}: the ranks see different checkpoints, of steps {sorted(seen)}; storage.root "
                f"must be one place for all nodes"
            )
        if found is None:
            return
        state = found.state
        if self.settings.shard:
            sharding.load(self.model, found.weights, self.optimizer, state["optimizer"])
        else:
            self.model.load_state_dict(found.weights)
            self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.progress = Progress(**found.about["progress"])
        self.saved_steps = self.progress.steps
        self.tell({"event": "resumed", "epoch": self.progress.epoch + 1, "step": self.progress.steps})

    def _settle(self) -> None:
        """Take a step with zeros that changes nothing.

        DDP lays its gradients out anew after the first backward pass, which changes the order of sums over three or more
        ranks: no real step is taken before that, at the start or after a restart. torch.compile compiles here, too.
        """
        if self.world_size == 1 and not self.settings.compile:
            return
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        size = self.settings.global_batch_size // self.world_size // self.settings.accumulation_steps
        layout = self.spec.layout
        dense = torch.zeros(size, len(layout.dense), device=self.device)
        ids = torch.zeros(size, len(layout.categorical), dtype=torch.int64, device=self.device)
        for _ in range(2):
            with self._computing():
                logits = self.forward(dense, ids)
            logits.float().sum().backward()  # type: ignore[no-untyped-call]
            self.optimizer.zero_grad()
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                buffer.copy_(buffers[name])

    def _train(self) -> None:
        """Take the steps of an epoch, or the rest of it."""
        progress, started = self.progress, time.perf_counter()
        seconds, wait_seconds = progress.seconds, progress.wait_seconds
        every = self.settings.recovery.checkpoint_steps
        self.parallel.train()
        with self._open("train", epoch=progress.epoch, shuffle=True, start_step=progress.step) as batches:
            for on_host in batches:
                before = progress.seconds
                self._step(self._to_device(on_host))
                progress.seconds = seconds + time.perf_counter() - started
                progress.wait_seconds = wait_seconds + batches.wait_seconds
                self._tell_progress(progress.seconds - before)
                if every and progress.steps % every == 0:
                    self._save()
                self._stop_if_asked()

    def _step(self, batch: Batch) -> None:
        """Take one optimizer step, and count what it was made of."""
        settings, progress = self.settings, self.progress
        _seed(settings.seed, self.rank, progress.steps)
        # The plan fills every global batch but the last. DDP takes the mean over ranks, hence world_size.
        rows_before = progress.step * settings.global_batch_size
        rows_in_step = min(settings.global_batch_size, self.splits["train"].num_rows - rows_before)
        loss_sum = torch.zeros((), device=self.device)
        parts = _split(batch, settings.accumulation_steps)
        for number, part in enumerate(parts, 1):
            with self._syncing(is_last=number == len(parts)):
                with self._computing():
                    logits = self.forward(part.dense, part.categorical)  # (B / parts,)
                loss = (self._losses(logits, part.label) * ~part.is_padding).sum()
                loss_sum += loss.detach()
                if number == len(parts):  # on its way while the gradients are computed
                    counts = self._count(batch, loss_sum)
                    summing = dist.all_reduce(counts, async_op=True)
                self.scaler.scale(loss * (self.world_size / rows_in_step)).backward()  # type: ignore[no-untyped-call]
        if settings.optimizer.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.optimizer.clip_norm)
        summing.wait()
        # Until here a lost rank leaves everything as it was after the step before.
        self.is_whole = False
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.model)
        progress.step, progress.steps = progress.step + 1, progress.steps + 1
        self.is_whole = True
        self.profiler.step()
        self.uncounted.append(counts)
        # Reading a number from a GPU waits for all that it has to do.
        if self.device.type == "cpu" or len(self.uncounted) >= _UNCOUNTED_STEPS:
            self._take_counts()

    def _take_counts(self) -> None:
        """Add the steps that were taken to the epoch's figures.

        Raises:
            TrainingFailed: a loss was not finite.
        """
        progress, bad_steps = self.progress, 0
        for counts in self.uncounted:
            rows, row_ids, loss_steps, is_bad = counts.tolist()
            progress.rows += rows
            progress.row_id_sum = _wrapped(progress.row_id_sum + row_ids)
            progress.loss += loss_steps
            bad_steps += is_bad
        self.uncounted = []
        if bad_steps:
            self.is_whole = False  # nothing to go on from
            optimizer = self.settings.optimizer
            raise TrainingFailed(
                f"epoch {progress.epoch + 1}, step {progress.steps}: the training loss is not finite; lower "
                f"training.optimizer.learning_rate (now {optimizer.learning_rate}), set "
                f"training.optimizer.clip_norm (now {optimizer.clip_norm}) and look for extreme values in the features"
            )

    def _count(self, batch: Batch, losses: torch.Tensor) -> torch.Tensor:
        """Return [rows, sum of row ids, sum of losses in 2^-20, 1 if it is not finite] of this rank: (4,) int64."""
        is_real = ~batch.is_padding
        is_finite = losses.isfinite()
        scaled = torch.where(is_finite, losses.double() * _LOSS_STEPS, 0.0).round().long()
        return torch.stack([is_real.sum(), (batch.row_id * is_real).sum(), scaled, (~is_finite).long()])

    def _losses(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the weighted loss of each row: (B,)."""
        settings = self.settings
        smooth = label
        if settings.label_smoothing:
            smooth = label * (1.0 - settings.label_smoothing) + 0.5 * settings.label_smoothing
        losses = self.loss(logits.float(), smooth)
        if losses.shape != label.shape:
            raise ConfigError(
                f"training.loss={settings.loss or 'given function'} returned shape {tuple(losses.shape)} for "
                f"{len(label)} rows; it must give the loss of each row, without a mean or sum"
            )
        return losses if settings.positive_weight == 1.0 else losses * (1 + (settings.positive_weight - 1) * label)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        types = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = types.get(self.settings.precision)
        with torch.autocast(self.device.type, dtype=dtype) if dtype else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def _syncing(self, *, is_last: bool) -> Iterator[None]:
        """Bring gradients together with the last part of a batch only."""
        if self.settings.shard:
            sharding.sync(self.model, is_wanted=is_last)
        if isinstance(self.parallel, DistributedDataParallel) and not is_last:
            with self.parallel.no_sync():
                yield
        else:
            yield

    @property
    def _evaluated(self) -> nn.Module:
        """The model whose weights are kept: the averaged one if there is one."""
        return self.model if self.average is None else self.average.module

    def _evaluate(self, split: str, model: nn.Module) -> BinaryMetrics | None:
        """Return the metrics of a model over all rows of a split, on every rank; None without rows."""
        if not self.splits[split].num_rows:
            return None
        model.eval()
        parts = []
        with self._open(split, epoch=0, shuffle=False) as batches, torch.inference_mode():
            for on_host in batches:
                batch = self._to_device(on_host)
                with self._computing():
                    logits = model(batch.dense, batch.categorical)
                parts.append(torch.stack([logits.float(), batch.label, batch.is_padding.float()]))
                self._stop_if_asked()
        mine = torch.cat(parts, dim=1)  # (3, steps * B): as long on every rank
        everyone = [torch.empty_like(mine) for _ in range(self.world_size)]
        dist.all_gather(everyone, mine)
        logits, label, is_padding = torch.cat(everyone, dim=1).cpu()
        is_real = is_padding == 0
        if int(is_real.sum()) != self.splits[split].num_rows or not bool(logits.isfinite().all()):
            raise TrainingFailed(
                f"evaluation on split={split} gave {int(is_real.sum())} rows of {self.splits[split].num_rows}, "
                f"{int(logits.isfinite().sum())} of {len(logits)} logits finite; lower "
                f"training.optimizer.learning_rate or prepare the table again"
            )
        return binary_metrics(logits[is_real].numpy(), label[is_real].numpy())

    def _close_epoch(self, validation: BinaryMetrics | None) -> None:
        """Note the epoch's figures, keep its weights if they are the best, and write a checkpoint."""
        self._take_counts()
        progress = self.progress
        self.is_whole = False
        figures: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "epochs": self.settings.epochs,
            "step": progress.steps,
            "learning_rate": self.schedule.get_last_lr()[0],
            "train_loss": progress.loss / _LOSS_STEPS / max(1, progress.rows),
            "rows": progress.rows,
            "row_id_sum": progress.row_id_sum,
            "rows_per_second": progress.rows / max(progress.seconds, 1e-9),
            "data_wait_fraction": progress.wait_seconds / max(progress.seconds, 1e-9),
            "seconds": progress.seconds,
            "wait_seconds": progress.wait_seconds,
            "is_best": self._is_best(validation),
        }
        if validation is not None:
            figures |= {
                "validation_log_loss": validation.log_loss,
                "validation_accuracy": validation.accuracy,
                "validation_roc_auc": validation.roc_auc,
            }
        if figures["is_best"]:
            progress.best_epoch = figures["epoch"]
            progress.best_metrics = {} if validation is None else {"validation": validation.to_json()}
            self._save_best()
        progress.history.append(figures)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.rows = progress.row_id_sum = progress.loss = 0
        progress.seconds = progress.wait_seconds = 0.0
        self.is_whole = True
        self._save()
        self.tell({"event": "epoch", **figures})

    def _is_best(self, validation: BinaryMetrics | None) -> bool:
        if validation is None or not self.progress.best_epoch:
            return True
        name = self.settings.best
        now, then = getattr(validation, name), self.progress.best_metrics["validation"][name]
        if now is None or then is None:  # one class only: no ROC curve
            return then is None
        return bool(now < then if name == "log_loss" else now > then)

    def _is_out_of_patience(self) -> bool:
        return bool(self.settings.patience and self.progress.epoch - self.progress.best_epoch >= self.settings.patience)

    def _weights(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return a copy of the whole model's weights in memory."""
        if self.settings.shard:
            return sharding.weights(model)
        return {name: _copied(value) for name, value in model.state_dict().items()}

    def _save_best(self) -> None:
        if self.rank != 0 and not self.settings.shard:
            return  # rank 0 holds the same
        weights = self._weights(self._evaluated)
        about = {"epoch": self.progress.best_epoch, "step": self.progress.steps, "metrics": self.progress.best_metrics}
        if self.rank == 0:
            self.writer.submit(lambda: checkpoint.save(self.spec.best_uri, weights=weights, about=about))

    def _save(self) -> None:
        """Have a checkpoint of this moment written, while training goes on."""
        self._take_counts()
        if self.rank != 0 and not self.settings.shard:
            return  # rank 0 holds the same
        if self.settings.shard:
            optimizer_state = sharding.optimizer_state(self.model, self.optimizer)
        else:
            optimizer_state = _copied(self.optimizer.state_dict())
        weights = self._weights(self.model)
        state = {
            "optimizer": optimizer_state,
            "schedule": _copied(self.schedule.state_dict()),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else _copied(self.average.state_dict()),
        }
        progress = dict(vars(self.progress)) | {"history": list(self.progress.history)}
        about = {"identity": self.identity, "progress": progress, "world_size": self.world_size}
        self.saved_steps = self.progress.steps
        if self.rank != 0:
            return
        uri, keep = self.spec.checkpoints_uri, self.settings.recovery.keep_checkpoints
        step, started = self.progress.steps, time.perf_counter()

        def write() -> None:
            checkpoint.save(checkpoint.step_uri(uri, step), weights=weights, about=about, state=state)
            checkpoint.prune(uri, keep)
            self.tell({"event": "checkpoint", "step": step, "seconds": time.perf_counter() - started})

        self.writer.submit(write)

    def _stop_if_asked(self) -> None:
        if self.rank == 0 and self.should_stop():
            raise Stopped(f"asked to end at step {self.progress.steps}")

    def _tell_progress(self, seconds: float) -> None:
        """Tell how it goes, now and then; `seconds` are those of the last step, with its wait for data."""
        self.untold_steps, self.untold_seconds = self.untold_steps + 1, self.untold_seconds + seconds
        if self.untold_seconds < _PROGRESS_SECONDS and self.progress.steps != _EARLY_STEPS:
            return
        steps_per_second = self.untold_steps / self.untold_seconds
        self.untold_steps, self.untold_seconds = 0, 0.0
        self._take_counts()
        progress = self.progress
        to_do = self.settings.epochs * self.steps_per_epoch - progress.steps
        self.tell(
            {
                "event": "progress",
                "epoch": progress.epoch + 1,
                "epochs": self.settings.epochs,
                "step": progress.steps,
                "steps": self.settings.epochs * self.steps_per_epoch,
                "train_loss": progress.loss / _LOSS_STEPS / max(1, progress.rows),
                "learning_rate": self.schedule.get_last_lr()[0],
                "rows_per_second": steps_per_second * self.settings.global_batch_size,
                "data_wait_fraction": progress.wait_seconds / max(progress.seconds, 1e-9),
                "seconds_left": to_do / steps_per_second,
            }
        )

    def _evaluate_best(self) -> dict[str, Any]:
        """Return the metrics of the best checkpoint, read back by every rank, with those on the test rows."""
        dist.barrier()  # rank 0 has written it
        weights = checkpoint.load(self.spec.best_uri).weights
        if self.settings.shard:
            sharding.load(self.model, weights)
        else:
            self.model.load_state_dict(weights)
        test = self._evaluate("test", self.model)
        metrics = dict(self.progress.best_metrics)
        if test is not None:
            metrics["test"] = test.to_json()
            self.tell({"event": "evaluation", "split": "test", "step": self.progress.steps, **metrics["test"]})
        return metrics

    def _open(self, split: str, *, epoch: int, shuffle: bool, start_step: int = 0) -> Batches[Batch]:
        streaming = self.spec.streaming
        if split != "train":
            streaming = streaming.model_copy(update={"remainder": "pad"})  # an evaluation leaves no row out
        elif self.settings.memory_bytes and self.share is None:
            self.share = keep_share(
                self.splits[split],
                self.spec.layout,
                streaming,
                rank=self.rank,
                world_size=self.world_size,
                global_batch_size=self.settings.global_batch_size,
                seed=self.settings.seed,
                limit_bytes=self.settings.memory_bytes,
            )
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
            start_step=start_step,
            share=self.share if split == "train" else None,
            pin_memory=self.settings.use_gpu,
        )

    def _to_device(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        tensors = (batch.dense, batch.categorical, batch.label, batch.row_id, batch.is_padding)
        return Batch(*(tensor.to(self.device, non_blocking=True) for tensor in tensors))


def _cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, label, reduction="none")


def _steps(num_rows: int, batch_size: int, remainder: str) -> int:
    steps = -(-num_rows // batch_size) if remainder == "pad" else num_rows // batch_size
    if not steps:
        raise ConfigError(
            f"training.global_batch_size={batch_size} is more than the {num_rows} training rows, and "
            f"streaming.remainder=drop leaves them all out; lower it, or set streaming.remainder to pad"
        )
    return steps


def _split(batch: Batch, parts: int) -> list[Batch]:
    if parts == 1:
        return [batch]
    size = len(batch.label) // parts
    fields = (batch.dense, batch.categorical, batch.label, batch.row_id, batch.is_padding)
    return [Batch(*each) for each in zip(*(torch.split(tensor, size) for tensor in fields), strict=True)]


def _copied(value: Any) -> Any:
    """Return a copy in memory of nested values, tensors included."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items() if not callable(each)}
    if isinstance(value, list | tuple):
        return [_copied(each) for each in value]
    return value


def _wrapped(value: int) -> int:
    """Return the number as a signed 64-bit one that wraps around."""
    return (value + 2**63) % 2**64 - 2**63


def _seed(seed: int, rank: int, step: int) -> None:
    """Set all generators that a model may use for one step of one rank."""
    # Two steps of any runs, ranks and positions share a key with a chance of 2^-64 only.
    key = int(np.random.SeedSequence([seed % 2**64, rank, step]).generate_state(1, np.uint64)[0])
    # torch.manual_seed looks for every kind of device: 0.1 ms.
    torch.default_generator.manual_seed(key)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(key)
    random.seed(key)
    np.random.seed(key % 2**32)


def _set_up_torch(threads: int, *, deterministic: bool) -> None:
    torch.set_num_threads(threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch asks for on GPUs
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # only costs time
