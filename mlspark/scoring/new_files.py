"""Files of a source that a version has not scored yet. Driver; no Spark job.

The ledger is the log of the score table: each commit says which files its rows are of, so rows and ledger cannot disagree,
whatever is killed. A checkpoint of Spark's streams would be a second record beside it, and would know neither contract nor
version.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mlspark import storage, tables
from mlspark.sources.source import Part, Source

WRITERS = "mlspark.files"
"""The row of writers of the score table that go by its ledger: see `tables.next_turn`."""
FILES = "files"
"""Key of a commit's metadata: what `key` says of each of its files."""


def key(part: Part, decides: Mapping[str, Any]) -> str:
    """Return what stands for a file in this state, scored in this way.

    Args:
        part: the file.
        decides: everything else that decides its scores: the version, joins, settings of the source.
    """
    return storage.digest({"part": [part.name, part.state], **decides})[:32]


def scored(table: str) -> frozenset[str]:
    """Return the keys of all files whose scores are in the table."""
    return frozenset(each for commit in tables.commits(table) for each in commit.metadata.get(FILES, ()))


def groups(
    source: Source, decides: Mapping[int, Mapping[str, Any]], done: frozenset[str], at_once: int
) -> list[tuple[Source, tuple[int, ...]]]:
    """Return the source's files that are not scored yet, in groups, each with the versions that have not.

    Args:
        source: all of its files.
        decides: version -> see `key`.
        done: from `scored`.
        at_once: most files of a group.
    """
    waiting: dict[tuple[int, ...], list[Part]] = {}
    for part in source.parts:
        versions = tuple(version for version, each in decides.items() if key(part, each) not in done)
        if versions:
            waiting.setdefault(versions, []).append(part)
    return [
        (source.with_parts(tuple(parts[start : start + at_once])), versions)
        for versions, parts in waiting.items()
        for start in range(0, len(parts), at_once)
    ]


def keys(source: Source, decides: Mapping[str, Any]) -> Sequence[str]:
    """Return the key of each file of a group."""
    return [key(part, decides) for part in source.parts]
