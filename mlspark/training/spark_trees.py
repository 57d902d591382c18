"""Trees grown on Spark's executors by XGBoost's own estimators, for rows beyond one machine's memory. Driver."""

from typing import TYPE_CHECKING, Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark.models import trees
from mlspark.models.trees import TreesSettings
from mlspark.streaming.snapshot import Snapshot
from mlspark.tasks.regression import RegressionTask
from mlspark.tasks.task import Task
from mlspark.training.spec import TrainingSpec

if TYPE_CHECKING:
    from xgboost import Booster

_FEATURES, _TARGET, _WEIGHT, _IS_VALIDATION = "features", "target", "weight", "is_validation"


def grow(spark: SparkSession, spec: TrainingSpec, settings: TreesSettings, snapshot: Snapshot) -> "Booster":
    """Return the trees up to the best round, grown by `training.num_processes` Spark tasks, each of which holds its rows.

    The rows of a task depend on how Spark shares them out, so the bits are not those of `models.trees.grow`, nor the same
    for another number of tasks.
    """
    from xgboost.spark import SparkXGBRegressor

    parameters = trees.parameters(settings, spec.task, spec.tensors, spec.training.seed)
    parameters.pop("nthread")  # spark.task.cpus
    seed = parameters.pop("seed")
    rows = _rows(spark, spec, snapshot)
    stop = settings.early_stopping_rounds if snapshot.where(split="validation").num_rows else 0
    columns: dict[str, Any] = {} if _weight(spec) is None else {"weight_col": _WEIGHT}
    if stop:
        columns |= {"validation_indicator_col": _IS_VALIDATION, "early_stopping_rounds": stop}
    # For classes, too: SparkXGBClassifier counts the classes that have rows, and the task may have more.
    estimator = SparkXGBRegressor(
        features_col=_FEATURES,
        label_col=_TARGET,
        num_workers=spec.training.num_processes,
        n_estimators=settings.num_rounds,
        random_state=seed,
        feature_types=trees.feature_types(spec.tensors),
        missing=float("nan"),
        # The table lies split by split: every task needs training rows.
        force_repartition=True,
        repartition_random_shuffle=True,
        **columns,
        **parameters,
    )
    booster: Booster = estimator.fit(rows).get_booster()
    return booster[: booster.best_iteration + 1] if stop else booster


def _rows(spark: SparkSession, spec: TrainingSpec, snapshot: Snapshot) -> DataFrame:
    """Return the training and validation rows of the pinned version, as XGBoost learns from them."""
    table = spark.read.format("delta").option("versionAsOf", snapshot.version).load(snapshot.table)
    dense, ids = spec.tensors.get("dense"), spec.tensors.get("ids")
    missing = F.lit(float("nan"))
    columns = [F.col(name).cast("float") for name in (dense.columns if dense else ())]
    for name in ids.columns if ids else ():
        column = F.when(F.col(name) == trees.UNSEEN_ID, missing).otherwise(F.col(name).cast("float"))
        columns.append(column.cast("float"))
    weight = _weight(spec)
    weights = [] if weight is None else [weight.alias(_WEIGHT)]
    return table.where(F.col("split").isin("train", "validation")).select(
        # One array: of separate columns xgboost 3.2 raises KeyError where a batch holds no validation rows.
        F.array(*columns).alias(_FEATURES),
        _target(spec.task, F.col(spec.tensors.target)).alias(_TARGET),
        *weights,
        (F.col("split") == "validation").alias(_IS_VALIDATION),
    )


def _target(task: Task, label: Column) -> Column:
    """Return the column that the trees learn; see `models.trees.learned_target`."""
    if not isinstance(task, RegressionTask):
        return label.cast("int")
    value = F.log1p(label) if task.transform == "log1p" else label
    return (value - F.lit(task.center)) / F.lit(task.scale) if task.standardise else value


def _weight(spec: TrainingSpec) -> Column | None:
    """Return how much each row counts; see `models.trees.weights_of`."""
    task: Any = spec.task
    weight = None if spec.tensors.weight is None else F.col(spec.tensors.weight).cast("double")
    if not getattr(task, "class_weights", {}):
        return weight
    if task.num_outputs == 1:
        of_class = [task.class_weight(task.other_class), task.class_weight(task.event_class)]
    else:
        of_class = [task.class_weight(value) for value in task.known_classes]
    by_class = F.get(F.array(*map(F.lit, of_class)), F.col(spec.tensors.target).cast("int"))
    return by_class if weight is None else by_class * weight
