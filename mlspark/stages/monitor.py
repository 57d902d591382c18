"""The monitor stage: scored rows, scores and late labels held against what their version was trained on. Driver."""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage, tables
from mlspark.errors import ConfigError, TableError
from mlspark.monitoring.scored_commit import compare
from mlspark.registry import versions
from mlspark.registry.versions import ModelVersion
from mlspark.reports import monitor_page
from mlspark.session import computed_in_utc
from mlspark.settings.pipeline import Settings
from mlspark.sources import catalog
from mlspark.sources.source import Source, refuse_changed
from mlspark.stages import places
from mlspark.tables import Commit
from mlspark.tracking import runs

logger = logging.getLogger(__name__)

REPORT, PAGE = "report.json", "report.html"
"""Files that travel with each result."""
_FORMAT = 1
"""Raised when a commit that was monitored is to be monitored anew, as its result would be another one."""
_MOST_NAMED = 10
_SCHEMA = (
    "subject STRING, name STRING, measure STRING, value DOUBLE, limit DOUBLE, verdict STRING, p_value DOUBLE, "
    "level DOUBLE, rows BIGINT, old DOUBLE, new DOUBLE, old_low DOUBLE, old_high DOUBLE, new_low DOUBLE, "
    "new_high DOUBLE, detail STRING"
)


def chosen_commits(settings: Settings, *, commit: int | None = None, since: int | None = None) -> list[Commit]:
    """Return the commits of the score table that are to be monitored, the oldest first. Needs no Spark.

    Args:
        settings: the pipeline.
        commit: version of the score table; None: the newest.
        since: version of the score table: it and all later ones.

    Raises:
        TableError: nothing was scored yet, or not in this version.
        ConfigError: both are given.
    """
    table = settings.table("scores")
    if commit is not None and since is not None:
        raise ConfigError("--commit, --since: give one of them: a version, or the first of several")
    commits = tables.commits(table)
    if not commits:
        raise TableError(f"{table}: no score table; run jobs/score.py with the same config first")
    if since is not None:
        chosen = [each for each in reversed(commits) if each.version >= since]
    else:
        chosen = [each for each in commits if commit in (None, each.version)][:1]
    if not chosen:
        named = ", ".join(str(each.version) for each in commits[:_MOST_NAMED])
        raise TableError(f"{table}: no scores in version {commit if since is None else since}; the newest are {named}")
    return chosen


@computed_in_utc
def monitor(
    spark: SparkSession, settings: Settings, *, commit: int | None = None, since: int | None = None
) -> dict[str, Any]:
    """Write how commits of the score table differ from what their versions were trained on, and return the report.

    A commit that was monitored with the same version, labels and limits is not looked at again: its result is returned.

    Args:
        spark: the session of the job.
        settings: the pipeline.
        commit: version of the score table; None: the newest.
        since: version of the score table: it and all later ones.

    Returns:
        "table" of results, "alarms", and "monitored", a list of results; see docs/monitoring.md.

    Raises:
        TableError: no such scores, rows of them are gone, or the version's training table is.
        ConfigError: a column or metric of `monitoring` is none.
        RegistryError: the version is gone.
        SourceError: labels cannot be read, or their keys are not unique.
        ContractError: the source of labels is not what its contract says.
        StorageError: the tables' folder cannot be written to.
        In all these cases nothing was written that counts.
    """
    chosen = chosen_commits(settings, commit=commit, since=since)
    find_model = _finder(settings)
    source = _label_source(spark, settings)
    monitored = [_monitored(spark, settings, find_model, each, source) for each in chosen]
    return {
        "table": settings.table("monitoring"),
        "alarms": sum(result["alarms"] for result in monitored),
        "monitored": monitored,
    }


def _finder(settings: Settings) -> Callable[[Commit], ModelVersion]:
    """Return what finds the version of a commit, each read once."""
    client = runs.connect(settings.tracking, settings.root)

    @cache
    def find(name: str, version: int) -> ModelVersion:
        return versions.find(client, name, version, retry_seconds=settings.tracking.retry_seconds)

    return lambda commit: find(commit.metadata["model_name"], commit.metadata["model_version"])


def _label_source(spark: SparkSession, settings: Settings) -> Source | None:
    wanted = settings.monitoring.labels
    return None if wanted is None else catalog.find(spark, wanted, root=settings.sources.root)


def _monitored(
    spark: SparkSession,
    settings: Settings,
    find_model: Callable[[Commit], ModelVersion],
    commit: Commit,
    source: Source | None,
) -> dict[str, Any]:
    """Return the result of one commit, written unless it was."""
    table, result_id = settings.table("monitoring"), _result_id(settings, commit, source)
    done = tables.find_commit(table, result_id)
    if done is not None:
        logger.info("scores version %d: already monitored, version %d of %s", commit.version, done.version, table)
        return {**tables.read_sidecar(table, result_id, REPORT), "result_version": done.version, "already_done": True}
    with places.writing(settings, ("monitoring",)):
        result, sections = compare(
            spark, commit, find_model(commit), source,
            scores=settings.table("scores"), root=settings.root, limits=settings.monitoring,
        )  # fmt: skip
        if source is not None:
            refuse_changed(source, catalog.find(spark, source.settings, root=settings.sources.root))
        result = {"id": result_id, **result}
        page = monitor_page.render(settings.name, result, sections)
        storage.write_bytes(tables.sidecar(table, result_id, PAGE), page.encode())
        storage.write_sealed(tables.sidecar(table, result_id, REPORT), result)
        written = tables.replace_part(
            _rows(spark, result), table, part="monitoring_id", value=result_id,
            metadata={"id": result_id, "score_id": result["score_id"], "alarms": result["alarms"]},
        )  # fmt: skip
    logger.info("monitoring: wrote version %d of %s", written.version, table)
    return {**result, "result_version": written.version, "already_done": False}


def _result_id(settings: Settings, commit: Commit, source: Source | None) -> str:
    """Return the hash of everything that decides a result; that of the scores has the version and its content in it."""
    decides = {
        "format": _FORMAT,
        "scores": commit.metadata["id"],
        "labels": None if source is None else source.identity,
        "settings": settings.monitoring.model_dump(mode="json", exclude={"labels"}),
    }
    return storage.digest(decides)[:32]


def _rows(spark: SparkSession, result: Mapping[str, Any]) -> DataFrame:
    """Return a result's checks as rows of the table, and what was not compared."""
    rows: list[tuple[Any, ...]] = []
    for check in result["checks"]:
        plain = [
            check[name] for name in ("subject", "name", "measure", "value", "limit", "verdict", "p_value", "level")
        ]
        intervals = [bound for name in ("old_interval", "new_interval") for bound in check[name] or (None, None)]
        rows.append((*plain, check["rows"], check["old"], check["new"], *intervals, check["detail"]))
    for left_out in result["not_compared"]:
        rows.append((left_out["subject"], "", "", None, None, "not compared", *[None] * 9, left_out["reason"]))
    columns = ("score_id", "score_version", "model_name", "model_version")
    return spark.createDataFrame(rows, _SCHEMA).select(
        F.lit(result["id"]).alias("monitoring_id"), *(F.lit(result[name]).alias(name) for name in columns), "*"
    )
