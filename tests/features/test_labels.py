"""The target on Spark: classes as the training rows have them, rows without a label refused, label and weight columns."""

import pytest
from pyspark.sql import DataFrame, SparkSession

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.errors import FeatureError
from mlspark.features.labels import event_conditions, label_columns, refuse_rows_without_label, resolve
from mlspark.tasks.kinds import from_settings

CONTRACT = Contract(
    name="people",
    label="size",
    columns=(
        ColumnRule(name="size", type="string"),
        ColumnRule(name="wage", type="double", min=0.0, nullable=False),
    ),
)


@pytest.fixture(scope="module")
def people(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([("s", 1.0), ("l", 2.5), ("s", 0.0), ("m", 4.0)], "size string, wage double")


def test_classes_are_those_of_the_training_rows_in_order(people: DataFrame) -> None:
    size = CONTRACT.column("size")
    task = from_settings({"kind": "multiclass", "target": "size"})
    resolved = resolve(people, task, size)
    assert resolved.model_dump()["classes"] == ("l", "m", "s")
    assert resolve(people.limit(0), resolved, size) is resolved
    with pytest.raises(FeatureError, match=r"no training rows to fit on; check .* split: rows that are the same"):
        resolve(people.limit(0), task, size)
    counts = people.selectExpr(
        *(f"count_if({sql}) AS c{at}" for at, sql in enumerate(event_conditions(resolved, "string")))
    )
    assert counts.collect() == [(1, 1, 2)]


def test_rows_without_a_label_are_refused_with_their_values(people: DataFrame) -> None:
    task = from_settings({"kind": "binary", "target": "size", "classes": ["m", "s"]})
    with pytest.raises(FeatureError, match=r"task\.target size: no label can be made of 'l' \(1 rows\)"):
        refuse_rows_without_label(people, task, CONTRACT)
    refuse_rows_without_label(people.where("size <> 'l'"), task, CONTRACT)


def test_label_and_weight_are_columns_of_the_task(people: DataFrame) -> None:
    task = from_settings({"kind": "binary", "target": "size", "classes": ["m", "s"], "weight": "wage"})
    rows = people.select(*label_columns(task, CONTRACT))
    assert rows.dtypes == [("label", "float"), ("weight", "float")]
    assert rows.collect() == [(1.0, 1.0), (None, 2.5), (1.0, 0.0), (0.0, 4.0)]
    sizes = from_settings({"kind": "multiclass", "target": "size", "classes": ["s", "m", "l"]})
    assert people.select(*label_columns(sizes, CONTRACT)).dtypes == [("label", "int")]
    wages = from_settings({"kind": "regression", "target": "wage"})
    assert people.select(*label_columns(wages, CONTRACT)).dtypes == [("label", "double")]
