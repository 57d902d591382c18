"""Optimizer, learning-rate schedule and averaged weights of a run, as its settings ask for."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlspark.errors import ConfigError
from mlspark.training import parameters
from mlspark.training.settings import OptimizerSettings

RATE = "rate"
"""Entry of an optimizer's group: factor of the learning rate."""


def optimizer(
    settings: OptimizerSettings, model: nn.Module, first_epochs: Mapping[str, int | None] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer of the model's parameters, where torch can in its fused form: one kernel for all of them.

    Args:
        settings: kind, rates.
        model: whose parameters are trained.
        first_epochs: parameter -> first epoch that trains it; see `parameters.Freezing`.

    Raises:
        ConfigError: a prefix of `rates` meets no parameter; or timm, which has the optimizer, is not installed.
    """
    groups: list[dict[str, Any]] = [
        {
            "params": weights,
            "lr": settings.learning_rate * rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
            RATE: rate,
        }
        for rate, decays, weights in parameters.groups(settings, model, first_epochs or {})
    ]
    if settings.is_of_timm:
        return _of_timm(settings, groups)
    if settings.kind == "sgd":
        is_sharded = any(hasattr(parameter, "placements") for parameter in model.parameters())
        # torch 2.12 has no fused SGD for parts of parameters.
        sgd = torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, fused=not is_sharded)
        if settings.momentum and not is_sharded:
            # The fused form fails on parameters without momentum beside those with: of a branch that is first taken later.
            for weight in model.parameters():
                sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return sgd
    return torch.optim.AdamW(groups, fused=True)


def _of_timm(settings: OptimizerSettings, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    try:
        from timm.optim.lamb import Lamb
        from timm.optim.lion import Lion
    except ImportError as error:
        raise ConfigError(
            f"training.optimizer.kind={settings.kind} is timm's, which is not installed here ({error}); install "
            f"mlspark[pictures] on every node, or use adamw or sgd"
        ) from error
    if settings.kind == "lamb":
        return Lamb(groups, max_grad_norm=None)  # gradients are clipped by `clip_norm`
    return Lion(groups)


def begin_groups(of: torch.optim.Optimizer) -> None:
    """Have groups whose parameters were not trained so far begin with step 1: LAMB counts all steps of a group."""
    for group in of.param_groups:
        if not any(weight in of.state for weight in group["params"]):
            group.pop("step", None)


def schedule(
    settings: OptimizerSettings, of: torch.optim.Optimizer, *, epochs: int, steps_per_epoch: int
) -> LRScheduler:
    """Return the schedule of the learning rate, which takes one step after each of the optimizer's.

    All groups go the same way, each at its factor.
    """
    total = epochs * steps_per_epoch
    if settings.schedule == "one_cycle":
        return OneCycleLR(
            of,
            [group["lr"] for group in of.param_groups],
            total_steps=total,
            pct_start=settings.warmup_share or 0.3,
            cycle_momentum=settings.kind == "adamw",  # SGD's is a setting; those of lamb and lion are theirs
        )
    num_warmup, of_cycle = round(total * settings.warmup_share), total // settings.cycles

    def cosine(step: int) -> float:
        begin = of_cycle * min(step // of_cycle, settings.cycles - 1)
        end, begin = begin + of_cycle, max(begin, num_warmup)
        return (1 + math.cos(math.pi * (step - begin) / max(1, end - begin))) / 2

    after: dict[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "cosine": cosine,
        "step": lambda step: settings.step_factor ** (step // (settings.step_epochs * steps_per_epoch)),
    }

    def factor(step: int) -> float:
        return (step + 1) / (num_warmup + 1) if step < num_warmup else after[settings.schedule](step)

    return LambdaLR(of, factor)


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return exponential moving averages of the model's weights and buffers; the first update copies them."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)  # type: ignore[no-untyped-call]
