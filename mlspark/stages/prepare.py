"""The prepare stage: raw rows become one version of the feature table, every row accounted for. Driver."""

import json
import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import quarantine, storage, tables
from mlspark.contracts import contract as contracts
from mlspark.contracts.own_columns import GROUP, SPLIT
from mlspark.features import picture_profile, split
from mlspark.features import shift as shifts
from mlspark.features.check import warnings
from mlspark.features.duplicates import duplicates
from mlspark.features.encoder import Encoder
from mlspark.features.fit import fit
from mlspark.features.labels import labels_sql, refuse_rows_without_label, resolve
from mlspark.features.picture_profile import PictureProfile
from mlspark.features.placing import placed
from mlspark.features.profile import profile
from mlspark.intake import joins as joining
from mlspark.intake import pictures
from mlspark.intake.rows import TakenIn, take_in
from mlspark.session import computed_in_utc
from mlspark.settings.pipeline import Settings
from mlspark.sources.source import refuse_changed
from mlspark.stages import append as appending
from mlspark.stages import places
from mlspark.stages.preparation import Preparation, find_sources, plan
from mlspark.tables import Commit
from mlspark.tasks.task import Task

logger = logging.getLogger(__name__)


@computed_in_utc
def prepare(spark: SparkSession, settings: Settings, *, mode: str = "rebuild") -> dict[str, Any]:
    """Write the feature table and the quarantine of the configured sources, and return the report.

    The commit of the feature table is what makes a preparation count: bad rows, encoder and settings are written before
    it under its id, and no reader asks for an id that no commit names. A run that is killed leaves nothing that counts, and
    the next one ends as if it had not been.

    Args:
        spark: the session of the job.
        settings: the pipeline.
        mode: "rebuild" reads all rows and fits the encoder on them, and does nothing when the newest version already
            holds just that. "append" reads only files or partitions that no version in force has taken, and encodes
            them with the encoder in force.

    Raises:
        SourceError: a source is absent, empty, unreadable, or changed while it was read.
        ContractError: the data as a whole does not meet the contract.
        FeatureError: the task or the features do not fit the contract or the rows.
        ConfigError: append to a table of other settings, or to none.
        ConcurrentWrite: another run with other rows was first.
        StorageError: the tables' folder is full, read-only or another's; found before a row is read where it is so then.
        In all these cases nothing was written that counts.
    """
    started, run = time.monotonic(), uuid.uuid4().hex
    work = plan(spark, settings, mode=mode)
    if work.is_done:
        assert work.base is not None
        logger.info("%s: already done, version %d of %s", settings.name, work.base.version, work.table)
        return _report(work.table, work.base, already_done=True, seconds=time.monotonic() - started)
    with places.writing(settings, ("features", "quarantine")):
        commit = _write(spark, settings, work, mode=mode, run=run)
    seconds, is_mine = time.monotonic() - started, commit.metadata["run"] == run
    outcome = "wrote" if is_mine else "another run was first with the same rows as"
    logger.info("features: %s version %d of %s in %.1f s", outcome, commit.version, work.table, seconds)
    return _report(work.table, commit, already_done=not is_mine, seconds=seconds)


def _write(spark: SparkSession, settings: Settings, work: Preparation, *, mode: str, run: str) -> Commit:
    """Read the rows, fit the encoder where it is not in force, write what travels with the rows, then the rows."""
    contract, in_force, table = work.contract, work.in_force, work.table
    with ExitStack() as stack:
        taken = stack.enter_context(_taken_in(spark, settings, work))
        stack.enter_context(joining.computing(work.joins))
        joined, good = stack.enter_context(joining.read(spark, work.joins)), taken.good
        if work.joins:
            good = joining.attach(good, joined.good, work.joins).persist(StorageLevel.MEMORY_AND_DISK)
            stack.callback(good.unpersist)
        num_good = taken.account.totals["rows_good"]
        encoder, task, shift = _encoder(good, settings, work, num_good)
        repeated = duplicates(good, contract)
        profiled = picture_profile.of_pictures(
            profile(good, contract, task, by=SPLIT, most_rows=num_good), good, taken.bad, contract, task,
            reasons=taken.account.reasons, duplicates=repeated,
        )  # fmt: skip
        metadata = {
            **work.metadata(settings, mode=mode),
            "run": run,
            "encoder": encoder.fingerprint,
            "pictures": {image.name: image.decision() for image in encoder.images},
            **taken.account.totals,
            "reasons": taken.account.reasons,
            "shift": shift,
            "splits": profiled.record["splits"],
            "duplicates": repeated,
            "sources": {
                name: {**source.identity, "schema_differences": taken.differences[name], **taken.account.sources[name]}
                for name, source in work.sources.items()
            },
            "joins": joined.to_json(work.joins),
        }
        _write_sidecars(settings, work, encoder, task, profiled)
        num_bad = taken.account.totals["rows_quarantined"] + joined.num_bad
        quarantine.write(joined.with_bad(taken.bad), settings.table("quarantine"), work.commit_id, num_bad)
        now = find_sources(spark, settings) | joining.sources(spark, settings.joins, root=settings.sources.root)
        for name, source in work.read.items():
            refuse_changed(source, now[name])
        rows = placed(
            good,
            encoder,
            labels_sql(task, contract),
            num_rows=num_good,
            folds=settings.split.folds,
            was_fitted=in_force is None,
        )
        return tables.write_next(
            rows,
            table,
            after=work.base,
            metadata=metadata,
            mode="append" if in_force else "overwrite",
            partition_by=["split"],
            # Nothing looks for files by ranges of features; Delta takes a sixth of the write to find them (600,000 rows of
            # 14 columns: 1.76 to 2.39 seconds of a processor). Conditions of streaming use those that Parquet keeps.
            ranges_of=["row_id"],
        )


def _taken_in(spark: SparkSession, settings: Settings, work: Preparation) -> AbstractContextManager[TakenIn]:
    """Return the context in which the rows of the sources are kept, each with the side of the split that it is on."""
    contract, in_force = work.contract, work.in_force

    def extended(rows: DataFrame) -> DataFrame:
        rows = split.place(rows, settings.split, contract, weight=settings.task.weight)
        if in_force is None or not contract.unique_key:
            return rows
        return appending.without_known_keys(spark, rows, contract, in_force)

    event = settings.task.event_sql(contract.column(settings.task.target).type) if settings.task.is_resolved else None
    counted = {} if event is None else {"label_events": F.expr(event)}
    if settings.split.key:
        counted["without_split_key"] = ~split.has_key(settings.split.key)
    return take_in(
        spark,
        work.sources,
        contract,
        extended=extended,
        good_rows_with=counted,
        picture_features=pictures.fitted(in_force.encoder) if in_force else pictures.declared(settings.features),
    )


def _encoder(
    good: DataFrame, settings: Settings, work: Preparation, num_good: int
) -> tuple[Encoder, Task, Mapping[str, Any]]:
    """Return encoder and task, fitted on the training rows or those in force, and how far new rows are from the latter."""
    if work.in_force is not None:
        encoder, task = work.in_force.encoder, work.in_force.task
        refuse_rows_without_label(good, task, work.contract)
        return encoder, task, shifts.shift(good, encoder, settings.shift)
    train = good.where(F.col(SPLIT) == split.TRAIN)
    task = resolve(train, settings.task, work.contract.column(settings.task.target))
    refuse_rows_without_label(good, task, work.contract)
    for warning in warnings(settings.features, work.contract):
        logger.warning("features: %s", warning)
    encoder = fit(train, settings.features, task, pipeline=settings.name, row_hash=GROUP, most_rows=num_good)
    logger.info("encoder: fitted on %s training rows, %s", f"{encoder.rows:,}", encoder.fingerprint[:12])
    for image in encoder.images:
        logger.info(
            "pictures: %s is stored as %s: a row has %s bytes as pixels, %s in its file",
            image.name, image.spec.store, f"{image.spec.num_bytes:,}", f"{image.file_bytes:,.0f}",
        )  # fmt: skip
    return encoder, task, {}


def _write_sidecars(
    settings: Settings, work: Preparation, encoder: Encoder, task: Task, profiled: PictureProfile
) -> None:
    """Write what travels with the rows of a commit; it counts from when the commit stands."""
    parts = {name: {part.name: part.state for part in source.parts} for name, source in work.sources.items()}
    contract = contracts.to_json(work.contract)
    for name, value in (
        ("parts", parts),
        ("encoder", encoder.to_json()),
        ("contract", contract),
        ("task", json.loads(task.to_json())),
        ("profile", profiled.record),
        *([("pictures", profiled.thumbnails)] if profiled.thumbnails else []),
    ):
        storage.write_sealed(tables.sidecar(work.table, work.commit_id, f"{name}.json"), value)
    storage.write_bytes(tables.sidecar(work.table, work.commit_id, "config.yaml"), settings.to_yaml().encode())


def _report(table: str, commit: Commit, *, already_done: bool, seconds: float) -> dict[str, Any]:
    metadata = commit.metadata
    counts = ("rows_read", "rows_good", "rows_quarantined", "reasons", "sources", "joins", "splits", "shift")
    return {
        **{key: metadata[key] for key in counts},
        **{key: metadata[key] for key in ("pictures", "duplicates") if metadata.get(key)},
        "mode": metadata["mode"],
        "table": table,
        "version": commit.version,
        "encoder_fingerprint": metadata["encoder"],
        "already_done": already_done,
        "seconds": round(seconds, 3),
    }
