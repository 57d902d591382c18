"""The target on Spark: what the training rows decide of a task, its events, and the rows that have no label. Driver."""

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import PREFIX
from mlspark.errors import FeatureError
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.task import Seen, Task

NO_TRAINING_ROWS = "no training rows to fit on; check sources.learn and split: rows that are the same are on one side"
_ROWS = f"{PREFIX}rows"


def resolve(train: DataFrame, task: Task, target: ColumnRule) -> Task:
    """Return the task with what the training rows decide filled in; one Spark job, none where nothing is left to decide.

    Raises:
        FeatureError: there are none.
        ConfigError: the training rows do not fit the task; names the setting to change.
    """
    aggregates = task.seen_sql(target.type)
    if not aggregates:
        return task
    named = (F.expr(sql).alias(name) for name, sql in aggregates.items())
    [row] = train.agg(F.count(F.lit(1)).alias(_ROWS), *named).collect()
    seen = row.asDict()
    if not seen.pop(_ROWS):
        raise FeatureError(NO_TRAINING_ROWS)
    return task.resolved(Seen(**seen))


def refuse_rows_without_label(good: DataFrame, task: Task, contract: Contract) -> None:
    """Refuse good rows of whose target, or sample weight, the task can make none. No job where the contract rules it out.

    Raises:
        FeatureError: names the values of the target, their rows and the setting to change.
    """
    target = contract.column(task.target)
    if task.is_closed_by(target):
        return
    without = good.where(f"({task.label_sql(target.type)}) IS NULL").groupBy(F.col(task.target).alias("value"))
    rows = without.count().orderBy(F.desc("count"), F.col("value").cast("string")).collect()
    if rows:
        raise FeatureError(task.refusal({row["value"]: row["count"] for row in rows}))


def label_columns(task: Task, contract: Contract) -> list[Column]:
    """Return the columns of the feature table that come from the target: `label`, and `weight` where the task has one."""
    return [F.expr(sql).alias(name) for name, sql in labels_sql(task, contract).items()]


def labels_sql(task: Task, contract: Contract) -> dict[str, str]:
    """Return what `label_columns` does as name -> SQL."""
    label = task.label_sql(contract.column(task.target).type)
    columns = {"label": f"CAST({label} AS {task.label_type})"}
    if task.weight is not None:
        columns["weight"] = f"CAST({task.weight_sql(contract.column(task.weight).type)} AS FLOAT)"
    return columns


def event_conditions(task: Task, target_type: str) -> tuple[str, ...]:
    """Return SQL conditions of the rows of the event class, or else of each class; none for a task without classes."""
    event = task.event_sql(target_type)
    if event is not None:
        return (event,)
    if not isinstance(task, ClassTask):
        return ()
    return tuple(f"({task.label_sql(target_type)}) = {number}" for number in range(task.num_outputs))
