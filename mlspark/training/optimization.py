"""Optimizer, learning-rate schedule and averaged weights of a run, as its settings ask for."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlspark.training.settings import OptimizerSettings


def optimizer(settings: OptimizerSettings, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the model's parameters, where torch can in its fused form: one kernel for all of them."""
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "fused": True}
    if settings.kind == "sgd":
        is_sharded = any(hasattr(parameter, "placements") for parameter in model.parameters())
        common["fused"] = not is_sharded  # torch 2.12 has no fused SGD for parts of parameters
        return torch.optim.SGD(model.parameters(), momentum=settings.momentum, **common)
    return torch.optim.AdamW(model.parameters(), **common)


def schedule(
    settings: OptimizerSettings, of: torch.optim.Optimizer, *, epochs: int, steps_per_epoch: int
) -> LRScheduler:
    """Return the schedule of the learning rate, which takes one step after each of the optimizer's."""
    total = epochs * steps_per_epoch
    if settings.schedule == "one_cycle":
        return OneCycleLR(
            of,
            settings.learning_rate,
            total_steps=total,
            pct_start=settings.warmup_share or 0.3,
            cycle_momentum=settings.kind != "sgd",  # whose momentum is a setting
        )
    num_warmup = round(total * settings.warmup_share)
    after: dict[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: (1 + math.cos(math.pi * (step - num_warmup) / max(1, total - num_warmup))) / 2,
        "step": lambda step: settings.step_factor ** (step // (settings.step_epochs * steps_per_epoch)),
    }

    def factor(step: int) -> float:
        return (step + 1) / (num_warmup + 1) if step < num_warmup else after[settings.schedule](step)

    return LambdaLR(of, factor)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return exponential moving averages of the model's weights and buffers; the first update copies them."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
