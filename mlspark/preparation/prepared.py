"""A prepared version of the feature table, found again with what travels with it. Driver."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from mlspark import storage, tables
from mlspark.config import Settings
from mlspark.contracts.contract import Contract
from mlspark.errors import TableError
from mlspark.features.encoder import Encoder
from mlspark.tables import Commit

_MAX_VERSIONS_NAMED = 10


@dataclass(frozen=True)
class Prepared:
    """A version of the feature table, with what travels with it."""

    table: str
    version: int
    metadata: Mapping[str, Any]
    """Of its commit: "id", "ids" of all preparations whose rows are in force, counts, sources, fingerprints."""
    encoder: Encoder
    contract: Contract
    """Of the raw rows that the features were made of."""


def latest(settings: Settings) -> Prepared:
    """Return the newest version of the pipeline's feature table that prepare wrote.

    Raises:
        TableError: there is none yet.
    """
    return at(settings, None)


def at(settings: Settings, version: int | None) -> Prepared:
    """Return a version of the pipeline's feature table that prepare wrote, the newest for None.

    Raises:
        TableError: there is none yet, or not this one; names those there are.
    """
    table = settings.table("features")
    return of_commit(table, commit_at(table, version))


def commit_at(table: str, version: int | None) -> Commit:
    """Return the commit of a version of feature table `table` that prepare wrote, the newest for None.

    Raises:
        TableError: as `at`.
    """
    found = tables.commits(table)
    if not found:
        raise TableError(f"{table}: no feature table; run jobs/prepare.py with the same config first")
    chosen = next((commit for commit in found if version in (None, commit.version)), None)
    if chosen is None:
        named = ", ".join(str(commit.version) for commit in found[:_MAX_VERSIONS_NAMED])
        more = f" and {len(found) - _MAX_VERSIONS_NAMED} older" if len(found) > _MAX_VERSIONS_NAMED else ""
        raise TableError(f"{table}: no version {version} that prepare wrote; there are {named}{more}")
    return chosen


def of_commit(table: str, commit: Commit) -> Prepared:
    """Return what was prepared by a commit of feature table `table`."""
    commit_id = commit.metadata["id"]
    encoder = Encoder.from_json(storage.read_json(tables.sidecar(table, commit_id, "encoder.json")))
    assert encoder.fingerprint == commit.metadata["encoder"], f"{table}: encoder.json is not the one that was fitted"
    contract = Contract.model_validate_json(storage.read_bytes(tables.sidecar(table, commit_id, "contract.json")))
    return Prepared(table, commit.version, commit.metadata, encoder, contract)


def read_quarantine(spark: SparkSession, settings: Settings) -> DataFrame:
    """Return the bad rows that belong to the newest feature table version: job_id, source, source_file, reasons, raw.

    Raises:
        TableError: nothing was prepared yet.
    """
    found = latest(settings)
    return tables.read_quarantine(spark, settings.table("quarantine"), found.metadata["ids"])
