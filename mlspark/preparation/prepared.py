"""A prepared version of the feature table, found again with what travels with it. Driver."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from mlspark import storage, tables
from mlspark.config import Settings
from mlspark.contracts.contract import Contract
from mlspark.errors import ContractError
from mlspark.features.encoder import Encoder
from mlspark.tables import Commit


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
        ContractError: there is none yet.
    """
    return at(settings, None)


def at(settings: Settings, version: int | None) -> Prepared:
    """Return a version of the pipeline's feature table that prepare wrote, the newest for None.

    Raises:
        ContractError: there is none yet, or not this one; names those there are.
    """
    table = settings.table("features")
    found = tables.commits(table)
    if not found:
        raise ContractError(f"{table}: no feature table; run jobs/prepare.py with the same config first")
    if version is None:
        return of_commit(table, found[0])
    chosen = next((commit for commit in found if commit.version == version), None)
    if chosen is None:
        versions = ", ".join(str(commit.version) for commit in reversed(found))
        raise ContractError(f"{table}: no version {version} that prepare wrote; there are {versions}")
    return of_commit(table, chosen)


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
        ContractError: nothing was prepared yet.
    """
    found = latest(settings)
    return tables.read_quarantine(spark, settings.table("quarantine"), found.metadata["ids"])
