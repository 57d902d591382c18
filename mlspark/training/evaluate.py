"""A model's outputs for all rows of a split, brought together on rank 0, and the task's metrics of them."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mlspark.engines.eager import ROWS_MULTIPLE
from mlspark.errors import TrainingFailed
from mlspark.evaluation.predictions import Predictions
from mlspark.training import parallel
from mlspark.training.data import RankData
from mlspark.training.network import Batch, Outputs
from mlspark.training.spec import TrainingSpec
from mlspark.training.state import Progress, RankContext


class Evaluator:
    """Evaluates a run's model; every rank calls each method.

    A rank holds the outputs of its own share of the rows; rank 0 holds those of the whole split: 8 bytes for each output
    and 16 for each row, twice while they are sorted.
    """

    def __init__(self, spec: TrainingSpec, context: RankContext, data: RankData) -> None:
        self._task, self._context, self._data = spec.task, context, data
        self._outputs = Outputs(spec, context.device)

    def metrics(self, split: str, model: nn.Module, progress: Progress) -> Mapping[str, Any] | None:
        """Return the task's metrics of all rows as JSON, on every rank; None without rows. Leaves out slow intervals."""
        return self._evaluate(split, model, progress, intervals=False)[0]

    def predictions(
        self, split: str, model: nn.Module, progress: Progress
    ) -> tuple[Mapping[str, Any] | None, Predictions | None]:
        """Return (the task's metrics as JSON, on every rank; the outputs of all rows, on rank 0); None without rows.

        Raises:
            TrainingFailed: rows were lost, or an output is not finite; on every rank.
        """
        return self._evaluate(split, model, progress, intervals=True)

    def _evaluate(
        self, split: str, model: nn.Module, progress: Progress, *, intervals: bool
    ) -> tuple[Mapping[str, Any] | None, Predictions | None]:
        num_rows = self._data.splits[split].num_rows
        if not num_rows:
            return None, None
        parallel.share_buffers(model, self._context.world_size)
        columns = self._gathered(self._shares(split, model, progress))
        predictions: Predictions | None = None
        answer: list[Any] = [None, ""]  # metrics, problem
        if columns is not None:
            rows = {name: column.numpy() for name, column in columns.items()}
            num_finite = int(columns["outputs"].isfinite().all(1).sum())
            if len(rows["row_id"]) != num_rows or num_finite != num_rows:
                answer[1] = (
                    f"evaluation on split={split} gave {len(rows['row_id'])} rows of {num_rows}, the outputs of "
                    f"{num_finite} of them are finite; lower training.optimizer.learning_rate or prepare the "
                    f"table again"
                )
            else:
                predictions = Predictions.of(rows["row_id"], rows["target"], rows["outputs"], rows.get("weight"))
                answer[0] = predictions.metrics(self._task, intervals=intervals).to_json()
        dist.broadcast_object_list(answer, src=0, device=self._context.device)
        metrics, problem = answer
        if problem:
            raise TrainingFailed(problem)
        return metrics, predictions

    def _shares(self, split: str, model: nn.Module, progress: Progress) -> dict[str, torch.Tensor]:
        """Return this rank's outputs (n, O), and target, row_id, ... (n,), of its own n rows."""
        model.eval()
        parts: dict[str, list[torch.Tensor]] = {}
        with self._data.held_out(split) as stream, torch.inference_mode():
            for on_host in stream:
                # Where a batch has none, a row that is another batch's is run, as a sharded model needs, and left out.
                num_rows = 0 if on_host["is_padding"].any() else len(on_host["row_id"])
                batch = self._data.to_device(on_host)
                parts.setdefault("outputs", []).append(self._outputs(model, _padded(batch))[:num_rows])
                for name in ("target", "row_id", "weight"):
                    if name in batch:
                        parts.setdefault(name, []).append(batch[name][:num_rows])
                self._context.stop_if_asked(progress)
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    def _gathered(self, mine: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """Return the ranks' tensors end to end on the CPU of rank 0; None on the others."""
        count = torch.tensor([len(mine["row_id"])], device=self._context.device)
        counts = [torch.empty_like(count) for _ in range(self._context.world_size)]
        dist.all_gather(counts, count)
        most, of_all = max(map(int, counts)), {}
        for name, tensor in mine.items():
            sent = tensor.new_zeros(most, *tensor.shape[1:])  # gathered are equal shapes
            sent[: len(tensor)] = tensor
            received = [torch.empty_like(sent) for _ in range(self._context.world_size)]
            dist.gather(sent, received if self._context.rank == 0 else None, dst=0)
            of_all[name] = torch.cat([part[:rows] for part, rows in zip(received, counts, strict=True)]).cpu()
        return of_all if self._context.rank == 0 else None


def _padded(batch: Batch) -> Batch:
    """Return the batch with its last row repeated up to a multiple of rows, as the engine that scores runs it."""
    num_repeated = -len(batch["row_id"]) % ROWS_MULTIPLE
    if not num_repeated:
        return batch
    return {name: torch.cat([tensor, tensor[-1:].repeat_interleave(num_repeated, 0)]) for name, tensor in batch.items()}
