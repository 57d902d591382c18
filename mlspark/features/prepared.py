"""A prepared version of the feature table, found again with what travels with it. Driver."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from mlspark import quarantine as quarantines
from mlspark import tables
from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import Contract
from mlspark.errors import TableError
from mlspark.features.encoder import Encoder
from mlspark.tables import Commit
from mlspark.tasks import kinds as tasks
from mlspark.tasks.task import Task

_MAX_VERSIONS_NAMED = 10


@dataclass(frozen=True)
class Prepared:
    """A version of the feature table, with what travels with it."""

    table: str
    version: int
    metadata: Mapping[str, Any]
    """Metadata of its commit: "id", "ids" of all preparations whose rows are in force, counts, sources, fingerprints."""
    encoder: Encoder
    task: Task
    """Task, resolved on the training rows."""
    contract: Contract
    """Contract of the raw rows from which the features were made."""


def latest(table: str) -> Prepared:
    """Return the newest version of feature table `table` that prepare wrote.

    Raises:
        TableError: prepare wrote no version yet.
    """
    return at(table, None)


def at(table: str, version: int | None) -> Prepared:
    """Return a version of feature table `table` that prepare wrote, the newest for None.

    Raises:
        TableError: prepare wrote no version yet, or not this one; names those it wrote.
    """
    return of_commit(table, commit_at(table, version))


def commit_at(table: str, version: int | None) -> Commit:
    """Return the commit of a version of feature table `table` that prepare wrote, the newest for None.

    Raises:
        TableError: as `at`.
    """
    commits = tables.commits(table)
    if not commits:
        raise TableError(f"{table}: no feature table; run jobs/prepare.py with the same config first")
    chosen = next((commit for commit in commits if version in (None, commit.version)), None)
    if chosen is None:
        named = ", ".join(str(commit.version) for commit in commits[:_MAX_VERSIONS_NAMED])
        omitted = f" and {len(commits) - _MAX_VERSIONS_NAMED} older" if len(commits) > _MAX_VERSIONS_NAMED else ""
        raise TableError(f"{table}: no version {version} that prepare wrote; there are {named}{omitted}")
    return chosen


def of_commit(table: str, commit: Commit) -> Prepared:
    """Return what was prepared by a commit of feature table `table`.

    Raises:
        TableError: a file that travels with the rows is absent or not what was written; names it.
    """
    commit_id = commit.metadata["id"]
    encoder = Encoder.from_json(tables.read_sidecar(table, commit_id, "encoder.json"))
    contract = contracts.from_json(tables.read_sidecar(table, commit_id, "contract.json"))
    for name, of_file in (("encoder", encoder.fingerprint), ("contract", contract.fingerprint)):
        if of_file != commit.metadata[name]:
            raise TableError(
                f"{tables.sidecar(table, commit_id, f'{name}.json')}: is not the {name} of version {commit.version}; "
                f"restore the file or prepare the table anew"
            )
    task = tasks.from_json(json.dumps(tables.read_sidecar(table, commit_id, "task.json")))
    return Prepared(table, commit.version, commit.metadata, encoder, task, contract)


def read_quarantine(spark: SparkSession, table: str, quarantine: str) -> DataFrame:
    """Return the bad rows that belong to the newest version of feature table `table`, from its quarantine.

    Returns:
        job_id, source, source_file, reasons, raw.

    Raises:
        TableError: nothing was prepared yet.
    """
    return quarantines.read(spark, quarantine, latest(table).metadata["ids"])
