"""What a scoring reports. Driver."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mlspark import tables
from mlspark.contracts.contract import ColumnRule
from mlspark.registry.versions import ModelVersion
from mlspark.scoring import batch, new_files
from mlspark.sources.source import Source
from mlspark.tables import Commit


def of_commit(
    renamed: Mapping[str, str], commit: Commit, table: str, *, already_done: bool, started: float
) -> dict[str, Any]:
    """Return the report of a version whose scores of the whole source are one commit.

    Args:
        renamed: columns of the contract -> their names in the score table, where those differ.
        commit: of the score table.
        table: URI of the score table.
        already_done: whether it stood before this run.
        started: of the run, by `time.monotonic`.
    """
    metadata = commit.metadata
    return {
        "rows_read": metadata["rows_read"],
        "rows_scored": metadata["rows_good"],
        "rows_quarantined": metadata["rows_quarantined"],
        "reasons": metadata["reasons"],
        "schema_differences": metadata["source"]["schema_differences"],
        "renamed": dict(renamed),
        "source": metadata["source"],
        "output": table,
        "output_version": commit.version,
        "model_name": metadata["model_name"],
        "model_version": metadata["model_version"],
        "already_done": already_done,
        "seconds": round(time.monotonic() - started, 3),
    }


def of_files(
    model: ModelVersion,
    rows_source: Source,
    commits: Sequence[Commit],
    table: str,
    kept: Sequence[ColumnRule],
    started: float,
) -> dict[str, Any]:
    """Return the report of a version that scored new files; rows are those of this run.

    Args:
        model: the version.
        rows_source: all files.
        commits: of the score table, by this run.
        table: URI of the score table.
        kept: columns besides the contract's.
        started: of the run, by `time.monotonic`.
    """
    every = [commit.metadata for commit in commits]
    reasons = sum((Counter(metadata["reasons"]) for metadata in every), Counter[str]())
    differing = (metadata["source"]["schema_differences"] for metadata in every)
    newest = commits[-1] if commits else tables.latest(table)
    return {
        "rows_read": sum(metadata["rows_read"] for metadata in every),
        "rows_scored": sum(metadata["rows_good"] for metadata in every),
        "rows_quarantined": sum(metadata["rows_quarantined"] for metadata in every),
        "reasons": dict(reasons),
        "schema_differences": next((each for each in differing if each), {}),
        "renamed": {name: new for name, new in batch.written_names(model.package, kept).items() if name != new},
        "source": rows_source.identity,
        "output": table,
        "output_version": None if newest is None else newest.version,
        "files_scored": sum(len(metadata[new_files.FILES]) for metadata in every),
        "files": len(rows_source.parts),
        "model_name": model.name,
        "model_version": model.version,
        "already_done": not commits,
        "seconds": round(time.monotonic() - started, 3),
    }
