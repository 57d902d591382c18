"""The checkpoints of a run, as one rank writes and reads them."""

import contextlib
import time

import torch
import torch.distributed as dist

from mlspark.errors import TrainingFailed
from mlspark.training import checkpoint
from mlspark.training.events import CheckpointWritten, Resumed, StorageTrouble
from mlspark.training.spec import TrainingSpec
from mlspark.training.state import RankContext, TrainState


class RunCheckpoints:
    """Writes a run's checkpoints in a thread while training goes on, and goes back to the newest."""

    def __init__(self, spec: TrainingSpec, table: str, context: RankContext, state: TrainState) -> None:
        """Start the thread.

        Args:
            spec: the run.
            table: fingerprint of its snapshot.
            context: of this rank.
            state: what is saved.
        """
        self._spec, self._context, self._state = spec, context, state
        self._identity = spec.identity(table)
        self._saved_steps = -1
        self._writer = checkpoint.Writer(
            retry_seconds=spec.training.recovery.storage_seconds,
            on_trouble=lambda text: context.report(StorageTrouble(text)),
        )

    def resume(self) -> None:
        """Go to the newest checkpoint, the same on every rank; stay at the start without one.

        Raises:
            CheckpointError: it is of other settings.
            TrainingFailed: the ranks see different ones.
        """
        newest = checkpoint.newest(self._spec.checkpoints_uri, self._identity)
        step = newest.about["progress"]["steps"] if newest else -1
        mine = torch.tensor([step], device=self._context.device)
        of_all = [torch.empty_like(mine) for _ in range(self._context.world_size)]
        dist.all_gather(of_all, mine)
        if len(steps := {int(step_of_rank) for step_of_rank in of_all}) > 1:
            raise TrainingFailed(
                f"{self._spec.checkpoints_uri}: the ranks see different checkpoints, of steps {sorted(steps)}; "
                f"storage.root must be one place for all nodes"
            )
        if self._context.rank == 0:
            checkpoint.sweep(self._spec.checkpoints_uri)
        if newest is None:
            return
        self._state.load(newest)
        progress = self._state.progress
        self._saved_steps = progress.steps
        self._context.report(Resumed(progress.epoch + 1, progress.steps))

    def save(self) -> None:
        """Have a checkpoint of this moment written, while training goes on. Called on every rank."""
        if not self._takes_part:
            return
        state, progress = self._state, self._state.progress
        saved = state.copy()
        weights = state.parallel.weights(state.model)
        about = {
            "identity": self._identity, "progress": progress.to_json(), "world_size": self._context.world_size
        }  # fmt: skip
        self._saved_steps = progress.steps
        if self._context.rank != 0:
            return
        uri, keep = self._spec.checkpoints_uri, self._spec.training.recovery.keep_checkpoints
        step, started = progress.steps, time.perf_counter()

        def write() -> None:
            checkpoint.save(checkpoint.step_uri(uri, step), weights=weights, about=about, state=saved)
            checkpoint.prune(uri, keep)
            self._context.report(CheckpointWritten(step, time.perf_counter() - started))

        self._writer.submit(write)

    def save_best(self) -> None:
        """Have the weights of this moment written as the run's best. Called on every rank."""
        if not self._takes_part:
            return
        progress = self._state.progress
        weights = self._state.parallel.weights(self._state.evaluated)
        about = {"epoch": progress.best_epoch, "step": progress.steps, "metrics": progress.best_metrics}
        if self._context.rank == 0:
            self._writer.submit(lambda: checkpoint.save(self._spec.best_uri, weights=weights, about=about))

    def save_cycle(self, cycle: int) -> None:
        """Have the weights of this moment written as those at the end of a cycle, from 0. Called on every rank."""
        if not self._takes_part:
            return
        weights, about = self._state.parallel.weights(self._state.evaluated), {"step": self._state.progress.steps}
        if self._context.rank == 0:
            uri = self._spec.snapshot_uris[cycle]
            self._writer.submit(lambda: checkpoint.save(uri, weights=weights, about=about))

    def save_after_failure(self) -> None:
        """Write a checkpoint of the last whole step after a failure: rank 0, where it holds everything and can."""
        state = self._state
        holds_all = self._context.rank == 0 and not state.parallel.needs_all_ranks
        if holds_all and state.is_whole and state.progress.steps > self._saved_steps:
            with contextlib.suppress(Exception):  # the failure that brought us here is the one to report
                state.undo_step()
                self.save()
                self._writer.wait()

    def load_kept(self, uri: str) -> None:
        """Put the weights that are kept at `uri`, the best or those of a cycle, into the model. Called on every rank.

        Raises:
            CheckpointError: they could not be written or read.
        """
        self._writer.wait()
        dist.barrier()  # rank 0 has written them
        self._state.parallel.load(checkpoint.load(uri).weights)

    def close(self) -> None:
        """End the thread when all is written; raises nothing."""
        self._writer.close()

    @property
    def _takes_part(self) -> bool:
        return self._context.rank == 0 or self._state.parallel.needs_all_ranks  # else rank 0 holds the same
