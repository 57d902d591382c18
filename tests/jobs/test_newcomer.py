"""A newcomer's table goes in as pandas wrote it: gaps as NaN, any header, a label of 0 and 1 or true and false."""

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.commands import source_arguments
from mlspark.contracts import infer
from mlspark.intake import draft as drafts
from mlspark.settings import loading
from mlspark.stages.check import check_prepare
from mlspark.stages.prepare import prepare
from mlspark.stages.score import score
from mlspark.stages.train import train
from mlspark.tracking import runs

NUM_ROWS = 240
LABELS: dict[str, tuple[Any, Any]] = {"integers": (0, 1), "booleans": (False, True), "floats": (0.0, 1.0)}


def people(label: tuple[Any, Any], *, rows: int = NUM_ROWS, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    age = random.integers(18, 80, rows)
    pay = np.where(np.arange(rows) % 5 == 0, np.nan, random.normal(30, 5, rows).round(2))
    return pd.DataFrame(
        {
            "customer-id": np.arange(rows) + 1000 * seed,
            "Age (years)": np.where(np.arange(rows) % 7 == 0, np.nan, age),  # whole numbers, floats for their gaps
            "pay/hour": pay,
            "native country": random.choice(["Peru", "Chile"], rows),
            "is rich?": [label[int(number)] for number in (age > 45)],
        }
    )


def settings_of(folder: Path, spark: SparkSession, label: tuple[Any, Any]) -> Any:
    """The pipeline on a contract that was drafted from the data and used as it is."""
    folder.mkdir()
    people(label).to_parquet(folder / "people.parquet")
    source: Any = source_arguments.settings(str(folder / "people.parquet"), "parquet", [])
    draft = drafts.draft_from(spark, source, name="people", label="is rich?")
    (folder / "people.json").write_text(infer.to_text(draft.contract))
    pipeline = {
        "name": "people",
        "contract": str(folder / "people.json"),
        "sources": {"learn": {"kind": "parquet", "path": "people.parquet"}},
        "split": {"validation_share": 0.2, "test_share": 0.1},
        "task": {"kind": "binary", "target": "is_rich"},
        "model": {"kind": "trees", "num_rounds": 8},
        "features": {
            "inputs": [
                {"kind": "number", "columns": ["Age_years", "pay_hour"], "indicator": True},
                {"kind": "one_hot", "columns": ["native_country"]},
            ]
        },
        "scoring": {"source": {"kind": "parquet", "path": "new.parquet"}, "model": "challenger"},
    }
    (folder / "people.yaml").write_text(yaml.safe_dump(pipeline))
    return loading.load([str(folder / "people.yaml")], [f"storage.root={folder}/home", f"sources.root={folder}"])


@pytest.mark.parametrize("kind", LABELS)
def test_table_of_pandas_is_prepared_whole(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    settings = settings_of(tmp_path / kind, spark, LABELS[kind])
    contract = check_prepare(settings)
    assert {column.source_name: column.name for column in contract.columns} == {
        "customer-id": "customer_id",
        "Age (years)": "Age_years",
        "pay/hour": "pay_hour",
        "native country": "native_country",
        "is rich?": "is_rich",
    }
    assert (contract.label, contract.unique_key) == ("is_rich", ("customer_id",))
    report = prepare(spark, settings)
    assert (report["rows_good"], report["rows_quarantined"]) == (NUM_ROWS, 0)
    rows = tables.read(spark, report["table"]).toPandas()
    assert rows["Age_years__is_missing"].sum() == len(range(0, NUM_ROWS, 7))
    assert rows["pay_hour__is_missing"].sum() == len(range(0, NUM_ROWS, 5))
    assert rows["label"].sum() == sum(people(LABELS[kind])["is rich?"] == LABELS[kind][1])
    assert {"native_country__Chile", "native_country__Peru"} <= set(rows.columns)


@pytest.mark.slow
def test_scores_come_back_in_the_newcomers_own_words(spark: SparkSession, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "people", spark, LABELS["integers"])
    prepare(spark, settings)
    trained = train(spark, settings)
    new = people(LABELS["integers"], rows=40, seed=1)
    new.loc[3, "native country"] = "Ghana"  # that nobody has seen
    new.loc[4, "pay/hour"] = 500.0
    new.to_parquet(tmp_path / "people" / "new.parquet")
    report = score(spark, settings)
    assert (report["rows_scored"], report["rows_quarantined"]) == (40, 0)
    scores = tables.read(spark, report["output"]).orderBy("row_number").toPandas()
    assert scores["customer_id"].tolist() == new["customer-id"].tolist()
    assert scores["row_number"].tolist() == list(range(40))
    assert scores["is_rich"].tolist() == new["is rich?"].tolist()
    assert set(scores["prediction"]) == {0, 1}
    assert (scores["prediction"] == scores["is_rich"]).mean() > 0.8

    runs.connect(settings.tracking, settings.root)
    served = mlflow.pyfunc.load_model(f"models:/people/{trained['model_version']}").predict(
        new.drop(columns="is rich?")
    )
    assert served["probability"].tolist() == scores["probability"].tolist()

    # A version holds what it scores by: the contract is edited, the table is overwritten, and its encoder is another's.
    contract, changed = Path(settings.contract), json.loads(Path(settings.contract).read_text())
    for column in changed["columns"]:
        column |= {"max": 20} if column["name"] == "Age_years" else {}
        column |= {"allowed": ["Chile"]} if column["name"] == "native_country" else {}
    contract.write_text(json.dumps(changed | {"max_quarantined_share": 1.0}))
    people(LABELS["integers"], seed=2).to_parquet(tmp_path / "people" / "people.parquet")
    assert not prepare(spark, settings)["already_done"]
    contract.write_text("{")
    again = score(spark, loading.override(settings, {"scoring.keep": ["Age (years)"]}, source="test"))
    assert (again["rows_scored"], again["already_done"]) == (40, False)
    rescored = tables.read(spark, report["output"]).where(f"model_version = {trained['model_version']}").toPandas()
    kept = rescored.groupby("customer_id")["probability"]
    assert (kept.nunique() == 1).all()
    assert (kept.count() == 2).all()
    assert json.loads(served.to_json(orient="records"))[0]["prediction"] in (0, 1)
