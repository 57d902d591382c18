"""Gradient checkpointing without a trace: batch norm counts each row once.

Activations that are computed again in the backward pass go through batch norm again, which would move its running
statistics a second time: the weights would be those without checkpointing, and the evaluated model another one. A layer
whose statistics were frozen in the forward pass, as `training.batch_norm` has it for single rows, must be frozen then, too.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class CountedOnce:
    """Watches the batch norm layers of a network whose activations are computed again."""

    def __init__(self) -> None:
        self._is_forward = False
        self._modes: dict[nn.Module, bool] = {}
        """Layer -> whether it was training when it was last called in a forward pass."""
        self._set_aside: dict[nn.Module, tuple[bool, dict[str, torch.Tensor | None]]] = {}
        """Layer that is computing again -> its own mode and statistics."""

    @contextlib.contextmanager
    def forward(self, network: nn.Module) -> Iterator[None]:
        """Take what is computed within as the forward pass, and anything outside as computed again."""
        for module in network.modules():  # not before: they are others once batch norm is synchronised
            if isinstance(module, _BatchNorm) and module not in self._modes:
                self._modes[module] = module.training
                module.register_forward_pre_hook(self._before)
                module.register_forward_hook(self._after, always_call=True)
        self._is_forward = True
        try:
            yield
        finally:
            self._is_forward = False

    def _before(self, norm: nn.Module, inputs: Any) -> None:
        if not self._is_forward:
            self._set_aside[norm] = norm.training, dict(norm._buffers)
            norm.training = self._modes[norm]
            # Copies, not nothing: autograd must keep as many tensors as in the forward pass.
            for name, value in norm._buffers.items():
                norm._buffers[name] = None if value is None else value.clone()

    def _after(self, norm: nn.Module, inputs: Any, outputs: Any) -> None:
        if self._is_forward:
            self._modes[norm] = norm.training
        elif norm in self._set_aside:
            norm.training, own = self._set_aside.pop(norm)
            norm._buffers.update(own)
