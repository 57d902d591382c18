"""What `mlspark compare` found: versions beside the first of them, on the same rows. Runs anywhere; needs no Spark."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from mlspark.evaluation.comparison import Comparison, holm
from mlspark.evaluation.latency import Latency
from mlspark.evaluation.predictions import Predictions
from mlspark.evaluation.slices import ColumnSlices
from mlspark.tasks.classes import ClassTask
from mlspark.tasks.judgement import Classified, classified
from mlspark.tasks.metrics import Metrics
from mlspark.tasks.task import Task


@dataclass(frozen=True)
class ComparedVersion:
    """A version, what it said of the rows, and what it takes."""

    label: str
    """NAME/NUMBER."""
    run_id: str
    model: str
    """The model in words."""
    task: Task
    rows: Predictions
    """All versions' are of the same rows in the same order."""
    metrics: Metrics
    """Of these rows."""
    size_bytes: int
    """Of the version's files."""
    train_seconds: float | None
    latency: Latency | None
    cost: Mapping[str, Any]
    """What the version's provenance says of money; empty where it says nothing."""


@dataclass(frozen=True)
class Compared:
    """Versions beside the first of them."""

    split: str
    origin: str
    """Where the predictions are from, in words."""
    versions: tuple[ComparedVersion, ...]
    comparisons: tuple[Comparison, ...]
    """Of each version but the first, with the first."""
    slices: tuple[ColumnSlices, ...] = ()
    remarks: tuple[str, ...] = ()
    """What else there is to know: rows that were left out, figures that could not be had."""

    @cached_property
    def adjusted(self) -> dict[str, list[float | None]]:
        """Metric -> p value of each comparison, adjusted by Holm over the comparisons."""
        names = list(self.comparisons[0].differences)
        return {
            name: holm(
                [each.differences[name].p_value if name in each.differences else None for each in self.comparisons]
            )
            for name in names
        }

    def classified(self) -> Sequence[Classified]:
        """Return what became of each version's rows; nothing for numbers."""
        return [
            classified(each.task, each.rows.outputs, each.rows.target, each.rows.weight)
            for each in self.versions
            if isinstance(each.task, ClassTask)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the rows as JSON values."""
        calibrations = [[asdict_of_bin._asdict() for asdict_of_bin in each.reliability()] for each in self.classified()]
        first = self.versions[0]
        return {
            "task": {"kind": first.task.kind, "target": first.task.target},
            "split": self.split,
            "num_rows": len(first.rows),
            "origin": self.origin,
            "remarks": list(self.remarks),
            "versions": [
                {
                    "version": each.label,
                    "run_id": each.run_id,
                    "model": each.model,
                    "metrics": each.metrics.to_json(),
                    **({"calibration": calibrations[place]} if calibrations else {}),
                    "size_bytes": each.size_bytes,
                    "train_seconds": each.train_seconds,
                    "latency": None if each.latency is None else asdict(each.latency),
                    **({"cost": dict(each.cost)} if each.cost else {}),
                }
                for place, each in enumerate(self.versions)
            ],
            "comparisons": [
                {
                    "a": first.label,
                    "b": each.label,
                    **comparison.to_json(),
                    "adjusted_p_values": {
                        name: self.adjusted[name][place] for name in comparison.differences if name in self.adjusted
                    },
                }
                for place, (each, comparison) in enumerate(zip(self.versions[1:], self.comparisons, strict=True))
            ],
            "slices": [self._slices_to_json(each) for each in self.slices],
        }

    def _slices_to_json(self, column: ColumnSlices) -> dict[str, Any]:
        labels = [each.label for each in self.versions]
        return {
            "column": column.column,
            "metric": column.metric,
            "worst": dict(zip(labels, column.worst, strict=True)),
            "demographic_parity_difference": {
                label: gap._asdict() for label, gap in zip(labels, column.parity, strict=False)
            },
            "equalised_odds_difference": {
                label: gap._asdict() for label, gap in zip(labels, column.odds, strict=False)
            },
            "slices": [
                {
                    "value": each.value,
                    "num_rows": each.num_rows,
                    "share": each.share,
                    "is_judged": each.is_judged,
                    "figures": {label: figure._asdict() for label, figure in zip(labels, each.figures, strict=True)},
                    "rates": {label: asdict(rates) for label, rates in zip(labels, each.rates, strict=False)},
                    "differences": {
                        label: asdict(difference) | {"better": difference.better, "adjusted_p_value": adjusted}
                        for label, difference, adjusted in zip(labels[1:], each.differences, each.adjusted, strict=True)
                    },
                }
                for each in column.slices
            ],
        }
