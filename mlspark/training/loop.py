"""One rank of a training run: epochs, validation, checkpoints, evaluation. No Spark, no MLflow.

The optimised function does not depend on the number of ranks: each step's loss is the sum over the real rows of the
global batch divided by their number, and the global batches are the same for any number of ranks. What differs is the
order of float sums, and the dropout masks, which each rank draws for itself.

A run that is ended at any step and goes on from a checkpoint ends with the same bits, on as many ranks. For that, nothing
that matters is anywhere but in the checkpoint: random numbers are drawn anew in each step, from (seed, rank, step), so the
state of a generator is never needed, and any moment between two steps can be saved by rank 0 alone.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mlspark.errors import ConfigError
from mlspark.evaluation import predictions
from mlspark.streaming.snapshot import Snapshot
from mlspark.training import network, optimization, parallel
from mlspark.training.data import RankData, splits_of, steps_per_epoch
from mlspark.training.evaluate import Evaluator
from mlspark.training.events import Begun, EpochEnded, Evaluated, Event, Progressed
from mlspark.training.parameters import Freezing
from mlspark.training.randomness import set_up_torch
from mlspark.training.saving import RunCheckpoints
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec
from mlspark.training.state import RankContext, RankResult, TrainState
from mlspark.training.step import Stepper

_PROGRESS_SECONDS = 5.0
_EARLY_STEPS = 20  # after so many the first progress is reported


def fit(
    spec: TrainingSpec,
    *,
    functions: Functions = NO_FUNCTIONS,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> RankResult:
    """Train as rank `dist.get_rank()` of the initialised process group and return what this rank did.

    Every rank calls it. Goes on from the newest checkpoint of the run, if any. Reads the snapshot's partitions
    split=train, validation, test. Keeps checkpoints, and the weights of the best epoch by validation metric, or of the
    last epoch when there are no validation rows; evaluates those on the validation and test rows, if any, and keeps their
    predictions. The same spec and number of ranks yield the same numbers bit for bit, however often the run was interrupted.

    Args:
        spec: the run.
        functions: model and loss in place of the settings'.
        on_event: called on rank 0 with Resumed, Begun, Progressed, EpochEnded, CheckpointWritten, StorageTrouble, Evaluated.
        should_stop: asked between two steps on rank 0; True: write a checkpoint and end.

    Raises:
        DatasetError: the snapshot does not fit the ranks or the batch, or a file cannot be read.
        CheckpointError: the run's checkpoints are of other settings, or cannot be written.
        ConfigError: a setting that this machine, model or task cannot meet.
        TrainingFailed: no training rows; the loss is not finite; an evaluation lost rows.
        Stopped: `should_stop` returned True.
    """
    snapshot = Snapshot.load(spec.snapshot_uri)
    splits = splits_of(snapshot)
    settings = spec.training
    device = torch.device("cuda", torch.cuda.current_device()) if settings.use_gpu else torch.device("cpu")
    context = RankContext(dist.get_rank(), dist.get_world_size(), device, on_event, should_stop)
    set_up_torch(settings.threads_per_rank, deterministic=settings.deterministic)
    run = _Run(spec, snapshot.fingerprint, splits, functions, context)
    try:
        return run.train()
    except Exception as error:
        progress = run.state.progress
        error.add_note(f"in epoch {progress.epoch + 1}, after step {progress.steps} of the run")
        run.save_after_failure()
        if "find_unused_parameters" in str(error):  # torch's advice
            raise ConfigError(
                f"{spec.model.name}: a step left some parameters unused, for whose gradients the other ranks wait; set "
                f"training.unused_parameters=true, or let every step use them"
            ) from error
        raise
    finally:
        run.data.close()
        run.checkpoints.close()


class _Run:
    """The parts of a run on one rank, and the order in which they act."""

    def __init__(
        self,
        spec: TrainingSpec,
        table: str,
        splits: Mapping[str, Snapshot],
        functions: Functions,
        context: RankContext,
    ) -> None:
        self.spec, self.settings, self.context = spec, spec.training, context
        self.best_metric = spec.best_metric
        torch.manual_seed(spec.training.seed)  # the same initial weights on every rank
        model = network.build(spec, functions, context.device)
        self.steps_per_epoch = steps_per_epoch(spec, splits["train"])
        self.data = RankData(spec, splits, context)
        self.freezing = Freezing(spec.training, model)
        self.freezing.apply(0)
        whole = parallel.over_ranks(
            model, world_size=context.world_size, shard=spec.training.shard, has_unused=self._has_unused(model)
        )
        self.state = TrainState(spec.training, whole, self.freezing, self.steps_per_epoch)
        self.stepper = Stepper(spec, functions, context, self.state, train=splits["train"])
        self.evaluator = Evaluator(spec, context, self.data)
        self.checkpoints = RunCheckpoints(spec, table, context, self.state)
        self.is_warm = False
        self.unreported_steps, self.unreported_seconds = 0, 0.0

    def train(self) -> RankResult:
        self.checkpoints.resume()
        self.state.end_change()
        progress, settings = self.state.progress, self.settings
        self.context.report(Begun(progress.epoch + 1, progress.steps))
        while progress.epoch < settings.epochs and not self._is_out_of_patience():
            self._train_epoch()
            validation = self.evaluator.metrics("validation", self.state.evaluated, progress)
            self._close_epoch(validation)
        self.stepper.close()
        metrics = self._evaluate_kept()
        return RankResult(
            rank=self.context.rank,
            world_size=self.context.world_size,
            host=socket.gethostname(),
            steps=progress.steps,
            epochs=progress.history,
            wait_seconds=sum(epoch["wait_seconds"] for epoch in progress.history),
            train_seconds=sum(epoch["seconds"] for epoch in progress.history),
            best_epoch=progress.best_epoch,
            metrics=metrics,
        )

    def _has_unused(self, model: nn.Module) -> bool:
        """Return whether the ranks have to look in each step for parameters that it did not use."""
        if self.context.world_size == 1 or self.settings.shard:
            return False
        return self.settings.unused_parameters or network.has_unused(self.spec, model, self.data.two_rows())

    def save_after_failure(self) -> None:
        """Write a checkpoint of the last whole step, where that is possible."""
        with contextlib.suppress(Exception):  # the failure that brought us here is the one to report
            self.stepper.add_step_counts()
        self.checkpoints.save_after_failure()

    def _train_epoch(self) -> None:
        """Take the steps of an epoch, or the rest of it."""
        progress, started = self.state.progress, time.perf_counter()
        seconds, wait_seconds = progress.seconds, progress.wait_seconds
        every = self.settings.recovery.checkpoint_steps
        self._begin_epoch()
        stream = self.data.training(progress.epoch, progress.step)
        for on_host in stream:
            before, batch = progress.seconds, self.data.to_learn_from(on_host)
            if not self.is_warm:
                warming = time.perf_counter()
                self.stepper.warm_up(batch)
                self.is_warm, started = True, started + time.perf_counter() - warming
            self.stepper.take(batch)
            progress.seconds = seconds + time.perf_counter() - started
            progress.wait_seconds = wait_seconds + stream.wait_seconds
            self._report_progress(progress.seconds - before)
            if every and progress.steps % every == 0:
                self._save()
            self.context.stop_if_asked(progress)

    def _begin_epoch(self) -> None:
        """Have the model train what the epoch trains; of a run that goes on, within it."""
        state, progress = self.state, self.state.progress
        if self.freezing.apply(progress.epoch):
            state.parallel.regroup(has_unused=self._has_unused(state.model))
            self.stepper.regroup()
            self.is_warm = False
        if not progress.step:
            optimization.begin_groups(state.optimizer)
        state.parallel.forward.train()
        self.freezing.keep_statistics(progress.epoch)

    def _save(self) -> None:
        self.stepper.add_step_counts()
        self.checkpoints.save()

    def _close_epoch(self, validation: Mapping[str, Any] | None) -> None:
        """Note the epoch's figures, keep its weights if they are the best, and write a checkpoint."""
        self.stepper.add_step_counts()
        progress = self.state.progress
        self.state.begin_change()
        names = self.spec.task.metric_names
        event = EpochEnded(
            epoch=progress.epoch + 1,
            epochs=self.settings.epochs,
            step=progress.steps,
            learning_rate=self.state.learning_rate,
            train_loss=progress.train_loss,
            rows=progress.rows,
            row_id_sum=progress.row_id_sum,
            rows_per_second=progress.rows / max(progress.seconds, 1e-9),
            data_wait_fraction=progress.wait_seconds / max(progress.seconds, 1e-9),
            seconds=progress.seconds,
            wait_seconds=progress.wait_seconds,
            is_best=self._is_best(validation),
            validation={} if validation is None else {name: validation[name] for name in names},
        )
        if event.is_best:
            progress.best_epoch = event.epoch
            progress.best_metrics = {} if validation is None else {"validation": dict(validation)}
            self.checkpoints.save_best()
        cycles = self.settings.optimizer.cycles
        if cycles > 1 and event.epoch * cycles % self.settings.epochs == 0:
            self.checkpoints.save_cycle(event.epoch * cycles // self.settings.epochs - 1)
        progress.history.append({key: value for key, value in event.to_json().items() if key != "event"})
        progress.begin_epoch()
        self.state.end_change()
        self._save()
        self.context.report(event)

    def _is_best(self, validation: Mapping[str, Any] | None) -> bool:
        if validation is None or not self.state.progress.best_epoch:
            return True
        now, then = (
            metrics[self.best_metric] for metrics in (validation, self.state.progress.best_metrics["validation"])
        )
        if now is None or then is None:  # a metric that these rows do not have, like an AUC of one class
            return then is None
        return bool(now < then if self.spec.task.lower_is_better(self.best_metric) else now > then)

    def _is_out_of_patience(self) -> bool:
        progress, patience = self.state.progress, self.settings.patience
        return bool(patience and progress.epoch - progress.best_epoch >= patience)

    def _report_progress(self, seconds: float) -> None:
        """Report progress every few seconds; `seconds` are those of the last step, with its wait for data."""
        progress = self.state.progress
        self.unreported_steps, self.unreported_seconds = self.unreported_steps + 1, self.unreported_seconds + seconds
        if self.unreported_seconds < _PROGRESS_SECONDS and progress.steps != _EARLY_STEPS:
            return
        steps_per_second = self.unreported_steps / self.unreported_seconds
        self.unreported_steps, self.unreported_seconds = 0, 0.0
        self.stepper.add_step_counts()
        steps = self.settings.epochs * self.steps_per_epoch
        self.context.report(
            Progressed(
                epoch=progress.epoch + 1,
                epochs=self.settings.epochs,
                step=progress.steps,
                steps=steps,
                train_loss=progress.train_loss,
                learning_rate=self.state.learning_rate,
                rows_per_second=steps_per_second * self.settings.global_batch_size,
                data_wait_fraction=progress.wait_seconds / max(progress.seconds, 1e-9),
                seconds_left=(steps - progress.steps) / steps_per_second,
            )
        )

    def _evaluate_kept(self) -> dict[str, Any]:
        """Return the metrics of the best checkpoint, read back by every rank; keep its predictions, and those of cycles."""
        for uri in self.spec.snapshot_uris:
            self._evaluate(uri, uri)
        metrics = self._evaluate(self.spec.best_uri, self.spec.run_uri)
        if "test" in metrics:
            self.context.report(Evaluated("test", self.state.progress.steps, metrics["test"]))
        return metrics

    def _evaluate(self, weights_uri: str, folder: str) -> dict[str, Any]:
        """Return the metrics of weights that were kept, and keep their predictions below `folder`."""
        self.checkpoints.load_kept(weights_uri)
        metrics: dict[str, Any] = {}
        for split in ("validation", "test"):
            of_split, outputs = self.evaluator.predictions(split, self.state.model, self.state.progress)
            if of_split is None:
                continue
            if outputs is not None:
                predictions.write(predictions.uri_of(folder, split), outputs)
            metrics[split] = of_split
        return metrics
