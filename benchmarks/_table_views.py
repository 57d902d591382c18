"""What a reader sees of the tables of a killed job, and the rows that such jobs are given."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import SparkSession

from mlspark import session, tables
from mlspark.datasets import census_like

Rows = Counter[tuple[Any, ...]]


@dataclass(frozen=True)
class View:
    """What a reader sees: the newest version's rows, and how many versions are not whole."""

    rows: Rows = field(default_factory=Counter)
    quarantine: Rows = field(default_factory=Counter)
    num_halves: int = 0

    def minus(self, other: "View") -> int:
        """Return how many rows are here and not there, each as often as it is."""
        return (self.rows - other.rows).total() + (self.quarantine - other.quarantine).total()


@dataclass
class Result:
    """Sums over all kills."""

    lost: int = 0
    duplicated: int = 0
    visible_halves: int = 0
    unaccounted: int = 0
    """Rows read that are neither good nor quarantined."""
    left_files: int = 0
    """Data files that no version names, right after the kills."""
    left_after_vacuum: int = 0
    by_moment: Counter[str] = field(default_factory=Counter)
    by_start: Counter[str] = field(default_factory=Counter)

    def compare(self, found: View, expected: View) -> None:
        self.lost += expected.minus(found)
        self.duplicated += found.minus(expected)
        self.visible_halves += found.num_halves

    def figures(self, kills: int, seconds: float, *, moments: Sequence[str], seed: int, **more: Any) -> dict[str, Any]:
        """Return what a benchmark reports of its kills, with the moments of the job in order."""
        return {
            "kills": kills,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "visible_halves": self.visible_halves,
            "seconds": round(seconds, 1),
            **more,
            "unaccounted": self.unaccounted,
            "left_files": self.left_files,
            "left_after_vacuum": self.left_after_vacuum,
            "by_moment": {moment: self.by_moment[moment] for moment in moments if self.by_moment[moment]},
            "by_start": dict(self.by_start),
            "seed": seed,
        }


def report(figures: Mapping[str, Any], json_file: Path | None) -> bool:
    """Print the figures, write them as JSON where asked, and return whether all kills left the tables as they must be."""
    print()
    for key, value in figures.items():
        print(f"{key:<20}{value}")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return not any(figures[key] for key in ("lost", "duplicated", "visible_halves", "unaccounted", "left_after_vacuum"))


def counted(rows: Sequence[Any]) -> Rows:
    """Return each row as texts, with how often it is there."""
    return Counter(tuple(str(value) for value in row) for row in rows)


def orphans(table: str) -> int:
    """Return the number of data files in a table's folder that none of its versions names."""
    found = {str(path) for path in Path(table).rglob("*.parquet") if "/_delta_log/" not in str(path)}
    if tables.exists(table):
        for version in range(DeltaTable(table).version() + 1):
            found -= {uri.removeprefix("file://") for uri in DeltaTable(table, version=version).file_uris()}
    return len(found)


def files_not_needed(spark: SparkSession, table: str) -> int:
    """Vacuum with retention 0; return how many data files beyond those of the newest version are left."""
    spark.sql(f"VACUUM delta.`{table}` RETAIN 0 HOURS")
    found = [path for path in Path(table).rglob("*.parquet") if "/_delta_log/" not in str(path)]
    return len(found) - len(DeltaTable(table).file_uris())


def write_rows(data: Path, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Return lines to learn from and to test with: 3,000, of which 60 are bad."""
    census_like.write(data, num_train=2400, num_test=600, seed=seed, bad_rows=60)
    files = (data / "adult" / name for name in ("adult.data", "adult.test"))
    learn, test = (path.read_bytes().splitlines(keepends=True) for path in files)
    return learn, test


@contextmanager
def reader(folder: Path, name: str) -> Iterator[SparkSession]:
    """Yield the session of the benchmark itself."""
    own: dict[str, bool | float | int | str | None] = {
        "spark.sql.shuffle.partitions": "2",
        "spark.log.level": "ERROR",
        "spark.local.dir": str(folder),
        # VACUUM lists folders in so many tasks: 10,000 by default, a minute each time.
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
        # Nobody else uses these tables, so nothing that VACUUM takes away is needed.
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    }
    spark = SparkSession.builder.appName(name).config(map={**session.defaults(), **own}).getOrCreate()
    try:
        yield spark
    finally:
        spark.stop()
