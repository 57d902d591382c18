"""The encoder is fitted here: what the training rows hold, counted in at most two passes, becomes its numbers. Driver."""

from collections import Counter

from pyspark.sql import DataFrame

from mlspark.errors import FeatureError
from mlspark.features import counting
from mlspark.features.counts import Number, Sums, Text
from mlspark.features.encoder import Encoder
from mlspark.features.labels import NO_TRAINING_ROWS, event_conditions
from mlspark.features.settings import FeaturesSettings
from mlspark.tasks.task import Task


def fit(
    train: DataFrame,
    settings: FeaturesSettings,
    task: Task,
    *,
    pipeline: str,
    row_hash: str = "row_id",
    most_rows: int | None = None,
) -> Encoder:
    """Return the encoder of `train`, the training rows only. At most two Spark passes, whatever the number of columns.

    The same rows yield the same bits, in whatever order and partitions they are.

    Args:
        train: conformed good rows.
        settings: what becomes of which column.
        task: resolved on the training rows; features that depend on the target ask it.
        pipeline: name, for the encoder's record.
        row_hash: bigint column by which rows are put into folds, where a feature needs them.
        most_rows: `train` has no more rows than that, which are counted faster where they are few; None: not known.

    Raises:
        FeatureError: no training rows, features that the task cannot compute, or features that together have two outputs of
            one name.
    """
    _refuse_for_task(settings, task, pipeline)
    types = {field.name: field.dataType.simpleString() for field in train.schema}
    questions = {name: entry.question(source, types) for entry in settings.inputs for name, source in entry.features}
    numbers = {name: question for name, question in questions.items() if isinstance(question, Number)}
    texts = {name: question for name, question in questions.items() if isinstance(question, Text)}
    sums = {name: question for name, question in questions.items() if isinstance(question, Sums)}
    has_folds = any(text.folds for text in texts.values())
    # Each event makes the second pass wider.
    events = event_conditions(task, types[task.target]) if has_folds else ()
    hashed_by = row_hash if has_folds else ""
    counts = counting.count(
        train, numbers=numbers, texts=texts, sums=sums, events=events, row_hash=hashed_by, most_rows=most_rows
    )
    if not counts.rows:
        raise FeatureError(f"pipeline {pipeline}: {NO_TRAINING_ROWS}")
    encoder = Encoder(
        pipeline=pipeline,
        rows=counts.rows,
        inputs={column: types[column] for entry in settings.inputs for column in entry.uses},
        features=tuple(
            entry.fitted(name, source, counts, task) for entry in settings.inputs for name, source in entry.features
        ),
    )
    _refuse_equal_names(encoder)
    return encoder


def _refuse_for_task(settings: FeaturesSettings, task: Task, pipeline: str) -> None:
    problems = [
        f"{entry.kind} {', '.join(entry.names)}: {problem}"
        for entry in settings.inputs
        for problem in entry.task_problems(task)
    ]
    if problems:
        raise FeatureError(f"pipeline {pipeline}: features: " + "; ".join(problems))


def _refuse_equal_names(encoder: Encoder) -> None:
    # Delta does not tell columns apart by case.
    names = Counter(output.name.casefold() for output in encoder.outputs)
    taken = sorted(name for name, number in names.items() if number > 1)
    if taken:
        raise FeatureError(
            f"pipeline {encoder.pipeline}: features: two columns of the table would be called {', '.join(taken)}; "
            f"give one of their features another `name`"
        )
