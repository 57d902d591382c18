"""Columns of the user that are called like ours: neither takes the other's place, in raw rows, joined rows and features."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark import tables
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import beside, same_but_for_case
from mlspark.errors import ContractError
from mlspark.features import prepared
from mlspark.features.encode_spark import encode
from mlspark.features.fit import fit
from mlspark.features.settings import FeaturesSettings
from mlspark.settings import loading
from mlspark.sources import catalog
from mlspark.sources.csv import CsvSettings
from mlspark.stages.prepare import prepare
from mlspark.tasks import kinds as tasks

OURS = (
    "source",
    "split",
    "row_id",
    "fold",
    "label",
    "weight",
    "group",
    "prediction",
    "target",
    "is_padding",
    "outputs",
)
"""Names that stand somewhere in our tables or batches, or did."""


def write(folder: Path, columns: dict[str, str], lines: list[str], **settings: Any) -> Path:
    rules: list[dict[str, Any]] = [{"name": name, "type": kind} for name, kind in columns.items()]
    rules[-1]["allowed"] = ["0", "1"]
    (folder / "contract.json").write_text(json.dumps({"name": "named", "label": "y", "columns": rules}))
    (folder / "rows.csv").write_text("".join(f"{line}\n" for line in lines))
    pipeline = {
        "name": "named",
        "contract": str(folder / "contract.json"),
        "storage": {"root": str(folder / "home")},
        "sources": {"root": str(folder), "learn": {"kind": "csv", "path": "rows.csv"}},
        "task": {"kind": "binary", "target": "y", "classes": ["0", "1"]},
        "split": {"validation_share": 0.0},
        **settings,
    }
    (folder / "named.yaml").write_text(yaml.safe_dump(pipeline))
    return folder / "named.yaml"


def test_a_column_called_source_keeps_its_values(spark: SparkSession, tmp_path: Path) -> None:
    names = ("email", "ads", "shop")
    config = write(
        tmp_path,
        {"id": "int", "source": "string", "amount": "double", "y": "string"},
        [f"{row},{names[row % 3]},{row * 1.5},{(row + 1) % 2}" for row in range(60)],
        features={"inputs": [{"kind": "index", "columns": ["source"]}]},
    )
    report = prepare(spark, loading.load([str(config)]))
    [feature] = prepared.latest(report["table"]).encoder.features
    assert dict(zip(feature.values, feature.counts, strict=True)) == dict.fromkeys(sorted(names), 20)
    assert report["splits"]["train"]["rows"] == 60
    ids = tables.read(spark, report["table"]).groupBy("source").count().collect()
    assert sorted((row["source"], row["count"]) for row in ids) == [(2, 20), (3, 20), (4, 20)]


def test_columns_called_like_any_of_ours_are_features_with_their_values(spark: SparkSession, tmp_path: Path) -> None:
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("".join(f"{row},2024-01-01 00:00:00,{row * 3}\n" for row in range(8)))
    rules = [{"name": name, "type": kind} for name, kind in (("id", "int"), ("at", "timestamp"), ("source", "int"))]
    (tmp_path / "clicks.json").write_text(json.dumps({"name": "clicks", "columns": rules}))
    join = {
        "name": "score_of",
        "source": {"kind": "csv", "path": "clicks.csv"},
        "contract": str(tmp_path / "clicks.json"),
        "keys": {"id": "id"},
        "label_time": "asked",
        "event_time": "at",
        "columns": ["source"],
    }
    plain = {"kind": "number", "columns": [*OURS, "score_of_source"], "scale": "none"}
    config = write(
        tmp_path,
        {"id": "int", "asked": "timestamp", **dict.fromkeys(OURS, "double"), "y": "string"},
        [
            ",".join([f"{row},2024-01-02 00:00:00", *(f"{row + place}.5" for place in range(len(OURS))), f"{row % 2}"])
            for row in range(8)
        ],
        features={"inputs": [plain, {"kind": "target", "columns": ["id"], "name": "of_id"}]},
        joins=[join],
        split={"validation_share": 0.3, "folds": 2, "key": ["split"]},
        task={"kind": "binary", "target": "y", "classes": ["0", "1"], "weight": "weight"},
    )
    with pytest.raises(Exception, match="weight: is the sample weight"):
        prepare(spark, loading.load([str(config)]))
    report = prepare(spark, loading.load([str(config)], ["task.weight=null"]))
    features = tables.read(spark, report["table"])
    assert features.columns == [
        "source", "raw_split", "raw_row_id", "raw_fold", "raw_label", "raw_weight", "group", "prediction", "target",
        "is_padding", "outputs", "score_of_source", "of_id", "label", "fold", "row_id", "split",
    ]  # fmt: skip
    rows = features.orderBy("source").collect()
    for row, found in enumerate(rows):
        expected = [row + place + 0.5 for place in range(len(OURS))]
        assert list(found)[: len(OURS)] == expected
        assert (found["score_of_source"], found["label"]) == (row * 3, row % 2)
    assert len({found["row_id"] for found in rows}) == 8
    assert {found["split"] for found in rows} <= {"train", "validation"}
    assert features.select(F.max("fold")).collect() == [(1,)]


def test_steps_of_two_features_never_meet(spark: SparkSession) -> None:
    """The hash of the cross of a and b had the name of that of a column a_x_b, whose values were then taken for it."""
    rows = spark.createDataFrame(
        [("p", "q", "r", "0"), ("p", "s", "r", "1"), ("t", "q", "u", "0")], "a string, b string, a_x_b string, y string"
    )
    entries = (
        {"kind": "index", "columns": ("a_x_b",)},
        {"kind": "index", "cross": ("a", "b"), "name": "both"},
        {"kind": "one_hot", "columns": ("a",), "name": "A"},
        {"kind": "index", "columns": ("a",)},
    )
    task = tasks.from_settings({"kind": "binary", "target": "y", "classes": ["0", "1"]})
    encoder = fit(rows, FeaturesSettings.model_validate({"inputs": entries}), task, pipeline="steps")
    found = encode(rows, encoder).select("a_x_b", "both", "A__p", "A__t", "a").collect()
    assert sorted(map(tuple, found)) == [(2, 2, 1.0, 0.0, 2), (2, 3, 1.0, 0.0, 2), (3, 4, 0.0, 1.0, 3)]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["_mlspark_raw"], "_mlspark_raw: names with _mlspark_ are those of mlspark's own columns; call the column"),
        (["_MLspark_x"], "_MLspark_x: names with _mlspark_ are those"),
        (["id", "ID"], "columns id and ID differ in case alone, which Spark does not tell apart; call one otherwise"),
    ],
)
def test_contract_refuses_names_by_name(names: list[str], message: str) -> None:
    columns = [{"name": name, "type": "int"} for name in names]
    with pytest.raises(ValueError, match=message):
        Contract.model_validate_json(json.dumps({"name": "named", "columns": columns}))


def test_header_with_names_that_differ_in_case_alone_gives_both(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,ID,y\n1,2,0\n")
    source = catalog.find(spark, CsvSettings(kind="csv", path="rows.csv", header=True), root=str(tmp_path))
    columns = [{"name": "id", "type": "int"}, {"name": "other", "header": "ID", "type": "int"}]
    contract = Contract.model_validate_json(json.dumps({"name": "named", "columns": columns}))
    assert catalog.read(spark, source, contract).select("id", "other").collect() == [("1", "2")]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_source_with_columns_called_like_our_own_is_read_as_it_is(
    spark: SparkSession, tmp_path: Path, kind: str
) -> None:
    """And like Spark's own `_metadata`; a column in another case is named."""
    rows = [("1", "m", "r", "f", "0"), ("2", "m", "r", "f", "1")]
    frame = spark.createDataFrame(rows, ["id", "_metadata", "_mlspark_raw", "_file", "y"])
    if kind == "csv":
        frame.toPandas().to_csv(tmp_path / "in.csv", index=False)
    else:
        frame.toPandas().to_parquet(tmp_path / "in.parquet")
    learn = {"kind": kind, "path": f"in.{kind}", "filter": "_file = 'f'"} | ({"header": True} if kind == "csv" else {})
    features = {"inputs": [{"kind": "number", "columns": ["id"], "scale": "none"}]}
    sources = {"root": str(tmp_path), "learn": learn}
    config = write(tmp_path, {"id": "int", "y": "string"}, [], features=features, sources=sources)
    report = prepare(spark, loading.load([str(config)]))
    assert report["sources"]["learn"]["schema_differences"]["extra"] == ["_metadata", "_mlspark_raw", "_file"]
    assert sorted(row["id"] for row in tables.read(spark, report["table"]).collect()) == [1.0, 2.0]
    write(tmp_path, {"Id": "int", "y": "string"}, [], features=features, sources=sources)
    with pytest.raises(ContractError, match=r"missing columns \(Id: there is id, and case counts\)"):
        prepare(spark, loading.load([str(config)], ["features.inputs=[{kind: number, columns: [Id]}]"]))


def test_names_beside_ours_depend_on_the_names_alone() -> None:
    assert beside(["a", "Split", "raw_split"], ("split",)) == {
        "a": "a",
        "Split": "raw_raw_Split",
        "raw_split": "raw_split",
    }
    assert same_but_for_case(["a", "b", "A", "B"]) == [("a", "A"), ("b", "B")]
