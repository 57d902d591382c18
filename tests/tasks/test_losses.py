import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from mlspark.errors import ConfigError
from mlspark.tasks.kinds import from_settings
from mlspark.tasks.losses import losses_of_mixed
from mlspark.tasks.task import Task


def binary(**loss: Any) -> Task:
    return from_settings(
        {"kind": "binary", "target": "income", "classes": ["no", "yes"], "loss": {"kind": "cross_entropy", **loss}}
    )


def multiclass(**loss: Any) -> Task:
    return from_settings(
        {"kind": "multiclass", "target": "grade", "classes": [1, 2, 3], "loss": {"kind": "cross_entropy", **loss}}
    )


def regression(**settings: Any) -> Task:
    return from_settings({"kind": "regression", "target": "price", "standardise": False, **settings})


def rows(outputs: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    logits = torch.randn(513, outputs, generator=random) * 4
    return logits.to(dtype), (torch.rand(513, generator=random) < 0.3).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weight", [1.0, 2.7])
def test_binary_losses_have_the_bits_of_earlier_versions(dtype: torch.dtype, smoothing: float, weight: float) -> None:
    outputs, label = rows(1, dtype)
    smooth = label * (1.0 - smoothing) + 0.5 * smoothing if smoothing else label
    expected = functional.binary_cross_entropy_with_logits(outputs[:, 0].float(), smooth, reduction="none")
    expected = expected if weight == 1.0 else expected * (1 + (weight - 1) * label)
    task = binary(label_smoothing=smoothing, class_weights={"yes": weight})
    assert torch.equal(task.loss_of(outputs, label), expected)


def test_gradients_of_binary_losses_have_the_bits_of_earlier_versions() -> None:
    outputs, label = rows(1)
    first, second = outputs.clone().requires_grad_(), outputs.clone().requires_grad_()
    binary().loss_of(first, label).sum().backward()
    functional.binary_cross_entropy_with_logits(second[:, 0].float(), label, reduction="none").sum().backward()
    assert torch.equal(first.grad, second.grad)  # type: ignore[arg-type]


def test_both_classes_may_have_a_weight() -> None:
    outputs, label = torch.zeros(2, 1), torch.tensor([0.0, 1.0])
    losses = binary(class_weights={"no": 3.0, "yes": 0.5}).loss_of(outputs, label)
    assert losses.tolist() == pytest.approx([3 * math.log(2), 0.5 * math.log(2)])


def test_focal_losses_of_hand_worked_rows() -> None:
    # Probability of the true class 3/4, 1/4: -(1 - p) ** 2 * ln p.
    outputs = torch.tensor([[math.log(3)], [math.log(3)]])
    losses = binary(kind="focal", gamma=2.0).loss_of(outputs, torch.tensor([1.0, 0.0]))
    assert losses.tolist() == pytest.approx([1 / 16 * math.log(4 / 3), 9 / 16 * math.log(4)], rel=1e-5)
    several = torch.log(torch.tensor([[2.0, 1.0, 1.0]]))
    losses = multiclass(kind="focal", gamma=1.0).loss_of(several, torch.tensor([0]))
    assert losses.tolist() == pytest.approx([0.5 * math.log(2)], rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradients_of_sure_rows_are_finite(gamma: float) -> None:
    outputs = torch.tensor([[80.0], [-80.0]], requires_grad=True)
    binary(kind="focal", gamma=gamma).loss_of(outputs, torch.tensor([1.0, 1.0])).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()


def test_focal_without_gamma_is_cross_entropy() -> None:
    outputs, label = rows(1)
    assert torch.equal(binary(kind="focal", gamma=0.0).loss_of(outputs, label), binary().loss_of(outputs, label))


def test_multiclass_losses_of_hand_worked_rows() -> None:
    outputs, target = torch.log(torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0]])), torch.tensor([0, 2])
    assert multiclass().loss_of(outputs, target).tolist() == pytest.approx([math.log(2), math.log(4)])
    weighted = multiclass(class_weights={3: 2.0}).loss_of(outputs, target)
    assert weighted.tolist() == pytest.approx([math.log(2), 2 * math.log(4)])
    # Smoothed by 0.3: 0.8 of the true class, 0.1 of each of the others.
    smooth = multiclass(label_smoothing=0.3).loss_of(outputs, target)
    assert smooth[0].item() == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))


def test_int32_class_ids_are_accepted() -> None:
    losses = multiclass().loss_of(torch.zeros(2, 3, dtype=torch.float16), torch.tensor([0, 2], dtype=torch.int32))
    assert losses.tolist() == pytest.approx([math.log(3)] * 2)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"kind": "mse"}, [0.25, 9.0]),
        ({"kind": "mae"}, [0.5, 3.0]),
        ({"kind": "huber", "delta": 1.0}, [0.125, 2.5]),
        ({"kind": "huber", "delta": 2.0}, [0.125, 4.0]),  # 2 * (3 - 1)
    ],
)
def test_regression_losses_of_hand_worked_rows(loss: dict[str, Any], expected: list[float]) -> None:
    outputs, target = torch.tensor([[1.5], [1.0]]), torch.tensor([1.0, 4.0], dtype=torch.float64)
    losses = regression(loss=loss).loss_of(outputs, target)
    assert losses.dtype == torch.float32
    assert losses.tolist() == expected


def test_model_is_trained_after_an_evaluation_that_asked_first() -> None:
    task = regression(loss={"kind": "quantile", "quantiles": (0.125, 0.5)})
    outputs, target = torch.zeros(1, 2, requires_grad=True), torch.ones(1)
    with torch.inference_mode():
        evaluated = task.loss_of(outputs, target)
    task.loss_of(outputs, target).sum().backward()
    assert outputs.grad is not None
    assert (evaluated.tolist(), outputs.grad.tolist()) == ([0.3125], [[-0.0625, -0.25]])


def test_quantile_losses_of_hand_worked_rows() -> None:
    task = regression(loss={"kind": "quantile", "quantiles": (0.25, 0.5)})
    # Target 2: 1 too low at 0.25 costs 0.25, 2 too high at 0.5 costs 1.
    assert task.loss_of(torch.tensor([[1.0, 4.0]]), torch.tensor([2.0])).tolist() == [(0.25 + 1.0) / 2]


def test_regression_losses_are_of_the_transformed_target() -> None:
    task = regression(transform="log1p", standardise=True, center=1.0, scale=2.0, loss={"kind": "mae"})
    target = torch.tensor([math.e**5 - 1], dtype=torch.float64)  # log1p 5, (5 - 1) / 2 = 2
    assert task.loss_of(torch.tensor([[1.5]]), target).tolist() == pytest.approx([0.5])
    assert task.predictions([[2.0]])["prediction"].tolist() == pytest.approx([math.e**5 - 1])


def half_squares(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    assert outputs.shape == target.shape
    return 0.5 * (outputs - target) ** 2


def test_custom_losses_get_one_output_as_a_vector() -> None:
    task = regression(loss={"kind": "custom", "function": "torch.nn.functional:l1_loss"})
    outputs, target = torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 2.0])
    assert task.loss_of(outputs, target, half_squares).tolist() == [0.5, 2.0]
    several = multiclass(kind="custom", function="torch.nn.functional:cross_entropy")
    losses = several.loss_of(torch.zeros(2, 3), torch.tensor([0, 1]), lambda outputs, ids: outputs[:, 0] + ids)
    assert losses.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("torch.nn.functional:l1_loss", r"returned shape \(\) for 2 rows; it must return the loss of each row"),
        ("no.such:module", "cannot be imported .* give package.module:function"),
        ("math:tau", "task.loss.function=math:tau is float, not a function"),
    ],
)
def test_wrong_custom_losses_are_named(function: str, message: str) -> None:
    task = binary(kind="custom", function=function)
    with pytest.raises(ConfigError, match=message):
        task.loss_of(torch.zeros(2, 1), torch.zeros(2))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_mixed_rows_are_those_of_their_mixed_target(smoothing: float) -> None:
    """Against torch's cross-entropy of (B, 3) shares of classes, with class weights, and of a share of the event."""
    random = torch.Generator().manual_seed(3)
    outputs, share = torch.randn(50, 3, generator=random) * 3, torch.rand(50, generator=random)
    own, other = torch.randint(3, (2, 50), generator=random)
    task = multiclass(label_smoothing=smoothing, class_weights={"2": 2.5})
    mixed = losses_of_mixed(task.loss_of(outputs, own), task.loss_of(outputs, other), share)
    hot = functional.one_hot(torch.stack([own, other]), 3).float()
    # Our class weight is of the row's class; torch's, with smoothing, of each class that has a share.
    weight = torch.tensor([1.0, 2.5, 1.0])
    spread = (hot * (1 - smoothing) + smoothing / 3) * (hot @ weight)[:, :, None]
    soft = share[:, None] * spread[0] + (1 - share[:, None]) * spread[1]
    torch.testing.assert_close(mixed, functional.cross_entropy(outputs, soft, reduction="none"))
    of_two = binary(label_smoothing=smoothing)
    mixed = losses_of_mixed(
        of_two.loss_of(outputs[:, :1], own % 2.0), of_two.loss_of(outputs[:, :1], other % 2.0), share
    )
    event = (share * (own % 2) + (1 - share) * (other % 2)) * (1 - smoothing) + smoothing / 2
    torch.testing.assert_close(
        mixed, functional.binary_cross_entropy_with_logits(outputs[:, 0], event, reduction="none")
    )
