"""The kind `target`: how often the event, or each class of the target, comes with a category. Runs anywhere."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from mlspark.features.counts import Counts, Text
from mlspark.features.kinds.categories import DeclaredCategories, FittedCategories, known_values, text_sql
from mlspark.features.kinds.kind import Encode, Kind, Output
from mlspark.features.kinds.lookup import LookedUp, looked_up, looked_up_sql
from mlspark.features.kinds.sql_text import SqlSteps
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.task import Task


class TargetFeature(DeclaredCategories):
    """The share of the event among the training rows of the category, shrunk towards that of all; of more than two
    classes, a float for the share of each.

    A training row is not counted for its own encoding: it gets the share in the folds that it is not in.
    """

    kind: Literal["target"]
    smooth: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    """Number of rows as which the share of all rows counts in each value's; auto: empirical Bayes, as scikit-learn's
    TargetEncoder."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5

    def task_problems(self, task: Task) -> list[str]:
        if isinstance(task, ClassTask):
            return []
        return [
            f"the task is {task.kind}, and the shares of this kind are those of classes; "
            f"use kind index, one_hot or frequency instead, or another task.kind"
        ]

    def question(self, source: tuple[str, ...], types: Mapping[str, str]) -> Text:
        return Text(text_sql(source), self.min_count, self.max_values, self.folds)

    def fitted(self, name: str, source: tuple[str, ...], counts: Counts, task: Task) -> "TargetShare | TargetShares":
        known = known_values(name, source, counts.texts[name])
        rows = [self._shares(name, counts, event, without=None) for event in range(len(counts.events))]
        fold_rows = [
            [self._shares(name, counts, event, without=fold) for fold in range(self.folds)]
            for event in range(len(counts.events))
        ]
        if len(rows) > 1:
            assert isinstance(task, ClassTask)
            return TargetShares(
                **known,
                classes=tuple(map(str, task.known_classes)),
                folds=self.folds,
                shares=tuple(map(tuple, rows)),
                fold_shares=tuple(tuple(map(tuple, of_class)) for of_class in fold_rows),
            )
        *numbers, missing, unseen = rows[0]
        return TargetShare(
            **known,
            numbers=tuple(numbers),
            missing=missing,
            unseen=unseen,
            folds=self.folds,
            fold_numbers=tuple(map(tuple, fold_rows[0])),
        )

    def _shares(self, name: str, counts: Counts, event: int, *, without: int | None) -> list[float]:
        """Return the shrunk share of an event for each value, a missing and an unseen one, but for one fold's rows.

        Micci-Barreca 2001, with the shrinkage of scikit-learn's TargetEncoder.
        """
        text = counts.texts[name]
        rows, events = counts.rows, counts.events[event]
        if without is not None:
            rows_there, *events_there = counts.folds.get((self.folds, without), (0, *(0 for _ in counts.events)))
            rows, events = rows - rows_there, events - events_there[event]
        prior = events / rows if rows else counts.events[event] / counts.rows
        shares = []
        for value in (*text.values, None):
            folds = [numbers for fold, numbers in text.by_fold.get(value, {}).items() if fold != without]
            n, n_events = sum(numbers[0] for numbers in folds), sum(numbers[1 + event] for numbers in folds)
            if not n:
                shares.append(prior)
                continue
            mean = n_events / n
            if self.smooth == "auto":
                spread = prior * (1.0 - prior) * n
                weight = spread / (spread + mean * (1.0 - mean)) if spread else 0.0
            else:
                weight = n / (n + self.smooth)
            shares.append(weight * mean + (1.0 - weight) * prior)
        return [*shares, prior]


class TargetShare(LookedUp):
    """The share of the event among the training rows with the same category."""

    kind: Literal["looked_up"] = "looked_up"
    what: Literal["target"] = "target"

    @property
    def outputs(self) -> tuple[Output, ...]:
        return (Output(self.name, self.name, f"share of positive labels with the same {self.source_words}"),)


class TargetShares(FittedCategories):
    """The share of each class among the training rows with the same category."""

    kind: Literal["target_shares"] = "target_shares"
    classes: tuple[str, ...]
    """Classes as text."""
    folds: int
    """Number of folds of the training rows."""
    shares: tuple[tuple[float, ...], ...]
    """Class -> share of each value, then of a missing one, then of an unseen one."""
    fold_shares: tuple[tuple[tuple[float, ...], ...], ...]
    """Class -> fold -> shares for the training rows in it, from the other folds."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(
            Output(f"{self.name}__{number}", self.name, f"share of {value!r} with the same {self.source_words}")
            for number, value in enumerate(self.classes)
        )

    def to_sql(self, steps: SqlSteps) -> list[str]:
        pairs = zip(self.shares, self.fold_shares, strict=True)
        return [looked_up_sql(self, steps, row, fold_rows) for row, fold_rows in pairs]

    def on_arrow(self) -> Encode:
        return looked_up(self, self.shares)


KIND = Kind(TargetFeature, (TargetShare, TargetShares))
