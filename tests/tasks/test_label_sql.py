import math
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from mlspark.tasks.kinds import from_settings
from mlspark.tasks.task import Seen

ODD = ["it's", 'a "quote"', "back\\slash", "größer", "日本", "tab\there", "new\nline", "50%", "$x{y}", ""]
CASES: list[tuple[str, list[Any], list[Any]]] = [
    # type, classes, values that are none
    ("smallint", [-3, 7], [None, 8]),
    ("int", [0, 1], [None, 2]),
    ("bigint", [-(2**63), 2**63 - 1], [None, 0]),
    ("float", [0.1, 2.5], [None, 0.2, float("nan"), float("inf")]),
    ("double", [0.1, 1e-300], [None, 0.2, float("nan"), float("-inf")]),
    ("double", [0, 1], [None, 0.5]),
    ("boolean", [False, True], [None]),
    ("decimal(6,2)", [0.1, 9999.99], [None, Decimal("0.11")]),
    ("decimal(10,0)", [1, 2], [None, Decimal("3")]),
    ("string", ODD, [None, "its", "GRÖSSER", " "]),
]


def table(spark: SparkSession, values: list[Any], column_type: str) -> DataFrame:
    of_type = [
        Decimal(str(value)) if column_type.startswith("decimal") and value is not None else value for value in values
    ]
    of_type = [float(value) if column_type == "double" and value is not None else value for value in of_type]
    rows = list(enumerate(of_type))
    return spark.createDataFrame(rows, f"place int, target {column_type}").repartition(2)


def column(rows: DataFrame, sql: str) -> tuple[str, list[Any]]:
    """Type and values of an expression, in the order of the rows."""
    selected = rows.selectExpr("place", f"{sql} AS wanted")
    return dict(selected.dtypes)["wanted"], [row["wanted"] for row in selected.orderBy("place").collect()]


@pytest.mark.parametrize(("column_type", "classes", "others"), CASES)
def test_labels_of_every_type_on_spark(
    spark: SparkSession, column_type: str, classes: list[Any], others: list[Any]
) -> None:
    rows = table(spark, [*classes, *others], column_type)
    task = from_settings({"kind": "multiclass", "target": "target", "classes": classes, "probabilities": "array"})
    expected = [*range(len(classes)), *[None] * len(others)]
    assert column(rows, task.label_sql(column_type)) == ("int", expected)

    two = from_settings({"kind": "binary", "target": "target", "classes": classes[:2], "event": classes[0]})
    assert column(rows, two.label_sql(column_type)) == ("float", [1.0, 0.0, *[None] * (len(classes) + len(others) - 2)])
    _, is_event = column(rows, f"coalesce({two.event_sql(column_type)}, false)")
    assert is_event == [True, *[False] * (len(classes) + len(others) - 1)]

    unknown = from_settings({"kind": "multiclass", "target": "target", "probabilities": "array"})
    aggregates = (f"{sql} AS {name}" for name, sql in unknown.seen_sql(column_type).items())
    resolved = unknown.resolved(Seen(**rows.selectExpr(*aggregates).first().asDict()))
    values = [float(value) if isinstance(value, Decimal) else value for value in classes + others]
    there = sorted({value for value in values if is_value(value)})
    _, labels = column(rows, resolved.label_sql(column_type))
    assert labels == [there.index(value) if is_value(value) else None for value in values]


def test_seen_classes_are_floats_as_they_are_written(spark: SparkSession) -> None:
    task = from_settings({"kind": "binary", "target": "target", "loss": {"kind": "focal", "class_weights": {0.1: 2.0}}})
    seen = spark.sql("SELECT explode(array(0.1F, 0.2F)) AS target").selectExpr(
        f"{task.seen_sql('float')['values']} AS v"
    )
    resolved = task.resolved(Seen(values=seen.first().v))
    assert resolved.model_dump()["classes"] == (0.1, 0.2)


def is_value(value: Any) -> bool:
    return value is not None and (not isinstance(value, float) or math.isfinite(value))


def test_other_spellings_have_the_label_of_their_class(spark: SparkSession) -> None:
    rows = table(spark, ["<=50K", ">50K.", ">50K", "it's >50K", None], "string")
    settings = {"kind": "binary", "target": "target", "classes": ["<=50K", ">50K"]}
    task = from_settings({**settings, "aliases": {">50K.": ">50K", "it's >50K": ">50K"}})
    assert column(rows, task.label_sql("string")) == ("float", [0.0, 1.0, 1.0, 1.0, None])
    assert column(rows, task.event_sql("string") or "") == ("boolean", [False, True, True, True, None])
    numbers = from_settings({**settings, "classes": [0, 1], "aliases": {9: 1}})
    assert column(table(spark, [9, 1, 0, 8], "int"), numbers.label_sql("int"))[1] == [1.0, 1.0, 0.0, None]


def test_more_classes_than_a_case_of_branches_would_hold(spark: SparkSession) -> None:
    task = from_settings({"kind": "multiclass", "target": "target", "classes": [f"class {i}" for i in range(2_000)]})
    rows = table(spark, ["class 1999", "class 0", "class 2000"], "string")
    assert column(rows, task.label_sql("string"))[1] == [1999, 0, None]


def test_numbers_to_predict_on_spark(spark: SparkSession) -> None:
    values = [3.5, -0.5, -1.0, None, float("nan"), float("inf"), float("-inf")]
    plain = from_settings({"kind": "regression", "target": "target"})
    rows = table(spark, values, "double")
    assert column(rows, plain.label_sql("double")) == ("double", [3.5, -0.5, -1.0, *[None] * 4])
    log = from_settings({"kind": "regression", "target": "target", "transform": "log1p"})
    assert column(rows, log.label_sql("double"))[1] == [3.5, -0.5, *[None] * 5]
    for column_type in ("smallint", "int", "bigint", "decimal(6,2)"):
        counts = table(spark, [3, -1, None], column_type)
        assert column(counts, plain.label_sql(column_type)) == ("double", [3.0, -1.0, None])
        assert column(counts, log.label_sql(column_type))[1] == [3.0, None, None]
    aggregates = (f"{sql} AS {name}" for name, sql in plain.seen_sql("double").items())
    resolved = plain.resolved(Seen(**rows.selectExpr(*aggregates).first().asDict()))
    # 3.5, -0.5, -1: mean 2 / 3, variance (12.25 + 0.25 + 1) / 3 - 4 / 9.
    assert resolved.model_dump()["center"] == 0.6666667
    assert resolved.model_dump()["scale"] == float(f"{(13.5 / 3 - 4 / 9) ** 0.5:.6e}")


def test_weights_that_are_none_are_null(spark: SparkSession) -> None:
    task = from_settings({"kind": "regression", "target": "price", "weight": "target"})
    rows = table(spark, [0.0, 2.5, -1.0, None, float("nan"), float("inf")], "double")
    assert column(rows, task.weight_sql("double")) == ("double", [0.0, 2.5, None, None, None, None])
