"""Batch norm where a rank has too few rows: no statistics are taken of a row that does not count, or of a single value."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase


class BatchNorms:
    """The layers of a model that take statistics of rows in training. Frozen ones use those that they have so far."""

    def __init__(self, model: nn.Module) -> None:
        self._norms = [module for module in model.modules() if isinstance(module, _NormBase)]
        is_one_of_several = dist.is_initialized() and dist.get_world_size() > 1
        self.are_synced = is_one_of_several and any(isinstance(norm, nn.SyncBatchNorm) for norm in self._norms)
        """Whether statistics are taken over all ranks, so that all must do the same."""

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Take no statistics."""
        with _restored(self._norms):
            for norm in self._norms:
                norm.training = False
            yield

    @contextlib.contextmanager
    def frozen_for_one_value(self) -> Iterator[None]:
        """Take none in those layers that get a single value for each channel: torch refuses a variance of one value."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_restored(self._norms))
            for norm in self._norms:
                if isinstance(norm, _BatchNorm) and not (self.are_synced and isinstance(norm, nn.SyncBatchNorm)):
                    stack.callback(norm.register_forward_pre_hook(_freeze_for_one_value).remove)
            yield


def synced(model: nn.Module) -> nn.Module:
    """Return the model with batch norm that takes its statistics over all ranks.

    timm has layers that are batch norm and activation in one, which torch's own function replaces by batch norm alone.
    """
    if any(type(module).__module__.startswith("timm.") for module in model.modules()):
        from timm import layers

        return layers.convert_sync_batchnorm(model)  # type: ignore[attr-defined,no-any-return,no-untyped-call]
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-any-return,no-untyped-call]


@contextlib.contextmanager
def _restored(norms: Sequence[nn.Module]) -> Iterator[None]:
    modes = [norm.training for norm in norms]
    try:
        yield
    finally:
        for norm, mode in zip(norms, modes, strict=True):
            norm.training = mode


def _freeze_for_one_value(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
    values = inputs[0]
    if isinstance(values, torch.Tensor) and values.dim() > 1 and values.numel() == values.shape[1]:
        norm.training = False
