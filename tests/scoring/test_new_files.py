"""Files of a source that are scored once each, as they come, and scores that take the place of earlier ones."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark import quarantine, tables
from mlspark.errors import ConfigError, TableError
from mlspark.scoring import new_files
from mlspark.scoring.settings import ScoringSettings
from mlspark.sources.csv import CsvSettings
from mlspark.sources.source import Part, Source
from mlspark.stages.score import score

from ..registry.example import package
from .test_score import CHANGES, NAMES, register, settings, write

DECIDES: dict[int, dict[str, Any]] = {1: {"model": 1}, 2: {"model": 2}}


def source(*names: str) -> Source:
    return Source("/rows", CsvSettings(kind="csv", path="/rows"), tuple(Part(name, "1 byte") for name in names))


def grouped(rows: Source, done: frozenset[str]) -> list[tuple[list[str], tuple[int, ...]]]:
    groups = new_files.groups(rows, DECIDES, done, 2)
    return [([part.name for part in group.parts], versions) for group, versions in groups]


def test_each_version_scores_the_files_that_it_has_not() -> None:
    first = new_files.keys(source("a", "b"), DECIDES[1])
    second = new_files.keys(source("a"), DECIDES[2])
    assert grouped(source("a", "b", "c", "d", "e"), frozenset([*first, *second])) == [
        (["b"], (2,)),
        (["c", "d"], (1, 2)),
        (["e"], (1, 2)),
    ]
    everything = [key for each in DECIDES.values() for key in new_files.keys(source("a", "b"), each)]
    assert grouped(source("a", "b"), frozenset(everything)) == []


def test_file_that_changes_is_a_new_one() -> None:
    changed = source("a").with_parts((Part("a", "2 bytes"),))
    assert grouped(changed, frozenset(new_files.keys(source("a"), DECIDES[1]))) == [(["a"], (1, 2))]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    register(settings(folder, folder), package(joined=False))
    return folder


def test_files_are_scored_once_each_as_they_come(spark: SparkSession, home: Path) -> None:
    rows = home / "rows"
    rows.mkdir()
    write(rows / "a.csv", NAMES)
    write(rows / "b.csv", NAMES)
    pipeline = settings(home, rows, "scoring.files_at_once=1")
    report = score(spark, pipeline)
    assert (report["files"], report["files_scored"], report["rows_scored"]) == (2, 2, 2 * len(CHANGES))
    commits = tables.commits(report["output"])
    assert [len(commit.metadata["files"]) for commit in commits] == [1, 1]
    assert "delta.logRetentionDuration" in tables.opened(report["output"]).metadata().configuration
    again = score(spark, pipeline)
    assert (again["already_done"], again["files_scored"], again["rows_read"]) == (True, 0, 0)

    third = write(rows / "c.csv", NAMES)
    third.write_text(third.read_text() * 3 + "no,row\n")  # 1 of 13: the contract takes a tenth
    later = score(spark, pipeline)
    assert [later[key] for key in ("files_scored", "rows_read", "rows_scored", "rows_quarantined")] == [1, 13, 12, 1]
    scores = tables.read(spark, report["output"])
    of_files = {
        row["source_file"].rsplit("/", 1)[1]: row["count"] for row in scores.groupBy("source_file").count().collect()
    }
    assert of_files == {"a.csv": 4, "b.csv": 4, "c.csv": 12}
    ids = [commit.metadata["id"] for commit in tables.commits(report["output"])]
    assert quarantine.read(spark, pipeline.table("scores_quarantine"), ids).count() == 1


def test_job_that_another_was_faster_than_writes_nothing(spark: SparkSession, tmp_path: Path) -> None:
    """Both have read the ledger before one of them commits: its files are in the other's group, too."""
    table = str(tmp_path / "scores")
    frame = spark.range(3).withColumn("score_id", F.lit("a"))
    turn = tables.next_turn(table, new_files.WRITERS)
    tables.replace_part(frame, table, part="score_id", value="a", metadata={"id": "a"}, turn=turn)
    other = frame.withColumn("score_id", F.lit("b"))
    with pytest.raises(tables.ConcurrentWrite, match="another writer was first"):
        tables.replace_part(other, table, part="score_id", value="b", metadata={"id": "b"}, turn=turn)
    assert tables.read(spark, table).count() == 3
    turn = tables.next_turn(table, new_files.WRITERS)
    tables.replace_part(other, table, part="score_id", value="b", metadata={"id": "b"}, turn=turn)
    assert tables.read(spark, table).count() == 6


def test_scores_of_some_rows_take_the_place_of_earlier_ones(spark: SparkSession, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.csv", NAMES)
    made = package(joined=False)
    register(settings(tmp_path, rows), made)
    first = score(spark, settings(tmp_path, rows))
    later = write(tmp_path / "later.csv", NAMES)
    lines = later.read_text().splitlines(keepends=True)
    later.write_text("".join([*lines[2:], lines[3]]))
    with pytest.raises(TableError, match="not one of those to be replaced"):
        score(spark, settings(tmp_path, later, "scoring.replace=small < 8"))
    assert tables.read(spark, first["output"]).count() == len(CHANGES)
    report = score(spark, settings(tmp_path, later, "scoring.replace=small >= 7"))
    found = tables.read(spark, report["output"]).collect()
    assert sorted((row["small"], row["source_file"].rsplit("/", 1)[1]) for row in found) == [
        (5, "rows.csv"),
        (6, "rows.csv"),
        (7, "later.csv"),
        (8, "later.csv"),
        (8, "later.csv"),
    ]
    assert score(spark, settings(tmp_path, later, "scoring.replace=small >= 7"))["already_done"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"kind": "delta", "path": "/rows"}, "a source of kind delta is read as one"),
        ({"kind": "idx", "path": "/rows", "columns": {"picture": "pictures"}}, "a source of kind idx is read as one"),
        ({"kind": "images", "path": "/rows", "manifest": {"path": "/rows.csv"}}, "a source with a manifest"),
    ],
)
def test_source_whose_files_are_not_read_alone_is_refused(source: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ScoringSettings.model_validate({"source": source, "files_at_once": 1})
    ScoringSettings.model_validate({"source": source})


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replace and files_at_once: choose one"):
        settings(tmp_path, tmp_path, "scoring.replace=small = 7", "scoring.files_at_once=1")
