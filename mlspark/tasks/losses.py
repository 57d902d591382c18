"""Losses of a row, with their settings. Settings are read anywhere; the functions run on the ranks and import torch."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from mlspark.errors import ConfigError
from mlspark.section import Section, function_at

if TYPE_CHECKING:
    import torch

LossFunction = Callable[..., Any]
"""Function of a batch's outputs and target that returns the loss of each row (B,)."""
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class _ClassWeights(Section):
    class_weights: dict[str, Positive] = {}  # noqa: RUF012 (pydantic copies it)
    """Class -> factor by which the loss of its rows is multiplied; 1 for classes that are not named."""

    @field_validator("class_weights", mode="before")
    @classmethod
    def _keys_are_texts(cls, value: Any) -> Any:
        return {key_text(key): of for key, of in value.items()} if isinstance(value, dict) else value


class CrossEntropyLoss(_ClassWeights):
    """Minus the logarithm of the probability of the true class."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each row's label that is spread over all classes evenly."""


class FocalLoss(_ClassWeights):
    """Cross-entropy times (1 - probability of the true class) ** gamma: hard rows count more (Lin et al. 2017)."""

    kind: Literal["focal"]
    gamma: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 2.0
    """Exponent by which rows that are predicted well count less; 0 is cross-entropy."""


class SquaredLoss(Section):
    """Squared error of the transformed target: predicts its mean."""

    kind: Literal["mse"] = "mse"


class AbsoluteLoss(Section):
    """Absolute error of the transformed target: predicts its median."""

    kind: Literal["mae"]


class HuberLoss(Section):
    """Half the squared error up to `delta`, linear beyond: outliers count less (Huber 1964)."""

    kind: Literal["huber"]
    delta: Positive = 1.0
    """Error from which the loss grows linearly, in units of the transformed target."""


class QuantileLoss(Section):
    """Pinball loss, one output for each quantile: predicts the median and how far the target may lie from it."""

    kind: Literal["quantile"]
    quantiles: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=1)] = (0.1, 0.5, 0.9)
    """Quantiles to predict, ascending. 0.5 yields `prediction`, the lowest below it `prediction_low`, the highest above it
    `prediction_high`."""

    @field_validator("quantiles")
    @classmethod
    def _ascend_around_the_median(cls, quantiles: tuple[float, ...]) -> tuple[float, ...]:
        if list(quantiles) != sorted(set(quantiles)):
            raise ValueError(f"must ascend, got {', '.join(map(str, quantiles))}")
        if 0.5 not in quantiles:
            raise ValueError(f"must contain 0.5, the prediction itself, got {', '.join(map(str, quantiles))}")
        return quantiles


class CustomLoss(Section):
    """A function of one's own."""

    kind: Literal["custom"]
    function: Annotated[str, Field(pattern=r"^[^:\s]+:[^:\s]+$")]
    """package.module:function of outputs and target that returns the loss of each row (B,). Outputs are (B,) where the
    task has one output, else (B, O); the target is (B,): 0.0 or 1.0, class ids, or the transformed number."""


ClassLoss = Annotated[CrossEntropyLoss | FocalLoss | CustomLoss, Field(discriminator="kind")]
NumberLoss = Annotated[SquaredLoss | AbsoluteLoss | HuberLoss | QuantileLoss | CustomLoss, Field(discriminator="kind")]


def key_text(value: Any) -> str:
    """Return how a class is written as a key: as in JSON, texts without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def binary_losses(
    settings: CrossEntropyLoss | FocalLoss, logits: "torch.Tensor", label: "torch.Tensor"
) -> "torch.Tensor":
    """Return the loss of each row (B,) of logits (B,) float32 and labels (B,), 0.0 or 1.0."""
    import torch
    from torch.nn import functional

    smooth = label
    if isinstance(settings, CrossEntropyLoss) and settings.label_smoothing:
        smooth = label * (1.0 - settings.label_smoothing) + 0.5 * settings.label_smoothing
    losses = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none")
    return losses * _focus(torch, settings, losses) if isinstance(settings, FocalLoss) else losses


def multiclass_losses(
    settings: CrossEntropyLoss | FocalLoss, outputs: "torch.Tensor", class_ids: "torch.Tensor"
) -> "torch.Tensor":
    """Return the loss of each row (B,) of outputs (B, K) float32 and class ids (B,) int64."""
    import torch
    from torch.nn import functional

    smoothing = settings.label_smoothing if isinstance(settings, CrossEntropyLoss) else 0.0
    losses = functional.cross_entropy(outputs, class_ids, reduction="none", label_smoothing=smoothing)
    return losses * _focus(torch, settings, losses) if isinstance(settings, FocalLoss) else losses


def _focus(torch: Any, settings: FocalLoss, losses: "torch.Tensor") -> Any:
    # Not 0: the gradient of 0 ** gamma is infinite for a gamma below 1.
    return (-torch.expm1(-losses)).clamp_min(1e-12) ** settings.gamma


def number_losses(
    settings: SquaredLoss | AbsoluteLoss | HuberLoss | QuantileLoss, outputs: "torch.Tensor", target: "torch.Tensor"
) -> "torch.Tensor":
    """Return the loss of each row (B,) of outputs (B, O) and transformed targets (B,), both float32."""
    import torch
    from torch.nn import functional

    match settings:
        case SquaredLoss():
            return functional.mse_loss(outputs[:, 0], target, reduction="none")
        case AbsoluteLoss():
            return functional.l1_loss(outputs[:, 0], target, reduction="none")
        case HuberLoss():
            return functional.huber_loss(outputs[:, 0], target, reduction="none", delta=settings.delta)
    quantiles = numbers(settings.quantiles, outputs)
    errors = target[:, None] - outputs  # (B, O)
    return torch.maximum(quantiles * errors, (quantiles - 1.0) * errors).mean(dim=1)


def numbers(values: tuple[float, ...], like: "torch.Tensor") -> "torch.Tensor":
    """Return numbers as a tensor (n,) of the type and device of another; made once, as a host waits for copies to a GPU."""
    return _numbers(values, like.dtype, like.device)


@functools.cache
def _numbers(values: tuple[float, ...], dtype: "torch.dtype", device: "torch.device") -> "torch.Tensor":
    import torch

    with torch.inference_mode(False):  # an evaluation may be the first to ask, and a training goes on with its answer
        return torch.tensor(values, dtype=dtype, device=device)


def losses_of_mixed(own: "torch.Tensor", of_other: "torch.Tensor", share: "torch.Tensor") -> "torch.Tensor":
    """Return the loss of rows that are mixtures (B,): share * own + (1 - share) * other, all (B,).

    For cross-entropy, with class weights and label smoothing too, this is the loss of the mixed target, in which it is
    linear (equation 1 of Zhang et al. 2018 and of Yun et al. 2019, whose published code computes it in this way). Focal
    losses and those of one's own, which take classes only, are mixed alike.

    Args:
        own: loss of the outputs for the row's own target, times its weight.
        of_other: for the target of the row that it is mixed with, times the weight of that.
        share: of the row itself.
    """
    return share * own + (1.0 - share) * of_other


def custom_losses(
    settings: CustomLoss, function: LossFunction | None, outputs: "torch.Tensor", target: "torch.Tensor"
) -> "torch.Tensor":
    """Return the loss of each row (B,) by a function of one's own.

    Raises:
        ConfigError: it cannot be imported, or does not return one loss per row.
    """
    import torch

    function = function or _imported(settings.function)
    losses = function(outputs[:, 0] if outputs.shape[1] == 1 else outputs, target)
    if not isinstance(losses, torch.Tensor) or losses.shape != target.shape:
        shape = f"shape {tuple(losses.shape)}" if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise ConfigError(
            f"task.loss.function={settings.function} returned {shape} for {len(target)} rows; it must return the loss "
            f"of each row, without a mean or sum"
        )
    return losses


@functools.cache
def _imported(path: str) -> LossFunction:
    return function_at(path, "task.loss.function")
