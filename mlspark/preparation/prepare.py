"""Raw rows become one version of the feature table, every row accounted for. Driver."""

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import reduce
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlspark import storage, tables
from mlspark.config import Settings
from mlspark.contracts import contract as contracts
from mlspark.contracts import spark as conforming
from mlspark.contracts.contract import Contract
from mlspark.contracts.spark import Account
from mlspark.errors import SourceError
from mlspark.features import counting, split
from mlspark.features import spark as features
from mlspark.features.check import check
from mlspark.features.encoder import Encoder
from mlspark.features.fit import fit
from mlspark.features.profile import profile
from mlspark.preparation import appending, joining, prepared
from mlspark.preparation.joining import Join
from mlspark.preparation.prepared import Prepared
from mlspark.sources import catalog
from mlspark.sources.source import Source, reading
from mlspark.tables import Commit

logger = logging.getLogger(__name__)

TRANSFORM_VERSION = 2
"""Part of every preparation's id: raise it when the same rows and settings would give other features."""

_ROWS_PER_FILE = 1_000_000
"""Aim for a file of features: some 60 MB of 15 columns."""


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
        FeatureError: the features do not fit the contract.
        ConfigError: append to a table of other settings, or to none.
        ConcurrentWrite: another run with other rows was first.
        In all these cases nothing was written that counts.
    """
    started, run = time.monotonic(), uuid.uuid4().hex
    contract = contracts.load(settings.contract)
    split.check(settings.split, contract)
    found, joins = _find_sources(spark, settings), joining.find(spark, settings)
    check(settings.features, contract, settings.name, joined=joining.types(spark, joins, contract))
    base = tables.latest(settings.table("features"))
    sources, in_force = found, None
    if mode == "append":
        in_force = prepared.latest(settings)
        appending.check_settings(
            in_force, contract=contract, features_fingerprint=_fingerprint(settings), transform=TRANSFORM_VERSION
        )
        sources = appending.new_parts(found, in_force)
    commit_id = _commit_id(settings, contract, sources, joins, in_force)
    if base is not None and (base.metadata["id"] == commit_id or not sources):
        logger.info("%s: already done, version %d of %s", settings.name, base.version, settings.table("features"))
        return _report(settings, base, already_done=True, seconds=time.monotonic() - started)

    drifts = _drifts(spark, contract, sources)
    conformed = _conformed(spark, settings, contract, sources)
    if in_force is not None and contract.unique_key:
        conformed = appending.without_known_keys(spark, conformed, contract, in_force)
    with ExitStack() as stack:
        conformed = conforming.without_raw(conformed).persist(StorageLevel.MEMORY_AND_DISK)
        stack.callback(conformed.unpersist)
        with reading(", ".join(source.uri for source in sources.values())):
            account = _account(conformed, contract, settings, list(sources))
        for name, counts in account.sources.items():
            logger.info("%s: read %s rows, kept %s, rejected %s", name, *(f"{counts[key]:,}" for key in account.totals))
        conforming.check_account(account, contract)
        good = conformed.where(~conforming.is_bad())
        joined = stack.enter_context(joining.read(spark, joins))
        if joins:
            good = joining.attach(good, joined.good, joins).persist(StorageLevel.MEMORY_AND_DISK)
            stack.callback(good.unpersist)
        shift: dict[str, Any] = {}
        if in_force is None:
            train = good.where(F.col("split") == split.TRAIN)
            encoder = fit(train, settings.features, pipeline=settings.name, row_hash="_group")
            logger.info("encoder: fitted on %s training rows, %s", f"{encoder.rows:,}", encoder.fingerprint[:12])
        else:
            encoder = in_force.encoder
            shift = appending.shift(good, encoder, settings.drift)
        profiled = profile(good, contract, settings.features.label)
        metadata = {
            "id": commit_id,
            "run": run,
            "ids": [*(in_force.metadata["ids"] if in_force else ()), commit_id],
            "mode": mode,
            "contract": contract.fingerprint,
            "features": _fingerprint(settings),
            "transform_version": TRANSFORM_VERSION,
            "encoder": encoder.fingerprint,
            **account.totals,
            "reasons": account.reasons,
            "shift": shift,
            "splits": profiled["splits"],
            "sources": {
                name: {**source.identity, "drift": drifts[name], **account.sources[name]}
                for name, source in sources.items()
            },
            "joins": joined.to_json(joins),
        }
        _write_sidecars(settings, contract, sources, encoder, commit_id)
        storage.write_json(tables.sidecar(settings.table("features"), commit_id, "profile.json"), profiled)
        bad = joined.with_bad(conformed.where(conforming.is_bad()))
        num_bad = account.totals["rows_quarantined"] + joined.num_bad
        tables.write_quarantine(bad, settings.table("quarantine"), commit_id, num_bad)
        _refuse_changed(spark, settings, found, joins)
        commit = tables.write_next(
            _placed(good, encoder, account.totals["rows_good"], settings, was_fitted=in_force is None),
            settings.table("features"),
            after=base,
            metadata=metadata,
            mode="append" if in_force else "overwrite",
            partition_by=["split"],
        )
    seconds, is_mine = time.monotonic() - started, commit.metadata["run"] == run
    told = "wrote" if is_mine else "another run was first with the same rows as"
    logger.info("features: %s version %d of %s in %.1f s", told, commit.version, settings.table("features"), seconds)
    return _report(settings, commit, already_done=not is_mine, seconds=seconds)


def _find_sources(spark: SparkSession, settings: Settings) -> dict[str, Source]:
    root = settings.sources.root
    return {name: catalog.find(spark, source, root=root) for name, source in settings.sources.rows.items()}


def _drifts(spark: SparkSession, contract: Contract, sources: Mapping[str, Source]) -> dict[str, dict[str, Any]]:
    """Return how each source's columns differ from the contract's; raises what the contract's policy refuses."""
    found = {}
    for name, source in sources.items():
        with reading(source.uri):
            columns = catalog.columns(spark, source)
        drift = conforming.Drift()
        if columns is not None:
            drift = conforming.drift(columns, contract, has_types=catalog.has_types(source))
        found[name] = drift.to_json()
        if found[name]:
            logger.warning("%s: columns differ from contract %s: %s", name, contract.name, found[name])
    return found


def _fingerprint(settings: Settings) -> str:
    """Return the hash of the settings that decide what a row becomes."""
    decides = {
        "features": settings.features.model_dump(),
        "split": settings.split.model_dump(),
        "joins": [join.model_dump(exclude={"source"}) for join in settings.joins],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _commit_id(
    settings: Settings,
    contract: Contract,
    sources: Mapping[str, Source],
    joins: Sequence[Join],
    in_force: Prepared | None,
) -> str:
    """Return the hash of everything that decides the features: equal ids mean equal rows."""
    decides = {
        "after": in_force.metadata["id"] if in_force else "",
        "transform": TRANSFORM_VERSION,
        "sources": {name: source.identity for name, source in sources.items()},
        "joins": {join.settings.name: join.identity for join in joins},
        "contract": contract.fingerprint,
        "features": settings.features.model_dump(),
        "split": settings.split.model_dump(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _conformed(spark: SparkSession, settings: Settings, contract: Contract, sources: Mapping[str, Source]) -> DataFrame:
    """Return every row of every source: typed columns, `_reasons`, `_raw`, `_source_file`, `source`, `row_id`, `split`."""
    content = [column.name for column in contract.columns if column.name != contract.label]
    of_row = contract.unique_key or content
    frames = []
    for name, source in sources.items():
        rows = conforming.conform(catalog.read(spark, source, contract), contract)
        rows = rows.withColumns({"source": F.lit(name), "row_id": split.row_id(of_row)})
        frames.append(rows.withColumn("_group", split.row_id(settings.split.key or of_row)))
    # Files that are given as one side are on it.
    side = F.when(F.col("source") == "learn", split.side(F.col("_group"), settings.split)).otherwise(F.col("source"))
    return reduce(DataFrame.unionByName, frames).withColumn("split", side)


def _account(conformed: DataFrame, contract: Contract, settings: Settings, sources: Sequence[str]) -> Account:
    label = settings.features.label
    positive = {"label_positive": F.col(label.column).isin(*label.positive)}
    return conforming.account(conformed, contract, sources=sources, good_rows_with=positive)


def _placed(good: DataFrame, encoder: Encoder, num_rows: int, settings: Settings, *, was_fitted: bool) -> DataFrame:
    """Return the encoded rows, the same rows in the same files in the same order whatever the cluster."""
    is_training = F.col("split") == split.TRAIN if was_fitted else None
    prepared, encoded = features.encoded(good, encoder, is_training=is_training, row_hash="_group")
    folds = settings.split.folds
    fold = [F.expr(counting.fold("_group", folds)).alias("fold")] if folds else []
    rows = prepared.select(*encoded, features.label(encoder), *fold, "row_id", "split")
    placed = rows.repartition(max(1, -(-num_rows // _ROWS_PER_FILE)), "row_id")
    # By all that can differ: rows with the same hash are the same but for the label, and for what was joined to them.
    return placed.sortWithinPartitions("split", "row_id", "label", *(output.name for output in encoder.outputs))


def _write_sidecars(
    settings: Settings, contract: Contract, sources: Mapping[str, Source], encoder: Encoder, commit_id: str
) -> None:
    """Write what travels with the rows of a commit; it counts from when the commit stands."""
    table = settings.table("features")
    parts = {name: {part.name: part.state for part in source.parts} for name, source in sources.items()}
    storage.write_json(tables.sidecar(table, commit_id, "parts.json"), parts)
    storage.write_json(tables.sidecar(table, commit_id, "encoder.json"), encoder.to_json())
    storage.write_json(tables.sidecar(table, commit_id, "contract.json"), contracts.to_json(contract))
    storage.write_bytes(tables.sidecar(table, commit_id, "config.yaml"), settings.to_yaml().encode())


def _refuse_changed(spark: SparkSession, settings: Settings, read: Mapping[str, Source], joins: Sequence[Join]) -> None:
    """Raise SourceError when a source is no longer what it was when the job began to read it."""
    known = {**read, **{join.settings.name: join.source for join in joins}}
    now_found = _find_sources(spark, settings)
    now_found |= {join.settings.name: join.source for join in joining.find(spark, settings)}
    for name, source in now_found.items():
        before = {part.name: part.state for part in known[name].parts}
        now = {part.name: part.state for part in source.parts}
        changed = sorted(part for part, state in before.items() if now.get(part) != state)
        if changed:
            raise SourceError(
                f"{source.uri}: changed while it was read ({', '.join(changed[:3])}); nothing was written. Run again"
            )


def _report(settings: Settings, commit: Commit, *, already_done: bool, seconds: float) -> dict[str, Any]:
    metadata = commit.metadata
    counts = ("rows_read", "rows_good", "rows_quarantined", "reasons", "sources", "joins", "splits", "shift")
    return {
        **{key: metadata[key] for key in counts},
        "mode": metadata["mode"],
        "table": settings.table("features"),
        "version": commit.version,
        "encoder_fingerprint": metadata["encoder"],
        "already_done": already_done,
        "seconds": round(seconds, 3),
    }
