"""What every task has in common: target, sample weight, and the questions that the rest asks. Needs no Spark."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, StrictBool, StrictFloat, StrictInt, StrictStr

from mlspark.errors import ConfigError
from mlspark.section import Section
from mlspark.tasks.losses import LossFunction
from mlspark.tasks.metrics import LOWER_IS_BETTER, Metrics, Rows, sorted_rows

if TYPE_CHECKING:
    import torch

ClassValue = StrictBool | StrictInt | StrictFloat | StrictStr
"""A class as the target's column holds it; true is not 1, and 1 is not 1.0."""
Link = Literal["logistic", "softmax", "none"]
"""What makes probabilities of a row's outputs: the logistic function of the one, softmax of several; none: they are none."""
ColumnName = Annotated[str, Field(pattern=r"^[^`]+$")]
"""Stands in backquotes in SQL; the contract says which names there are."""
INTEGERS = ("smallint", "int", "bigint")


class Column(Protocol):
    """What a task asks of a contract's column; `contracts.contract.ColumnRule` is one."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def nullable(self) -> bool: ...
    @property
    def min(self) -> float | str | None: ...
    @property
    def max(self) -> float | str | None: ...
    @property
    def allowed(self) -> Sequence[Any] | None: ...


@dataclass(frozen=True)
class Seen:
    """What the training rows hold of the target: the result of `Task.seen_sql`, as `Seen(**row.asDict())`."""

    values: Sequence[Any] = ()
    """Different values, nulls left out; classification only."""
    mean: float | None = None
    """Mean of the transformed target; regression only."""
    deviation: float | None = None
    """Standard deviation of the transformed target; regression only."""


class Task(Section, ABC):
    """What is predicted. Settings and resolved task are one class; `resolved` fills in what the training rows decide."""

    label_type: ClassVar[str]
    """Spark type of the feature table's column `label`."""

    label_fields: ClassVar[frozenset[str]]
    """Settings that decide the labels of a feature table; the others may change without preparing it anew."""
    decided_fields: ClassVar[tuple[str, ...]]
    """Settings that the training rows decide where they are left open."""

    link: ClassVar[Link] = "none"
    """What makes probabilities of outputs."""

    has_mixtures: ClassVar[bool] = False
    """Whether a row may be of two targets in shares, so that its loss is that of both in these shares."""

    kind: str
    target: ColumnName
    """Column of the contract that is predicted; the contract's `label`."""
    weight: ColumnName | None = None
    """Numeric column of the contract by which a row's loss and its share in the metrics are multiplied."""

    @property
    @abstractmethod
    def num_outputs(self) -> int:
        """Outputs of the network for each row. Raises ConfigError where the classes are not known yet."""

    @property
    @abstractmethod
    def is_resolved(self) -> bool:
        """Whether nothing is left that the training rows decide."""

    @abstractmethod
    def seen_sql(self, column_type: str) -> dict[str, str]:
        """Return aggregates over the training rows, by field of `Seen`, that `resolved` needs; empty if none."""

    @abstractmethod
    def resolved(self, seen: Seen) -> Self:
        """Return the task with what its training rows decide filled in.

        Raises:
            ConfigError: the training rows do not fit the task; names the setting to change.
        """

    @property
    def label_settings(self) -> dict[str, Any]:
        """The part of the task that decides labels, as JSON values: equal parts give equal labels."""
        return self.model_dump(mode="json", include=set(self.label_fields))

    def on_table(self, of_table: "Task", table: str) -> Self:
        """Return this task with what the training rows of a feature table decided.

        Args:
            of_table: the task that the table was prepared for.
            table: its name, for the message.

        Raises:
            ConfigError: the table's labels are those of another task; names what differs.
        """
        task = self
        if type(of_table) is type(self):
            is_open = (name for name in self.decided_fields if getattr(self, name) in (None, ()))
            task = self._with(**{name: getattr(of_table, name) for name in is_open})
        mine, theirs = task.label_settings, of_table.label_settings
        different = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if different:
            changes = (f"task.{name} was {theirs.get(name)!r}, is {mine.get(name)!r}" for name in different)
            raise ConfigError(f"{table}: prepared for another task ({'; '.join(changes)}); prepare it anew")
        return task

    @abstractmethod
    def label_sql(self, column_type: str) -> str:
        """Return SQL of the label of type `label_type`, null where the target is missing or is no class or number."""

    def event_sql(self, column_type: str) -> str | None:
        """Return the SQL condition of the rows of the event class; None for tasks without one."""
        return None

    def weight_sql(self, column_type: str) -> str:
        """Return SQL of the sample weight (double), null where it is missing, below 0 or not finite."""
        assert self.weight, "asked for the weight of a task without one"
        value = f"CAST(`{self.weight}` AS DOUBLE)"
        return f"CASE WHEN {value} >= 0.0D AND {value} < double('infinity') THEN {value} END"

    @abstractmethod
    def check(self, column: Column) -> list[str]:
        """Return what is wrong with the contract's target column for this task; empty if nothing is."""

    def check_weight(self, column: Column) -> list[str]:
        """Return what is wrong with the contract's column of sample weights; empty if nothing is."""
        if not is_number(column.type):
            return [
                f"weight {column.name}: type {column.type}, expected a number; choose another column as task.weight"
            ]
        problems = []
        if column.nullable:
            problems.append(f"weight {column.name}: may be missing; the contract must say nullable: false")
        if not isinstance(column.min, (int, float)) or column.min < 0:
            problems.append(f"weight {column.name}: may be below 0; the contract must give it min: 0 or more")
        return problems

    @abstractmethod
    def is_closed_by(self, column: Column) -> bool:
        """Return whether the contract alone makes sure that every good row has a label.

        Where it does not, prepare counts the rows whose `label_sql` is null and refuses them with `refusal`.
        """

    def refusal(self, values: Mapping[Any, int]) -> str:
        """Return the error message for rows without a label: value of the target -> rows, commonest first."""
        shown = ", ".join(f"{value!r} ({rows:,} rows)" for value, rows in list(values.items())[:5])
        others = f" and {len(values) - 5:,} other values" if len(values) > 5 else ""
        return f"task.target {self.target}: no label can be made of {shown}{others}; {self._remedy}"

    @property
    @abstractmethod
    def _remedy(self) -> str:
        """What to change when values of the target have no label."""

    @abstractmethod
    def loss_of(
        self, outputs: "torch.Tensor", target: "torch.Tensor", function: LossFunction | None = None
    ) -> "torch.Tensor":
        """Return the loss of each row (B,) float32, not multiplied by sample weights. Runs on the ranks.

        Args:
            outputs: (B, O), any float type.
            target: (B,) of the feature table's `label`.
            function: used instead of the one that `loss.function` names, with loss.kind custom; for functions of a
                notebook, which have no name to import.

        Raises:
            ConfigError: a custom loss cannot be imported, or does not return one loss per row.
        """

    @abstractmethod
    def predictions(self, outputs: ArrayLike) -> dict[str, NDArray[Any]]:
        """Return the columns of the score table, in order, for `outputs` (n, O); `prediction_types` says their types."""

    @abstractmethod
    def outputs_from(self, predictions: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return outputs (n, O) that `predictions` makes these columns of, but for the last bits; all finite.

        Where a column cannot tell an output (`lost_metrics`), it is between those that are told.
        """

    @property
    def lost_metrics(self) -> tuple[str, ...]:
        """Metrics that need outputs of which the score table has no column."""
        return ()

    @property
    @abstractmethod
    def prediction_types(self) -> dict[str, str]:
        """Columns of the score table, in order -> Spark type."""

    @abstractmethod
    def metrics(
        self, outputs: ArrayLike, target: ArrayLike, weight: ArrayLike | None = None, *, intervals: bool = True
    ) -> Metrics:
        """Return the metrics of all rows together, float64; the order of the rows changes no bit.

        Args:
            outputs: (n, O), finite; at least one row.
            target: (n,) of the feature table's `label`.
            weight: (n,) sample weights, at least 0.
            intervals: whether to compute the intervals that need resampling (about 0.3 s at 16,000 rows); those in
                closed form are always there.
        """

    def is_right(self, outputs: ArrayLike, target: ArrayLike) -> NDArray[np.bool_] | None:
        """Return whether each row is predicted as it is (n,); None for tasks without right and wrong: numbers.

        Args:
            outputs: (n, O).
            target: (n,) of the feature table's `label`.
        """
        return None

    def weighing_rows(self, outputs: NDArray[np.float64], target: ArrayLike, weight: ArrayLike | None) -> Rows:
        """Return the rows that metrics are of, see `sorted_rows`; at least one.

        Raises:
            MlsparkError: a weight is below 0 or not finite, or all are 0.
        """
        rows = sorted_rows(outputs, target, weight)
        if not len(rows.target):
            raise ConfigError(f"task.weight {self.weight}: all rows weigh 0; correct the column or choose another")
        return rows

    @property
    @abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Names of what `metrics` returns; those of single classes only once the classes are known."""

    @property
    @abstractmethod
    def default_metric(self) -> str:
        """The metric by which the best epoch and trial are chosen unless settings say otherwise."""

    def has_metric(self, name: str) -> bool:
        """Return whether `metrics` returns `name`; as long as the classes are not known, whether it may."""
        return name in self.metric_names

    def metric(self, name: str, *, setting: str) -> str:
        """Return `name`, or the default metric where it is empty.

        Args:
            name: of a metric, or empty.
            setting: what it was set by, for the message.

        Raises:
            ConfigError: the task has no such metric; names those that it has.
        """
        if name and not self.has_metric(name):
            raise ConfigError(
                f"{setting}={name}: a {self.kind} task has no such metric; choose one of {', '.join(self.metric_names)}, "
                f"or leave it empty for {self.default_metric}"
            )
        return name or self.default_metric

    def lower_is_better(self, name: str) -> bool:
        """Return whether a smaller value of metric `name` is better."""
        return name in LOWER_IS_BETTER

    def to_json(self) -> str:
        """Return the task as JSON; `kinds.from_json` reads it."""
        return self.model_dump_json()

    def _with(self, **values: Any) -> Self:
        return type(self).model_validate(self.model_dump() | values)


def is_number(column_type: str) -> bool:
    """Return whether values of a contract's type are numbers."""
    return column_type in (*INTEGERS, "float", "double") or column_type.startswith("decimal")


def outputs_of(task: Task, outputs: ArrayLike) -> NDArray[np.float64]:
    """Return `outputs` as C-contiguous float64 (n, O), so that a row's result depends on that row alone."""
    values = np.ascontiguousarray(outputs, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    assert values.shape[1] == task.num_outputs, f"outputs {values.shape} for {task.num_outputs} of task {task.kind}"
    return values


def rounded(value: float) -> float:
    """Return `value` with 7 significant digits: Spark's sums of doubles differ in the last bits from run to run."""
    return float(f"{value:.6e}") if math.isfinite(value) else value
