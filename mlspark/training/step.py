"""One optimizer step of one rank, and what it was made of."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mlspark.errors import ConfigError, TrainingFailed
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.losses import losses_of_mixed
from mlspark.training.batch_norm import BatchNorms
from mlspark.training.data import fewest_rows, parts_of
from mlspark.training.graph import StepGraph, graph_of
from mlspark.training.network import Batch, Outputs
from mlspark.training.parallel import share_buffers
from mlspark.training.randomness import seed_step
from mlspark.training.spec import Functions, TrainingSpec
from mlspark.training.state import RankContext, TrainState
from mlspark.training.step_trace import StepTrace

_SUM_STEPS = 2**20  # losses are summed as whole numbers of 1 / this, exactly, so that no order of sums is seen in them
_UNCOUNTED_STEPS = 16


class Stepper:
    """Takes the steps of a run.

    Each step's loss is the sum over the real rows of the global batch, times their sample weights, divided by the sum of
    the weights (without weights: by the number of rows). It does not depend on the number of ranks.
    """

    def __init__(
        self,
        spec: TrainingSpec,
        functions: Functions,
        context: RankContext,
        state: TrainState,
        *,
        train: Snapshot,
    ) -> None:
        self._spec, self._train, self._num_rows = spec, train, train.num_rows
        self._settings, self._context, self._state = spec.training, context, state
        self._task, self._loss = spec.task, functions.loss
        self._outputs = Outputs(spec, context.device, in_training=True)
        self._forward = self._compiled()
        self._norms = BatchNorms(state.model)
        self._uncounted: list[torch.Tensor] = []
        self._graph = self._new_graph(functions)
        self._trace = StepTrace(spec.run_uri, spec.training.profile_steps if context.rank == 0 else 0)

    def regroup(self) -> None:
        """Call the ranks' model as it was made anew: see `Alone.regroup`."""
        self._forward = self._compiled()

    def _new_graph(self, functions: Functions) -> StepGraph | None:
        context, progress = self._context, self._state.progress
        return graph_of(
            self._spec,
            functions,
            context.world_size,
            context.device,
            compute=lambda batch: self._computed(batch)[0],
            model=self._state.model,
            seed=lambda number: seed_step(self._settings.seed, context.rank, progress.steps + number),
        )

    def _compiled(self) -> Callable[..., torch.Tensor]:
        forward: Callable[..., torch.Tensor] = self._state.parallel.forward
        return torch.compile(forward) if self._settings.compile else forward

    def warm_up(self, batch: Batch) -> None:
        """Take a step with the batch of a step to come that changes nothing.

        DDP lays its gradients out anew after the first backward pass, which changes the order of sums over three or more
        ranks: no real step is taken before that, at the start or after a restart. torch.compile compiles here, too.
        """
        settings, state = self._settings, self._state
        if self._context.world_size == 1 and not settings.compile:
            return
        state.begin_step()
        part = next(parts_of(batch, settings.accumulation_steps))
        for _ in range(2):
            outputs = self._outputs_of(part)
            outputs.sum().backward()  # type: ignore[no-untyped-call]
            state.optimizer.zero_grad()
        state.undo_step()

    def take(self, batch: Batch) -> None:
        """Take one optimizer step.

        Raises:
            TrainingFailed: the loss is not finite.
        """
        settings, state, progress = self._settings, self._state, self._state.progress
        if self._graph is not None:
            self._graph.prepare(batch)
        seed_step(settings.seed, self._context.rank, progress.steps)
        if state.parallel.needs_all_ranks:
            share_buffers(state.model, self._context.world_size)
        elif self._context.rank == 0:  # which saves the state when a step fails
            state.begin_step()
        with self._norms.frozen() if self._lacks_rows(progress.step) else contextlib.nullcontext():
            counts, summing = self._backward(batch)
        if settings.optimizer.clip_norm:
            state.scaler.unscale_(state.optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), settings.optimizer.clip_norm)
        if summing is not None:
            summing.wait()
        # Until here a lost rank leaves everything as it was after the step before, buffers aside: `TrainState.undo_step`.
        state.begin_change()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.schedule.step()
        state.optimizer.zero_grad()
        if state.average is not None:
            state.average.update_parameters(state.model)
        progress.step, progress.steps = progress.step + 1, progress.steps + 1
        state.end_change()
        self._trace.step()
        self._uncounted.append(counts)
        # Reading a number from a GPU waits for all that it has to do.
        if self._context.device.type == "cpu" or len(self._uncounted) >= _UNCOUNTED_STEPS:
            self.add_step_counts()

    def add_step_counts(self) -> None:
        """Add the steps that were taken to the epoch's figures.

        Raises:
            TrainingFailed: a loss was not finite.
        """
        progress, bad_steps = self._state.progress, 0
        of_steps = torch.stack(self._uncounted).tolist() if self._uncounted else []
        for rows, row_ids, weight, loss, is_bad in of_steps:
            progress.rows += rows
            progress.row_id_sum = _wrapped(progress.row_id_sum + row_ids)
            progress.weight += weight
            progress.loss += loss
            bad_steps += is_bad
        self._uncounted = []
        if bad_steps:
            self._state.begin_change()  # never ended: nothing to go on from
            optimizer = self._settings.optimizer
            raise TrainingFailed(
                f"epoch {progress.epoch + 1}, step {progress.steps}: the training loss is not finite; lower "
                f"training.optimizer.learning_rate (now {optimizer.learning_rate}), set "
                f"training.optimizer.clip_norm (now {optimizer.clip_norm}) and look for extreme values in the features"
            )

    def close(self) -> None:
        """End the trace, if the run had fewer steps."""
        self._trace.close()

    def _backward(self, batch: Batch) -> tuple[torch.Tensor, Any]:
        """Compute the gradients; return this step's counts, and the operation that sums them over several ranks."""
        counts = None if self._graph is None else self._graph.replayed(batch)
        return self._computed(batch) if counts is None else (counts, None)

    def _computed(self, batch: Batch) -> tuple[torch.Tensor, Any]:
        """Do the same by one operation after the other; on a GPU nothing waits for it, so that it can be recorded."""
        settings, state = self._settings, self._state
        # DDP takes the mean over ranks, hence world_size.
        scale = self._context.world_size / self._weight_of_step(batch)
        loss_sum = torch.zeros((), device=self._context.device)
        num_parts, summing = settings.accumulation_steps, None
        for number, part in enumerate(parts_of(batch, num_parts), 1):
            is_last = number == num_parts
            with state.parallel.syncing(is_last=is_last):
                outputs = self._outputs_of(part)
                loss = (self._losses(outputs, part) * ~part["is_padding"]).sum()
                loss_sum += loss.detach()
                if is_last:  # on its way while the gradients are computed
                    counts = self._count(batch, loss_sum)
                    if self._context.world_size > 1:
                        summing = dist.all_reduce(counts, async_op=True)
                state.scaler.scale(loss * scale).backward()
        return counts, summing

    def _outputs_of(self, part: Batch) -> torch.Tensor:
        """Return the model's outputs (B, O); rows that do not count, and single ones, enter no statistics of batch norm."""
        if len(part["is_padding"]) > 1:
            return self._outputs(self._forward, part)
        is_real = not part["is_padding"].item()
        # Not compiled: it would be for such a part alone.
        with self._norms.frozen_for_one_value() if is_real else self._norms.frozen():
            try:
                return self._outputs(self._state.parallel.forward, part)
            except ValueError as error:
                if "more than 1 value per channel" not in str(error):
                    raise
                raise ConfigError(
                    f"a step with one row on rank {self._context.rank}: {error}; the model has no running statistics to "
                    f"use instead: set streaming.remainder to drop, or another training.global_batch_size (now "
                    f"{self._settings.global_batch_size})"
                ) from error

    def _lacks_rows(self, step: int) -> bool:
        """Return whether statistics over all ranks would be of a rank that has no row of its own in a part of the step."""
        if not self._norms.are_synced:
            return False
        fewest = fewest_rows(self._spec, self._train, self._context.world_size, step)
        return fewest < self._settings.accumulation_steps

    def _weight_of_step(self, batch: Batch) -> Any:
        """Return the sum of the sample weights of the global batch: a float, or a tensor where rows have weights."""
        if "weight" not in batch:
            # The plan fills every global batch but the last.
            rows_before = self._state.progress.step * self._settings.global_batch_size
            return min(self._settings.global_batch_size, self._num_rows - rows_before)
        total = (batch["weight"].double() * ~batch["is_padding"]).sum()
        if self._context.world_size > 1:
            dist.all_reduce(total)
        return total.masked_fill(~(total > 0), 1.0)  # rows of weight 0 only: a loss of 0 and no gradient

    def _losses(self, outputs: torch.Tensor, part: Batch) -> torch.Tensor:
        """Return the loss of each row, times its weight: (B,). Of mixed rows that of either row, by their shares."""
        losses = self._weighed(self._losses_to(outputs, part["target"]), part.get("weight"))
        if "mix_share" not in part:
            return losses
        of_other = self._losses_to(outputs, part["mix_target"])
        return losses_of_mixed(losses, self._weighed(of_other, part.get("mix_weight")), part["mix_share"])

    def _losses_to(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row (B,) to targets (B,); of outputs of members (B, M, O) the mean of theirs."""
        if outputs.ndim == 2:
            return self._task.loss_of(outputs, target, self._loss)
        members = outputs.shape[1]
        losses = self._task.loss_of(outputs.flatten(0, 1), target.repeat_interleave(members), self._loss)
        return losses.view(-1, members).mean(1)

    @staticmethod
    def _weighed(losses: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
        return losses if weight is None else losses * weight

    def _count(self, batch: Batch, loss_sum: torch.Tensor) -> torch.Tensor:
        """Return this rank's rows, sum of row ids, weights and losses in 2^-20, and 1 if it is not finite: (5,) int64."""
        # No torch.where with a number: on a GPU that is copied there, for which the host waits.
        is_real, is_bad = ~batch["is_padding"], ~loss_sum.isfinite()
        loss = (loss_sum.double() * _SUM_STEPS).masked_fill(is_bad, 0.0).round().long()
        rows = is_real.sum()
        weight = rows * _SUM_STEPS
        if "weight" in batch:
            weight = ((batch["weight"].double() * is_real).sum() * _SUM_STEPS).round().long()
        return torch.stack([rows, (batch["row_id"] * is_real).sum(), weight, loss, is_bad.long()])


def _wrapped(value: int) -> int:
    """Return the number as a signed 64-bit one that wraps around."""
    return (value + 2**63) % 2**64 - 2**63
