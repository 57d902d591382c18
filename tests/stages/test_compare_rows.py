"""Two real versions of the census sample beside one another: on slices of raw values, and on rows scored anew."""

import csv

import pytest
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.evaluation import comparison_report, predictions
from mlspark.evaluation.compared import Compared
from mlspark.evaluation.paired_rows import ComparisonError
from mlspark.settings.pipeline import Settings
from mlspark.stages.compare import Wanted, compare_versions
from mlspark.stages.prepare import prepare
from mlspark.stages.train import train

from ..conftest import SAMPLE, census_settings

TREES = ("model.kind=trees", "model.max_depth=3")
BOTH = (("census", 1), ("census", 2))


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A pipeline of the census sample with two versions of trees: of 3 and of 40 rounds."""
    home = tmp_path_factory.mktemp("home")
    for rounds in (3, 40):
        found = census_settings(SAMPLE, home, *TREES, f"model.num_rounds={rounds}", "registry.evaluation_page=false")
        prepare(spark, found)
        train(spark, found)
    return found


def raw_column(name: str) -> list[str]:
    place = {"age": 0, "sex": 9}[name]
    with (SAMPLE / "adult" / "adult.test").open() as lines:
        rows = [row for row in csv.reader(lines, skipinitialspace=True) if len(row) == 15]
    return [row[place] for row in rows]


def by_value(found: Compared) -> dict[str, int]:
    return {each.value: each.num_rows for each in found.slices[0].slices}


def test_slices_are_the_raw_values_of_the_rows(spark: SparkSession, trained: Settings) -> None:
    found = compare_versions(trained, Wanted(BOTH, slices=("sex", "age"), resamples=200), lambda: spark)

    sexes = raw_column("sex")
    assert by_value(found) == {name: sexes.count(name) for name in ("Female", "Male")}
    assert [each.column for each in found.slices] == ["sex", "age"]
    assert len(found.slices[1].slices) == 4
    assert found.slices[0].parity[0].value is not None
    page = comparison_report.page(found)
    assert "By sex: accuracy" in page
    assert "demographic parity difference" in page
    assert "http" not in page.split("</style>")[1].replace("http://www.w3.org", "")


def test_versions_without_kept_predictions_are_scored_on_the_sources_alike(
    spark: SparkSession, trained: Settings
) -> None:
    kept = compare_versions(trained, Wanted(BOTH, slices=("sex",), resamples=200), lambda: spark)
    uri = predictions.uri_of(storage.join(trained.root, "runs", kept.versions[0].run_id), "test")
    content = storage.read_bytes(uri)
    storage.delete(uri)
    try:
        anew = compare_versions(trained, Wanted(BOTH, slices=("sex",), resamples=200), lambda: spark)
    finally:
        storage.write_bytes(uri, content)

    assert "scored here with each version" in anew.origin
    assert anew.remarks == ()
    assert anew.comparisons == kept.comparisons
    assert anew.slices == kept.slices


def test_rows_that_a_version_has_learnt_from_are_left_out(spark: SparkSession, trained: Settings) -> None:
    with pytest.raises(ComparisonError) as caught:
        compare_versions(trained, Wanted(BOTH, split="train"), lambda: spark)
    assert "census/1, census/2: there are no rows of the split to compare on" in str(caught.value)
    assert "for census/1 was trained on them" in str(caught.value)
