"""A model's outputs for all rows of a split, brought together on rank 0, and the task's metrics of them."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from mlspark.engines.eager import ROWS_MULTIPLE
from mlspark.errors import TrainingFailed
from mlspark.evaluation.predictions import Predictions
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
        columns = self._gathered(self._shares(split, model, progress))
        predictions: Predictions | None = None
        answer: list[Any] = [None, ""]  # metrics, problem
        if columns is not None:
            is_real = ~columns["is_padding"]
            rows = {name: column[is_real].numpy() for name, column in columns.items() if name != "is_padding"}
            num_finite = int(columns["outputs"].isfinite().all(1).sum())
            if len(rows["row_id"]) != num_rows or num_finite != len(is_real):
                answer[1] = (
                    f"evaluation on split={split} gave {len(rows['row_id'])} rows of {num_rows}, the outputs of "
                    f"{num_finite} of {len(is_real)} are finite; lower training.optimizer.learning_rate or prepare the "
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
        """Return this rank's outputs (n, O), and target, row_id, ... (n,); padding counts, so n is equal on all ranks."""
        model.eval()
        parts: dict[str, list[torch.Tensor]] = {}
        with self._data.held_out(split) as stream, torch.inference_mode():
            for on_host in stream:
                batch = self._data.to_device(on_host)
                parts.setdefault("outputs", []).append(self._outputs(model, _padded(batch))[: len(batch["row_id"])])
                for name in ("target", "row_id", "is_padding", "weight"):
                    if name in batch:
                        parts.setdefault(name, []).append(batch[name])
                self._context.stop_if_asked(progress)
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    def _gathered(self, mine: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """Return the ranks' tensors end to end on the CPU of rank 0; None on the others."""
        of_all = {}
        for name, tensor in mine.items():
            sent = tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor
            received = [torch.empty_like(sent) for _ in range(self._context.world_size)]
            dist.gather(sent, received if self._context.rank == 0 else None, dst=0)
            of_all[name] = torch.cat(received).cpu()
        if self._context.rank != 0:
            return None
        return of_all | {"is_padding": of_all["is_padding"].bool()}


def _padded(batch: Batch) -> Batch:
    """Return the batch with its last row repeated up to a multiple of rows, as the engine that scores runs it."""
    num_repeated = -len(batch["row_id"]) % ROWS_MULTIPLE
    if not num_repeated:
        return batch
    return {name: torch.cat([tensor, tensor[-1:].repeat_interleave(num_repeated, 0)]) for name, tensor in batch.items()}
