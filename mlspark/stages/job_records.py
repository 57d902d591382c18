"""Jobs that were done, with what they had to do and how long it took: what estimates of the next ones rest on. Driver."""

import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlspark import storage
from mlspark.cost import Price
from mlspark.errors import one_line
from mlspark.settings.pipeline import Settings

logger = logging.getLogger(__name__)

JOBS = ("train", "score")
"""Jobs of which records are kept."""


@dataclass(frozen=True)
class JobRecord:
    """A job that ended well."""

    work: int
    """What the time grows with: rows by epochs, or by rounds of trees; rows that were scored."""
    seconds: float
    """Of the whole job, the start of Spark included."""
    busy_seconds: float | None
    """Of it in training; None: not known."""
    speed: str
    """Digest of what decides how fast it is: model, batch, ranks, tier, number of machines."""
    rows: int | None = None
    """Rows that it went through, each as often as there are epochs or rounds; None: not known, as of earlier records."""


def keep(settings: Settings, job: str, report: Mapping[str, Any], seconds: float) -> None:
    """Keep the record of a job, from its report; of one that found its work done, or went on with an earlier one, none."""
    if job not in JOBS or any(report.get(key) for key in ("skipped", "already_done", "restarts")):
        return
    if (rows_and_passes := _rows_and_passes(job, report)) is None:
        return
    rows, passes = rows_and_passes
    record = JobRecord(rows * passes, round(seconds, 3), report.get("train_seconds"), speed(settings, job), rows=rows)
    try:
        storage.write_json(storage.join(_folder(settings, job), f"{uuid.uuid4().hex}.json"), asdict(record))
    except OSError as error:  # what the job did stands
        logger.warning("no record of this job is kept for estimates: %s", one_line(str(error)))


def ended(
    settings: Settings,
    job: str,
    report: dict[str, Any],
    seconds: float,
    *,
    price: Price | None,
    alone_seconds: float | None = None,
) -> dict[str, Any]:
    """Keep the record of a job that ended well; return its report, with `cost` where there is a price.

    Args:
        settings: the pipeline.
        job: its name.
        report: its report.
        seconds: that it took, which are paid for.
        price: from `costs.price`, which refuses what is wrong with it before the work.
        alone_seconds: that it would take as a job of its own, for estimates; `seconds` unless given.
    """
    keep(settings, job, report, seconds if alone_seconds is None else alone_seconds)
    return report if price is None else report | {"cost": price.to_json(seconds)}


def read(settings: Settings, job: str) -> list[JobRecord]:
    """Return the records of a job, in no particular order."""
    return [JobRecord(**storage.read_json(uri)) for uri in storage.list_files(_folder(settings, job))]


def speed(settings: Settings, job: str) -> str:
    """Return 16 hex digits that jobs share which take as long for the same work."""
    machines = settings.cost.model_dump(include={"tier", "count"})
    decides: dict[str, Any] = {"machines": machines, "model": settings.model.model_dump(mode="json")}
    if job == "train":
        training = settings.training
        decides |= {"ranks": training.num_processes, "batch": training.global_batch_size, "gpu": training.use_gpu}
        if "num_rounds" in decides["model"]:
            decides["model"].pop("num_rounds")  # it is part of the work
    return storage.digest(decides)[:16]


def _rows_and_passes(job: str, report: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the rows of a job, and how often it went through them; None where it is not known, as of ensembles."""
    if job == "score":
        return int(report["rows_read"]), 1
    if "rows_per_epoch" in report:
        return int(report["rows_per_epoch"]), int(report["epochs"])
    return (int(report["rows"]), int(report["rounds"])) if "rounds" in report else None


def _folder(settings: Settings, job: str) -> str:
    return storage.join(settings.root, "jobs", f"{settings.name}-{job}")
