"""The model of a rank, as training and evaluation call it: named tensors in, outputs (B, O) float32 out."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from mlspark import models
from mlspark.errors import ConfigError
from mlspark.models import custom
from mlspark.training.spec import Functions, TrainingSpec

Batch = Mapping[str, torch.Tensor]
"""The encoder's tensors by name, and target, row_id, is_padding (and weight): each of B rows."""


def build(spec: TrainingSpec, functions: Functions, device: torch.device) -> nn.Module:
    """Return the model with fresh weights of torch's generator, on the rank's device."""
    settings, num_outputs = spec.training, spec.task.num_outputs
    if functions.model is not None:
        model = custom.called(functions.model, spec.tensors, num_outputs, spec.model.name)
    else:
        model = models.build(spec.model, spec.tensors, num_outputs)
    if settings.sync_batch_norm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model  # type: ignore[call-overload]


class Outputs:
    """Computes outputs in the precision that the settings ask for."""

    def __init__(self, spec: TrainingSpec, device: torch.device) -> None:
        self._names = tuple(tensor.name for tensor in spec.tensors.specs)
        self._num_outputs, self._name = spec.task.num_outputs, spec.model.name
        self._device = device
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.training.precision)

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> torch.Tensor:
        """Return the model's outputs (B, O) float32 for a batch.

        Raises:
            ConfigError: they have another shape.
        """
        with self._computing():
            outputs = model(**{name: batch[name] for name in self._names})
        expected = (len(batch[self._names[0]]), self._num_outputs)
        if tuple(outputs.shape) != expected:
            raise ConfigError(
                f"{self._name} returned outputs of shape {tuple(outputs.shape)} for {expected[0]} rows; it must return "
                f"{expected}: {self._num_outputs} for each row, as the task has outputs"
            )
        return outputs.float()

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.autocast(self._device.type, dtype=self._dtype) if self._dtype else contextlib.nullcontext():
            yield


def has_unused(spec: TrainingSpec, model: nn.Module, rows: Batch) -> bool:
    """Return whether some parameters get no gradient of these rows, at least two. Leaves the model as it was."""
    outputs = Outputs(spec, rows["is_padding"].device)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    outputs(model, rows).sum().backward()  # type: ignore[no-untyped-call]
    unused = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return bool(unused)
