"""kind: trees, gradient-boosted trees by XGBoost: settings, and learning from rows in memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mlspark.errors import ConfigError
from mlspark.features.tensors import Tensors
from mlspark.models.model import Model
from mlspark.tasks.losses import HuberLoss, QuantileLoss
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix

UNSEEN_ID = 1
"""Id of a category that the training rows did not have: see `features`."""
_MOST_CATEGORIES = 2**24  # float32 holds every whole number up to it
_OBJECTIVES = {
    "mse": ("reg:squarederror", "rmse"),
    "mae": ("reg:absoluteerror", "mae"),
    "huber": ("reg:pseudohubererror", "mphe"),
    "quantile": ("reg:quantileerror", "quantile"),
}
"""Loss of a number -> XGBoost's objective, and its metric that early stopping watches."""


class TreesSettings(Model):
    """Boosted trees. Of the section `training` only `seed` is used, and with rows beyond `memory_bytes` `num_processes`."""

    learner: ClassVar[str] = "trees"

    kind: Literal["trees"] = "trees"
    num_rounds: Annotated[int, Field(ge=1)] = 2000
    """Most boosting rounds; each grows one tree for each output."""
    early_stopping_rounds: Annotated[int, Field(ge=0)] = 50
    """Rounds without a lower loss of the validation rows after which training stops and keeps the best round; 0, or no
    validation rows: grow all rounds."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.05
    """Factor by which each tree's values are multiplied before they are added."""
    max_depth: Annotated[int, Field(ge=1)] = 6
    """Most splits between a tree's root and a leaf."""
    min_child_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Least sum of the second derivatives of the loss in a leaf; for squared errors its weight in rows."""
    subsample: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Share of the rows, drawn at random, that each tree is grown on."""
    colsample: Annotated[float, Field(gt=0.0, le=1.0)] = 0.8
    """Share of the columns, drawn at random, that each tree may split by."""
    reg_lambda: Annotated[float, Field(ge=0.0)] = 1.0
    """L2 penalty of the leaves' values."""
    max_bin: Annotated[int, Field(ge=2)] = 256
    """Most bins into which the values of a column are put before splits are sought."""
    max_cat_to_onehot: Annotated[int, Field(ge=1)] = 4
    """Columns of ids with fewer categories than this are split by one category, others by sets of categories."""
    memory_bytes: Annotated[int, Field(ge=0)] = 4 * 2**30
    """Bytes of rows up to which the driver's process trains alone; with more, Spark's executors train together."""
    threads: Annotated[int, Field(ge=1)] = 2
    """Threads of training in the driver's process; fixed, because it decides the order of float sums."""

    def check(self, task: Task) -> None:
        """See `Model.check`."""
        _check_loss(task)


@dataclass(frozen=True)
class Rows:
    """Rows of a split in memory."""

    tensors: Mapping[str, NDArray[Any]]
    """The encoder's tensors by name: dense (n, F) float32, ids (n, K) int64; one without columns is absent."""
    target: NDArray[Any]
    """Label of the feature table (n,)."""
    weight: NDArray[np.float64] | None = None
    """Sample weights (n,); None: all rows weigh the same."""


def features(tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the columns of dense and ids side by side, (n, F + K) float32, as XGBoost gets them.

    XGBoost takes numpy codes unchecked, and sends a category that it has not seen wherever the split's set of categories
    happens to leave it. The id of unseen categories is therefore missing (NaN), in training as in scoring: such rows go
    the way that each split has learnt for missing values.
    """
    parts = []
    if "dense" in tensors:
        parts.append(np.asarray(tensors["dense"], np.float32))
    if "ids" in tensors:
        ids = np.asarray(tensors["ids"])
        parts.append(np.where(ids == UNSEEN_ID, np.float32(np.nan), ids.astype(np.float32)))
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def feature_types(tensors: Tensors) -> list[str]:
    """Return XGBoost's type of each column of `features`: q, a number, or c, a category."""
    return ["q"] * tensors.num_dense + ["c"] * len(tensors.cardinalities)


def parameters(settings: TreesSettings, task: Task, tensors: Tensors, seed: int) -> dict[str, Any]:
    """Return the parameters of XGBoost.

    Raises:
        ConfigError: trees have no such loss, or cannot take these tensors; names the setting.
    """
    others = [spec.name for spec in tensors.specs if spec.name not in ("dense", "ids")]
    if others:
        raise ConfigError(
            f"model.kind=trees takes no pictures ({', '.join(others)}); leave them out, or choose a network"
        )
    if max(tensors.cardinalities, default=0) > _MOST_CATEGORIES:
        raise ConfigError(
            f"model.kind=trees takes at most {_MOST_CATEGORIES:,} ids of a column, got {max(tensors.cardinalities):,}; "
            f"lower the buckets or raise min_count of the feature"
        )
    settings.check(task)
    return {
        **_objective(task),
        "tree_method": "hist",
        "learning_rate": settings.learning_rate,
        "max_depth": settings.max_depth,
        "min_child_weight": settings.min_child_weight,
        "subsample": settings.subsample,
        "colsample_bytree": settings.colsample,
        "reg_lambda": settings.reg_lambda,
        "max_bin": settings.max_bin,
        "max_cat_to_onehot": settings.max_cat_to_onehot,
        "nthread": settings.threads,
        "seed": seed % 2**31,
    }


def _check_loss(task: Task) -> None:
    loss: Any = task.loss  # type: ignore[attr-defined]
    if smoothing := getattr(loss, "label_smoothing", 0.0):
        asked, remedy = f"label_smoothing={smoothing}", "set it to 0"
    elif loss.kind == "cross_entropy" or loss.kind in _OBJECTIVES:
        return
    else:
        asked, remedy = f"kind={loss.kind}", "choose another loss"
    raise ConfigError(f"model.kind=trees has no task.loss.{asked}; {remedy}, or a network as model.kind")


def _objective(task: Task) -> dict[str, Any]:
    loss: Any = task.loss  # type: ignore[attr-defined]
    if loss.kind == "cross_entropy":
        if task.num_outputs == 1:
            return {"objective": "binary:logistic", "eval_metric": "logloss"}
        return {"objective": "multi:softprob", "eval_metric": "mlogloss", "num_class": task.num_outputs}
    objective, metric = _OBJECTIVES[loss.kind]
    parameters: dict[str, Any] = {"objective": objective, "eval_metric": metric}
    if isinstance(loss, QuantileLoss):
        parameters["quantile_alpha"] = list(loss.quantiles)
    if isinstance(loss, HuberLoss):
        parameters["huber_slope"] = loss.delta
    return parameters


def learned_target(task: Task, target: NDArray[Any]) -> NDArray[np.float32]:
    """Return what the trees learn (n,): class ids, or the transformed number, as the network's loss has it."""
    if not isinstance(task, RegressionTask):
        return target.astype(np.float32)
    values = target.astype(np.float64)
    values = np.log1p(values) if task.transform == "log1p" else values
    if task.standardise:
        assert task.center is not None, "the task is resolved"
        assert task.scale is not None, "the task is resolved"
        values = (values - task.center) / task.scale
    return values.astype(np.float32)


def weights_of(task: Task, rows: Rows) -> NDArray[np.float64] | None:
    """Return how much each row counts (n,): its sample weight times its class's; None where all count the same."""
    by_class = getattr(task, "class_weights", {})
    if not by_class:
        return rows.weight
    if task.num_outputs == 1:
        other, event = task.class_weight(task.other_class), task.class_weight(task.event_class)  # type: ignore[attr-defined]
        of_class = np.where(rows.target > 0.5, event, other)
    else:
        of_class = np.array([task.class_weight(value) for value in task.known_classes])[rows.target]  # type: ignore[attr-defined]
    return np.asarray(of_class if rows.weight is None else of_class * rows.weight, np.float64)


def matrix(settings: TreesSettings, task: Task, tensors: Tensors, rows: Rows) -> "DMatrix":
    """Return rows as XGBoost learns from them."""
    import xgboost

    return xgboost.DMatrix(
        features(rows.tensors),
        learned_target(task, rows.target),
        weight=weights_of(task, rows),
        feature_types=feature_types(tensors),
        enable_categorical=True,
        nthread=settings.threads,
    )


def grow(
    settings: TreesSettings,
    task: Task,
    tensors: Tensors,
    *,
    train: Rows,
    validation: Rows | None,
    seed: int,
    on_round: Callable[[int], None] = lambda rounds: None,
) -> "Booster":
    """Return the trees up to the best round by the loss of the validation rows. The same rows and seed yield the same bits.

    Args:
        settings: how they are grown.
        task: resolved.
        tensors: what the rows are made of.
        train: rows to learn from.
        validation: rows by which the best round is chosen.
        seed: of the draws of rows and columns.
        on_round: called after each round with the number of rounds so far; what it raises ends the growing.

    Raises:
        ConfigError: see `parameters`; or all training rows weigh 0.
    """
    import xgboost

    if train.weight is not None and not train.weight.any():
        raise ConfigError(f"task.weight {task.weight}: all training rows weigh 0; correct the column or choose another")
    of_xgboost = parameters(settings, task, tensors, seed)
    data = matrix(settings, task, tensors, train)
    watched = []
    stop = settings.early_stopping_rounds or None
    if validation is not None and stop:
        watched.append((matrix(settings, task, tensors, validation), "validation"))

    class Rounds(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            on_round(epoch + 1)
            return False

    booster = xgboost.train(
        of_xgboost,
        data,
        num_boost_round=settings.num_rounds,
        evals=watched,
        early_stopping_rounds=stop if watched else None,
        verbose_eval=False,
        callbacks=[Rounds()],
    )
    return booster[: booster.best_iteration + 1] if watched else booster
