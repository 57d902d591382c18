"""How long a job will take and what it will cost, from jobs like it that were done. Driver; needs no Spark."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

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
    found = of_records(records, rows * _passes(settings) if job == "train" else rows)
    cost = None if price is None else price.to_json(found.seconds)
    return {"job": job, "rows": rows, **found.to_json(), "cost": cost}


def of_records(records: Sequence[JobRecord], work: int) -> Estimate:
    """Return the estimate of so much work from at least one record."""
    errors = []
    for place, left_out in enumerate(records):
        others = [*records[:place], *records[place + 1 :]]
        if others:
            errors.append(abs(_seconds(others, left_out.work) / left_out.seconds - 1))
    return Estimate(work, _seconds(records, work), len(records), tuple(errors))


def _seconds(records: Sequence[JobRecord], work: int) -> float:
    """Return the time of so much work: a part that is always there, and one that grows with it; neither below 0.

    Of jobs of one size these cannot be told apart, but for the time in training; without that, all of it grows.
    """
    sizes, seconds = np.array([record.work for record in records], float), np.array([r.seconds for r in records])
    if len(set(sizes)) > 1:
        scale = sizes.max()
        # Weighted by 1 / seconds: it is the share that counts by which a job is missed.
        (fixed, growing), _ = nnls(np.column_stack([1 / seconds, sizes / scale / seconds]), np.ones(len(sizes)))
        return float(fixed + growing * work / scale)
    busy = [record.busy_seconds for record in records if record.busy_seconds is not None]
    growing = float(np.mean(busy)) if len(busy) == len(records) else float(seconds.mean())
    return float(seconds.mean() - growing + growing * work / sizes[0])


def _passes(settings: Settings) -> int:
    """Return how often each training row is gone through."""
    model = settings.model
    return model.num_rounds if isinstance(model, TreesSettings) else settings.training.epochs


def _training_rows(settings: Settings) -> int:
    prepared = preparations.latest(settings.table("features"))
    snapshot = delta_files.take(prepared.table, version=prepared.version)
    return int(snapshot.where(split="train").num_rows)
