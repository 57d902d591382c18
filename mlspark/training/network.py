"""The model of a rank, as training and evaluation call it: named tensors in, outputs (B, O) float32 out."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from mlspark import models, storage
from mlspark.errors import ConfigError
from mlspark.models import custom
from mlspark.models import weights as weights_file
from mlspark.training import batch_norm
from mlspark.training.spec import NO_FUNCTIONS, Functions, TrainingSpec

Batch = Mapping[str, torch.Tensor]
"""The encoder's tensors by name, and target, row_id, is_padding (and weight): each of B rows."""


def build(spec: TrainingSpec, functions: Functions, device: torch.device) -> nn.Module:
    """Return the model with the weights that training begins with, on the rank's device.

    Those of spec.initial_uri where the settings name initial weights, the others of torch's generator.
    """
    settings = spec.training
    model = with_random_weights(spec, functions)
    if spec.model.initial is not None:
        model.load_state_dict(
            _initial_weights(spec), strict=False
        )  # `registry.initial_weights.fitted` has seen to the rest
    if settings.sync_batch_norm:
        model = batch_norm.synced(model)
    model = model.to(device)
    return model.to(memory_format=torch.channels_last) if settings.channels_last else model  # type: ignore[call-overload]


def _initial_weights(spec: TrainingSpec) -> Mapping[str, torch.Tensor]:
    try:
        return weights_file.from_bytes(storage.read_bytes(spec.initial_uri))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{spec.initial_uri}: the weights that the run begins with are not there; storage.root must be one place for "
            f"all nodes, and files of a run be left alone"
        ) from error


def with_random_weights(spec: TrainingSpec, functions: Functions = NO_FUNCTIONS) -> nn.Module:
    """Return the model with fresh weights of torch's generator, on the CPU."""
    if functions.model is not None:
        return custom.called(functions.model, spec.tensors, spec.task.num_outputs, spec.model.name)
    return models.build(spec.model, spec.tensors, spec.task.num_outputs)


class Outputs:
    """Computes outputs in the precision that the settings ask for."""

    def __init__(self, spec: TrainingSpec, device: torch.device, *, in_training: bool = False) -> None:
        """Take what it needs of the spec; `in_training` a model may return outputs of several members, (B, M, O)."""
        self._in_training = in_training
        self._names = tuple(tensor.name for tensor in spec.tensors.specs)
        self._num_outputs, self._name = spec.task.num_outputs, spec.model.name
        self._device = device
        self._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.training.precision)

    def __call__(self, model: Callable[..., torch.Tensor], batch: Batch) -> torch.Tensor:
        """Return the model's outputs (B, O), or those of its members (B, M, O), float32, for a batch.

        Raises:
            ConfigError: they have another shape.
        """
        with self._computing():
            outputs = model(**{name: batch[name] for name in self._names})
        expected = (len(batch[self._names[0]]), self._num_outputs)
        of_members = self._in_training and outputs.ndim == 3
        if tuple(outputs[:, 0].shape if of_members else outputs.shape) != expected:
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
    outputs = Outputs(spec, rows["is_padding"].device, in_training=True)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    outputs(model, rows).sum().backward()  # type: ignore[no-untyped-call]
    unused = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return bool(unused)
