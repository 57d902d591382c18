"""Contributions of batches: those that single rows are explained by, the greatest first."""

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.errors import ConfigError, RegistryError
from mlspark.scoring import batch, contributions
from mlspark.scoring.contributions import Explaining
from mlspark.scoring.explain import Explainer, Explanation
from mlspark.stages.score import score

from ..registry.example import package, rows
from . import test_explain as singly
from .test_score import CHANGES, NAMES, register, settings, write


def test_greatest_contributions_stand_first_whatever_their_sign() -> None:
    values = np.array([[0.5, -2.0, 1.0], [0.0, 0.25, -0.125]])
    none = np.zeros(2)
    explanation = Explanation("", (), (("a",), ("b",), ("c", "d")), values, none, none, none.astype(np.int64), {}, {})
    assert contributions.column(explanation, 2).to_pylist() == [
        [{"column": "b", "contribution": -2.0}, {"column": "c x d", "contribution": 1.0}],
        [{"column": "b", "contribution": 0.25}, {"column": "c x d", "contribution": -0.125}],
    ]
    assert [len(each) for each in contributions.column(explanation, 9).to_pylist()] == [3, 3]


def test_network_s_batches_are_explained_as_its_single_rows() -> None:
    made = package()
    explainer = Explainer(made, singly.reference(made))
    _, expected = explainer.explain(rows(*singly.GOOD))
    found = explainer.explain_encoded(explainer.predictor.encoded(rows(*singly.GOOD)))
    assert found.columns == expected.columns
    np.testing.assert_array_equal(found.values, expected.values)
    contributions.check(made, Explaining(2, singly.reference(made)))


def test_scores_have_the_contributions_of_single_rows(spark: SparkSession, tmp_path: Path) -> None:
    made = singly.of_trees(joined=False)
    file = write(tmp_path / "rows.csv", NAMES)
    pipeline = settings(tmp_path, file, "scoring.explain=3")
    register(pipeline, made)
    assert score(spark, settings(tmp_path, file))["rows_scored"] == len(CHANGES)  # the column is added to a table
    report = score(spark, pipeline)
    assert (report["rows_scored"], report["already_done"]) == (len(CHANGES), False)
    _, explanation = Explainer(made, {}).explain(rows(*CHANGES))
    expected = contributions.column(explanation, 3).to_pylist()
    scores = tables.read(spark, report["output"])
    assert scores.schema["contributions"].dataType.simpleString() == contributions.TYPE
    found = {row["small"]: row["contributions"] for row in scores.where("contributions IS NOT NULL").collect()}
    assert {small: [each.asDict() for each in of_row] for small, of_row in found.items()} == dict(
        zip((change["small"] for change in CHANGES), expected, strict=True)
    )
    assert scores.where("contributions IS NULL").count() == len(CHANGES)


def test_network_whose_training_rows_are_gone_is_not_explained(spark: SparkSession, tmp_path: Path) -> None:
    pipeline = settings(tmp_path, write(tmp_path / "rows.csv", NAMES), "scoring.explain=3")
    register(pipeline, package(joined=False))
    with pytest.raises(RegistryError, match="is missing, which names the rows that it learnt from"):
        score(spark, pipeline)
    assert not tables.exists(pipeline.table("scores"))


def test_column_that_has_the_name_of_contributions_is_in_the_way(tmp_path: Path) -> None:
    made = package(joined=False)
    kept = batch.kept_columns(made, ["contributions"], {"contributions": "string"})
    with pytest.raises(ConfigError, match=r"scoring.explain: the rows have a column contributions"):
        batch.check(made, str(tmp_path / "scores"), kept=kept, is_explained=True)
