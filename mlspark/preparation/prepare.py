"""Raw rows become one version of the feature table, every row accounted for. Driver."""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from mlspark.errors import ContractError
from mlspark.features import spark as features
from mlspark.features import split
from mlspark.features.encoder import Encoder
from mlspark.sources import catalog
from mlspark.sources.source import Source, reading

logger = logging.getLogger(__name__)

TRANSFORM_VERSION = 1
"""Part of every preparation's id: raise it when the same rows and settings would give other features."""

_ROWS_PER_FILE = 1_000_000
"""Aim for a file of features: some 60 MB of 15 columns."""


@dataclass(frozen=True)
class Prepared:
    """A version of the feature table, with what travels with it."""

    table: str
    version: int
    metadata: Mapping[str, Any]
    encoder: Encoder


def prepare(spark: SparkSession, settings: Settings) -> dict[str, Any]:
    """Write the feature table and the quarantine of the configured sources, and return the report.

    Does nothing when the latest feature table already holds these sources under these settings.

    Raises:
        SourceError: a source is absent or empty.
        ContractError: the data as a whole does not meet the contract; nothing was written.
        FeatureError: the features do not fit the contract.
    """
    started = time.monotonic()
    contract = contracts.load(settings.contract)
    features.check(settings.features, contract, settings.name)
    sources = _find_sources(spark, settings)
    drifts = _drifts(spark, contract, sources)
    commit_id = _commit_id(settings, contract, sources)
    table = settings.table("features")

    done = tables.commits(table)[:1]
    if done and done[0].metadata["id"] == commit_id:
        logger.info("%s: already done, version %d of %s", settings.name, done[0].version, table)
        return _report(done[0].metadata, table, done[0].version, already_done=True, seconds=time.monotonic() - started)

    conformed = _conformed(spark, settings, contract, sources).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        with reading(", ".join(source.uri for source in sources.values())):
            account = _account(conformed, contract, settings, list(sources))
        for name, counts in account.sources.items():
            logger.info("%s: read %s rows, kept %s, rejected %s", name, *(f"{counts[key]:,}" for key in account.totals))
        conforming.check_account(account, contract)
        good = conformed.where(~conforming.is_bad())
        train = good.where(F.col("split") == split.TRAIN)
        encoder = features.fit(train, settings.features, pipeline=settings.name)
        logger.info("encoder: fitted on %s training rows, %s", f"{encoder.rows:,}", encoder.fingerprint[:12])

        provenance = {
            "id": commit_id,
            "contract": contract.fingerprint,
            "transform_version": TRANSFORM_VERSION,
            "encoder": encoder.fingerprint,
            **account.totals,
            "reasons": account.reasons,
            "sources": {
                name: {**source.identity, "drift": drifts[name], **account.sources[name]}
                for name, source in sources.items()
            },
        }
        storage.write_json(tables.sidecar(table, commit_id, "encoder.json"), encoder.to_json())
        storage.write_json(tables.sidecar(table, commit_id, "contract.json"), contracts.to_json(contract))
        storage.write_bytes(tables.sidecar(table, commit_id, "config.yaml"), settings.to_yaml().encode())
        tables.write_quarantine(
            conformed.where(conforming.is_bad()),
            settings.table("quarantine"),
            commit_id,
            account.totals["rows_quarantined"],
        )
        version = _write_features(good, encoder, table, account.totals["rows_good"], provenance)
    finally:
        conformed.unpersist()
    seconds = time.monotonic() - started
    logger.info("features: wrote version %d of %s in %.1f s", version, table, seconds)
    return _report(provenance, table, version, already_done=False, seconds=seconds)


def latest(settings: Settings) -> Prepared:
    """Return the newest version of the pipeline's feature table that prepare wrote.

    Raises:
        ContractError: there is none yet.
    """
    table = settings.table("features")
    found = tables.commits(table)[:1]
    if not found:
        raise ContractError(f"{table}: no feature table; run jobs/prepare.py with the same config first")
    metadata = found[0].metadata
    encoder = Encoder.from_json(storage.read_json(tables.sidecar(table, metadata["id"], "encoder.json")))
    assert encoder.fingerprint == metadata["encoder"], f"{table}: encoder.json is not the one that was fitted"
    return Prepared(table, found[0].version, metadata, encoder)


def _find_sources(spark: SparkSession, settings: Settings) -> dict[str, Source]:
    configured = {"learn": settings.sources.learn, "test": settings.sources.test}
    return {
        name: catalog.find(spark, source, root=settings.sources.root)
        for name, source in configured.items()
        if source is not None
    }


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


def _commit_id(settings: Settings, contract: Contract, sources: Mapping[str, Source]) -> str:
    """Return the hash of everything that decides the features: equal ids mean equal rows."""
    decides = {
        "transform": TRANSFORM_VERSION,
        "sources": {name: source.identity for name, source in sources.items()},
        "contract": contract.fingerprint,
        "features": settings.features.model_dump(),
        "split": settings.split.model_dump(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def _conformed(spark: SparkSession, settings: Settings, contract: Contract, sources: Mapping[str, Source]) -> DataFrame:
    """Return every row of every source: typed columns, `_reasons`, `_raw`, `_source_file`, `source`, `row_id`, `split`."""
    content = [column.name for column in contract.columns if column.name != contract.label]
    frames = []
    for name, source in sources.items():
        rows = conforming.conform(catalog.read(spark, source, contract), contract)
        frames.append(rows.withColumns({"source": F.lit(name), "row_id": split.row_id(content)}))
    side = F.when(F.col("source") == "test", split.TEST).otherwise(split.side(F.col("row_id"), settings.split))
    return reduce(DataFrame.unionByName, frames).withColumn("split", side)


def _account(conformed: DataFrame, contract: Contract, settings: Settings, sources: Sequence[str]) -> Account:
    label = settings.features.label
    positive = {"label_positive": F.col(label.column).isin(*label.positive)}
    return conforming.account(conformed, contract, sources=sources, good_rows_with=positive)


def _write_features(good: DataFrame, encoder: Encoder, table: str, num_rows: int, provenance: Mapping[str, Any]) -> int:
    """Write the encoded rows, the same rows into the same files in the same order whatever the cluster."""
    encoded = good.select(*features.transform(encoder), features.label(encoder), "row_id", "split")
    placed = encoded.repartition(max(1, -(-num_rows // _ROWS_PER_FILE)), "row_id")
    # Sorted by all columns: rows with the same hash are the same but for the label.
    placed = placed.sortWithinPartitions("split", "row_id", "label")
    return tables.write(placed, table, metadata=provenance, mode="overwrite", partition_by=["split"])


def _report(
    metadata: Mapping[str, Any], table: str, version: int, *, already_done: bool, seconds: float
) -> dict[str, Any]:
    return {
        **{key: metadata[key] for key in ("rows_read", "rows_good", "rows_quarantined", "reasons", "sources")},
        "table": table,
        "version": version,
        "encoder_fingerprint": metadata["encoder"],
        "already_done": already_done,
        "seconds": round(seconds, 3),
    }
