"""Versions whose features come from a join: scored anew on the sources beside one another, and explained row by row."""

import json

import numpy as np
import pytest
import yaml
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from mlspark import storage
from mlspark.evaluation import latency, predictions
from mlspark.evaluation.paired_rows import ComparisonError
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor
from mlspark.settings import loading
from mlspark.settings.pipeline import Settings
from mlspark.stages import explanation
from mlspark.stages.compare import Wanted, compare_versions
from mlspark.stages.prepare import prepare
from mlspark.stages.rescoring import rescore
from mlspark.stages.score import needed_joins
from mlspark.stages.train import train
from mlspark.tracking import runs

BOTH = (("visits", 1), ("visits", 2))
NUM_PEOPLE = 240
VISITS = {
    "name": "visits",
    "label": "bought",
    "columns": [
        {"name": "person", "type": "string", "nullable": False},
        {"name": "day", "type": "timestamp", "nullable": False},
        {"name": "pages", "type": "int"},
        {"name": "bought", "type": "string", "nullable": False, "allowed": ["yes", "no"]},
    ],
}
CLICKS = {
    "name": "clicks",
    "columns": [
        {"name": "who", "type": "string", "nullable": False},
        {"name": "at", "type": "timestamp", "nullable": False},
        {"name": "seconds", "type": "int"},
    ],
}
PIPELINE = """
name: visits
contract: {folder}/visits.json
storage: {{root: {folder}/home}}
sources:
  root: {folder}
  learn: {{kind: csv, path: visits.csv}}
split: {{validation_share: 0.2, test_share: 0.3}}
joins:
  - name: clicks
    source: {{kind: csv, path: clicks.csv}}
    contract: {folder}/clicks.json
    keys: {{person: who}}
    label_time: day
    event_time: at
    columns: [seconds]
    aggregates: [{{function: count, window_seconds: 604800}}]
task: {{kind: binary, target: bought, classes: ["no", "yes"]}}
features:
  inputs: [{{kind: number, columns: [pages, clicks_seconds, count_clicks_7d], impute: constant, fill: -1}}]
model: {{kind: trees, max_depth: 3}}
registry: {{evaluation_page: false}}
scoring: {{source: {{kind: csv, path: visits.csv}}}}
"""


def clicks_of(place: int) -> list[tuple[str, int]]:
    """When a person clicked, the last at the very moment of the visit, and seconds of each."""
    before = [(f"2024-03-0{day} 10:00:00", place + day) for day in range(4, 4 + place % 4)]
    return [*before, ("2024-03-09 00:00:00", 99)]


@pytest.fixture(scope="module")
def trained(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Two versions of trees, of 2 and of 20 rounds; who clicked twice or more in the week before bought mostly."""
    folder = tmp_path_factory.mktemp("visits")
    random = np.random.default_rng(0)
    visits, clicks = [], []
    for place in range(NUM_PEOPLE):
        bought = (place % 4 >= 2) != (random.random() < 0.1)
        visits.append(f"p{place},2024-03-09 00:00:00,{random.integers(1, 9)},{'yes' if bought else 'no'}")
        clicks += [f"p{place},{at},{seconds}" for at, seconds in clicks_of(place)]
    (folder / "visits.csv").write_text("\n".join(visits) + "\n")
    (folder / "clicks.csv").write_text("\n".join(clicks) + "\n")
    for contract in (VISITS, CLICKS):
        (folder / f"{contract['name']}.json").write_text(json.dumps(contract))
    (folder / "visits.yaml").write_text(yaml.safe_dump(yaml.safe_load(PIPELINE.format(folder=folder))))
    settings = [loading.load([str(folder / "visits.yaml")], [f"model.num_rounds={rounds}"]) for rounds in (2, 20)]
    prepare(spark, settings[0])
    for each in settings:
        train(spark, each)
    return settings[0]


def test_they_are_scored_anew_with_joined_columns_as_they_were_evaluated(
    spark: SparkSession, trained: Settings
) -> None:
    wanted = Wanted(BOTH, slices=("count_clicks_7d",), resamples=100)
    kept = compare_versions(trained, wanted, lambda: spark)
    uri = predictions.uri_of(storage.join(trained.root, "runs", kept.versions[0].run_id), "test")
    storage.delete(uri)

    anew = compare_versions(trained, wanted, lambda: spark)

    assert "scored here with each version" in anew.origin
    assert anew.remarks == ()
    assert anew.comparisons == kept.comparisons
    assert anew.slices == kept.slices
    assert {each.value for each in anew.slices[0].slices} == {"0", "1", "2", "3"}
    assert anew.versions[0].latency is not None


def test_a_version_that_cannot_score_a_row_is_named(
    spark: SparkSession, trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = versions.find(runs.connect(trained.tracking, trained.root), "visits", 1).package
    columns = [
        rule.model_copy(update={"max": 7.0} if rule.name == "pages" else {}) for rule in package.contract.columns
    ]
    strict = Package.pack(
        model={name: package.files[name] for name in ("model.json", "model.ubj")},
        encoder=package.encoder, contract=package.contract.model_copy(update={"columns": tuple(columns)}),
        task=package.task, provenance=package.provenance,
    )  # fmt: skip
    monkeypatch.setattr(latency, "BATCH_ROWS", 1)  # rows that the driver looks at beforehand
    with pytest.raises(
        ComparisonError, match=r"^strict/1 cannot score the rows of the sources: contract visits: pages\.max: "
    ) as caught:
        rescore(spark, trained, "test", {"strict/1": strict}, (), package.task)
    assert isinstance(caught.value.__cause__, PySparkException)  # a worker found it


def test_a_row_of_a_source_is_explained_with_what_was_joined_to_it(spark: SparkSession, trained: Settings) -> None:
    model = versions.find(runs.connect(trained.tracking, trained.root), "visits", 2)
    joins = needed_joins(spark, [model], trained.joins, root=trained.sources.root)
    assert trained.scoring.source is not None
    raw = explanation.of_source(spark, model, trained.scoring.source, joins, root=trained.sources.root, most=6)
    of_version, baseline = explanation.explainer(model, trained.root)

    explained = explanation.explained(model, of_version, raw, baseline=baseline)

    expected = Predictor(model.package).predict(raw.rows)["probability"]
    assert [row.number for row in explained.rows] == list(range(6))
    for place, row in enumerate(explained.rows):
        values = {added.columns[0]: added.values[0] for added in row.added}
        before = clicks_of(place)[:-1]
        newest = before[-1][1] if before else None
        assert (values["count_clicks_7d"], values["clicks_seconds"]) == (len(before), newest)
        assert row.prediction["probability"] == expected[place]
        assert row.baseline + sum(added.adds for added in row.added) == pytest.approx(row.output, abs=1e-5)
