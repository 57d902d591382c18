"""How long a job will take and what it will cost, from jobs like it that were done. Driver; needs no Spark."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linprog

from mlspark.errors import ConfigError
from mlspark.features import prepared as preparations
from mlspark.models.trees import TreesSettings
from mlspark.settings.pipeline import Settings
from mlspark.stages import costs, job_records
from mlspark.stages.job_records import JobRecord
from mlspark.streaming import delta_files


@dataclass(frozen=True)
class Estimate:
    """What a job is expected to take."""

    work: int
    """See `JobRecord.work`."""
    seconds: float
    num_runs: int
    """Jobs that it rests on."""
    errors: tuple[float, ...]
    """By how much each of them would have been missed, as a share of its own time, had it been estimated from the others."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "work": self.work,
            "seconds": round(self.seconds, 3),
            "num_runs": self.num_runs,
            "least_error": min(self.errors) if self.errors else None,
            "median_error": statistics.median(self.errors) if self.errors else None,
            "greatest_error": max(self.errors) if self.errors else None,
        }


def estimate(settings: Settings, job: str, *, rows: int | None = None) -> dict[str, Any]:
    """Return the estimate of a job as JSON, with `rows`, and `cost` where `cost.tier` is set.

    Args:
        settings: of the pipeline.
        job: train or score.
        rows: training rows, or rows to score; None: those of the newest feature table, or of the largest scoring so far.

    Raises:
        ConfigError: no such job was done with this model, on these machines and by so many ranks; or the rows are not known.
        TableError: nothing was prepared yet.
    """
    price = costs.price(settings)
    speed = job_records.speed(settings, job)
    every = job_records.read(settings, job)
    records = [record for record in every if record.speed == speed]
    if not records:
        others = f" (there are {len(every)} of others)" if every else ""
        raise ConfigError(
            f"estimate {job}: no {job} job of this model, batch, number of ranks and tier was done below {settings.root}"
            f"{others}; run one, on few rows or for one epoch, and ask again"
        )
    if rows is None:
        rows = _training_rows(settings) if job == "train" else max(record.work for record in records)
    found = of_records(records, rows, _passes(settings) if job == "train" else 1)
    cost = None if price is None else price.to_json(found.seconds)
    return {"job": job, "rows": rows, **found.to_json(), "cost": cost}


def of_records(records: Sequence[JobRecord], rows: int, passes: int = 1) -> Estimate:
    """Return the estimate of a job of so many rows, each gone through so often, from at least one record."""
    errors = []
    for place, left_out in enumerate(records):
        others = [*records[:place], *records[place + 1 :]]
        if others:
            errors.append(abs(_seconds(others, left_out.work, left_out.rows) / left_out.seconds - 1))
    return Estimate(rows * passes, _seconds(records, rows * passes, rows), len(records), tuple(errors))


def _seconds(records: Sequence[JobRecord], work: int, rows: int | None) -> float:
    """Return the time of so much work, with so many rows; None: not known.

    Where the time in training is known, it grows with the work, and the time around it with the rows: those are read,
    evaluated and counted once, however many epochs there are. Else all of it grows with the work.
    """
    seconds, works = [record.seconds for record in records], [record.work for record in records]
    busy = [record.busy_seconds for record in records if record.busy_seconds is not None]
    if len(busy) < len(records):
        return _Line.through(works, seconds).at(work)
    around = [whole - in_training for whole, in_training in zip(seconds, busy, strict=True)]
    known_rows = [record.rows for record in records if record.rows is not None]
    if rows is None or len(known_rows) < len(records) or len(set(known_rows)) == 1:
        of_others = _nearest(around)
    else:
        of_others = _Line.through(known_rows, around).at(rows)
    return of_others + _Line.through(works, busy).at(work)


@dataclass(frozen=True)
class _Line:
    """A part that is always there, and one that grows; neither below 0."""

    fixed: float
    growing: float

    @classmethod
    def through(cls, sizes: Sequence[int], seconds: Sequence[float]) -> "_Line":
        """Return the line with the least sum of relative errors; of one size all of it grows.

        Of absolute values and not of squares: one job that ran beside others, and took thrice as long, moves no line through
        several.
        """
        if len(set(sizes)) == 1:
            return cls(0.0, _nearest(seconds) / sizes[0])
        scale, taken = max(sizes), np.maximum(np.array(seconds, float), 1e-3)
        relative = np.column_stack([1 / taken, np.array(sizes) / scale / taken])
        apart = np.eye(len(sizes))
        # Variables: fixed, growing, and the absolute error of each job.
        found = linprog(
            np.r_[0.0, 0.0, np.ones(len(sizes))],
            A_ub=np.block([[relative, -apart], [-relative, -apart]]),
            b_ub=np.r_[np.ones(len(sizes)), -np.ones(len(sizes))],
            method="highs",
        )
        assert found.success, found.message
        return cls(float(found.x[0]), float(found.x[1]) / scale)

    def at(self, size: int) -> float:
        return self.fixed + self.growing * size


def _nearest(seconds: Sequence[float]) -> float:
    """Return the time that is nearest to all, as a share of each: their median with weights of 1 / time."""
    ordered = np.sort(np.maximum(np.array(seconds, float), 1e-3))
    weights = np.cumsum(1 / ordered)
    return float(ordered[np.searchsorted(weights, weights[-1] / 2)])


def _passes(settings: Settings) -> int:
    """Return how often each training row is gone through."""
    model = settings.model
    return model.num_rounds if isinstance(model, TreesSettings) else settings.training.epochs


def _training_rows(settings: Settings) -> int:
    prepared = preparations.latest(settings.table("features"))
    snapshot = delta_files.take(prepared.table, version=prepared.version)
    return int(snapshot.where(split="train").num_rows)
