"""What MLflow serves says of a frame, as people have it, what `Predictor` says of the same rows."""

import urllib.error
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlspark.contracts.contract import RowRule, SchemaPolicy
from mlspark.contracts.data_frames import from_pandas
from mlspark.errors import ContractError, RegistryError
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.scoring.predictor import Predictor

from ..registry.conftest import new_run
from ..registry.example import BIG, ROW, package, rows
from .served import post, serving


def frame(**columns: Any) -> pd.DataFrame:
    """Two rows as a person has them in pandas, some columns given otherwise."""
    usual = {name: pd.Series([value, value]) for name, value in ROW.items()} | {"amount": pd.Series([12.34, 12.34])}
    return pd.DataFrame(usual | columns)


def outcome(predict: Callable[[], Any]) -> Any:
    """What is predicted, or that it is refused."""
    try:
        predictions = predict()
    except (ContractError, MlflowException):
        return "refused"
    return {name: list(predictions[name]) for name in ("probability", "prediction")}


BIGS = pd.Series([BIG, BIG - 1])
FRAMES = {
    # column: (values, the same as they are meant, None where they are refused)
    "smallint from int64": ("small", pd.Series([5, 7]), [5, 7]),
    "smallint from whole floats": ("small", pd.Series([5.0, 7.0]), [5, 7]),
    "smallint from a fraction": ("small", pd.Series([5.0, 7.5]), None),
    "smallint out of its range": ("small", pd.Series([5, 70000]), None),
    "smallint that may not be missing": ("small", pd.Series([5, None]), None),
    "smallint from text": ("small", pd.Series(["5", "7"]), None),
    "smallint that breaks a rule of the row": ("small", pd.Series([5, 139]), None),  # number is 39, the rule number + 100
    "int from int64": ("number", pd.Series([39, 40]), [39, 40]),
    "int from Int64 with a gap": ("number", pd.Series([39, pd.NA], dtype="Int64"), [39, None]),
    "int from floats with a gap": ("number", pd.Series([39, None]), [39, None]),
    "int from int8": ("number", pd.Series([39, 40], dtype="int8"), [39, 40]),
    "int from uint64": ("number", pd.Series([39, 40], dtype="uint64"), [39, 40]),
    "int from category": ("number", pd.Series([39, 40], dtype="category"), [39, 40]),
    "bigint beyond 2**53 from int64": ("big", BIGS, [BIG, BIG - 1]),
    "bigint beyond 2**53 from Int64 with a gap": ("big", pd.Series([BIG, pd.NA], dtype="Int64"), [BIG, None]),
    "bigint beyond 2**53 from floats": ("big", BIGS.astype("float64"), None),
    "float from float64": ("single", pd.Series([0.25, 0.1]), [0.25, 0.1]),
    "float from int64": ("single", pd.Series([2, 3]), [2.0, 3.0]),
    "float that is not finite": ("single", pd.Series([0.25, np.inf]), None),
    "double from int64": ("real", pd.Series([2, 3]), [2.0, 3.0]),
    "double with a gap": ("real", pd.Series([2.5, None]), [2.5, None]),
    "double above its bound": ("real", pd.Series([2.5, 1000.5]), None),
    "text": ("text", pd.Series(["red", None]), ["red", None]),
    "text from category": ("text", pd.Series(["red", "blue"], dtype="category"), ["red", "blue"]),
    "text from StringDtype": ("text", pd.Series(["red", pd.NA], dtype="string"), ["red", None]),
    "text that is not allowed": ("text", pd.Series(["red", "pink"]), None),
    "text from numbers": ("text", pd.Series([1, 2]), None),
    "boolean from bool": ("flag", pd.Series([True, False]), [True, False]),
    "boolean from boolean with a gap": ("flag", pd.Series([True, pd.NA], dtype="boolean"), [True, None]),
    "boolean from objects with a gap": ("flag", pd.Series([True, None]), [True, None]),
    "boolean from the text true": ("flag", pd.Series(["true", "false"]), None),
    "date from objects": ("day", pd.Series([date(2024, 2, 29), None]), [date(2024, 2, 29), None]),
    "date before its bound": ("day", pd.Series([date(2024, 2, 29), date(1999, 12, 31)]), None),
    "date from text": ("day", pd.Series(["2024-02-29", None]), [date(2024, 2, 29), None]),
    "date from datetime64": ("day", pd.to_datetime(pd.Series(["2024-02-29", None])), [date(2024, 2, 29), None]),
    "timestamp from datetime64": (
        "moment", pd.to_datetime(pd.Series(["2024-02-29 18:00", None])), [datetime(2024, 2, 29, 18), None],
    ),
    "timestamp with a zone": (
        "moment", pd.to_datetime(pd.Series(["2024-02-29 18:00+02:00", "2024-02-29 19:00+02:00"])),
        [datetime(2024, 2, 29, 16), datetime(2024, 2, 29, 17)],
    ),
    "timestamp from text": ("moment", pd.Series(["2024-02-29 18:00:00", None]), [datetime(2024, 2, 29, 18), None]),
    "decimal from objects": ("amount", pd.Series([Decimal("12.34"), None]), [Decimal("12.34"), None]),
    "decimal from text": ("amount", pd.Series(["12.34", None]), [Decimal("12.34"), None]),
    "array from lists": ("vector", pd.Series([[0.5, 1.0], [2, 3]]), [[0.5, 1.0], [2.0, 3.0]]),
    "array from numpy": ("vector", pd.Series([np.array([0.5, 1.0]), np.array([2.0, 3.0])]), [[0.5, 1.0], [2.0, 3.0]]),
    "array with a gap": ("vector", pd.Series([[0.5, 1.0], None]), [[0.5, 1.0], None]),
    "array of another length": ("vector", pd.Series([[0.5, 1.0], [2.0]]), None),
    "joined column": ("events_mean", pd.Series([1.5, None]), [1.5, None]),
}  # fmt: skip


@pytest.fixture(scope="module")
def served(example_uri: str) -> Any:
    return mlflow.pyfunc.load_model(example_uri)


@pytest.mark.parametrize("name", FRAMES)
def test_frame_has_the_outcome_of_the_same_rows_in_the_contract_s_types(served: Any, name: str) -> None:
    column, values, meant = FRAMES[name]
    given, predictor = frame(**{column: values}), Predictor(package())
    expected = "refused" if meant is None else outcome(lambda: predictor.predict(rows(*({column: v} for v in meant))))
    assert outcome(lambda: served.predict(given)) == expected
    assert outcome(lambda: predictor.predict(from_pandas(given, predictor.contract))) == expected


@pytest.mark.parametrize("column", ["small", "number", "events_mean"])
def test_column_left_out_is_refused_as_the_contract_says(served: Any, column: str) -> None:
    with pytest.raises((ContractError, MlflowException), match=column):
        served.predict(frame().drop(columns=column))


def test_column_may_be_left_out_where_the_contract_says_so(client: MlflowClient) -> None:
    made = changed_contract(schema_policy=SchemaPolicy(missing="ignore"))
    version = versions.register(client, made, run_id=new_run(client), name="lenient", alias="")
    model, predictor = mlflow.pyfunc.load_model(f"models:/lenient/{version}"), Predictor(made)
    expected = predictor.predict(rows({"number": None, "events_mean": None}))["probability"].tolist()
    assert model.predict(frame().drop(columns=["number", "events_mean"]))["probability"].tolist() == expected * 2
    with pytest.raises(ContractError, match=r"small.null"):
        model.predict(frame().drop(columns=["small"]))


def test_other_columns_are_refused_where_the_contract_says_so(client: MlflowClient) -> None:
    made = changed_contract(schema_policy=SchemaPolicy(extra="refuse"))
    version = versions.register(client, made, run_id=new_run(client), name="strict", alias="")
    model = mlflow.pyfunc.load_model(f"models:/strict/{version}")
    assert len(model.predict(frame(label=["yes", "no"]))) == 2
    with pytest.raises(ContractError, match=r"extra columns: more"):
        model.predict(frame(more=[1, 2]))


def test_rules_that_are_not_served_are_named(client: MlflowClient, caplog: pytest.LogCaptureFixture) -> None:
    rule = RowRule(name="by_spark", expression="hash(small) <> 0", batch_only=True)
    made = changed_contract(rules=(*package().contract.rules, rule))
    version = versions.register(client, made, run_id=new_run(client), name="ruled", alias="")
    assert client.get_model_version("ruled", str(version)).tags["mlspark.rules_not_served"] == "by_spark"
    model = mlflow.pyfunc.load_model(f"models:/ruled/{version}")
    assert model.metadata.metadata["mlspark.rules_not_served"] == ["by_spark"]
    assert "rules by_spark are checked by Spark alone" in caplog.text


def changed_contract(**changes: Any) -> Package:
    """The example with another contract."""
    made = package()
    return Package.pack(
        model={name: made.files[name] for name in ("model.json", "weights.safetensors")},
        encoder=made.encoder,
        contract=made.contract.model_copy(update=changes),
        task=made.task,
        provenance=made.provenance,
    )


def test_other_columns_and_the_label_change_nothing(served: Any) -> None:
    expected = served.predict(frame())
    assert served.predict(frame(label=["yes", "no"], more=[1, 2])).equals(expected)
    assert list(expected.columns) == ["probability", "prediction"]


def test_records_of_python_values_are_scored(served: Any) -> None:
    records = [{**ROW, "moment": "2024-02-29 18:30:01", "day": "2024-02-29", "amount": "12.34"}] * 2
    assert served.predict(records).equals(served.predict(frame()))


def test_spark_udf_gives_the_same_values(served: Any, spark: SparkSession, example_uri: str) -> None:
    given = rows({}, {"small": 7, "big": BIG - 1}, {"number": None, "flag": None, "day": None})
    udf = mlflow.pyfunc.spark_udf(spark, example_uri, env_manager="local")
    frame_on_spark = spark.createDataFrame(given.to_pylist(), schema=_ddl())
    scored = frame_on_spark.select("small", udf(F.struct(*frame_on_spark.columns)).alias("scored")).select("scored.*")
    expected = Predictor(package()).predict(given)
    assert [tuple(row) for row in scored.collect()] == list(
        zip(expected["probability"].tolist(), expected["prediction"].tolist(), strict=True)
    )


def _ddl() -> str:
    types = {column.name: column.type for column in package().input_contract.columns}
    return ", ".join(f"{name} {types[name]}" for name in rows().column_names)


@pytest.fixture(scope="module")
def server(example_uri: str) -> Iterator[str]:
    with serving(example_uri) as url:
        yield url


@pytest.mark.slow
def test_rest_gives_the_same_values_and_refuses_with_the_contract_s_words(server: str) -> None:
    record = {**ROW, "moment": "2024-02-29 18:30:01", "day": "2024-02-29", "amount": "12.34"}
    records = [record, {**record, "big": BIG - 1}, {**record, "flag": None, "small": 7.0}]
    expected = Predictor(package()).predict(rows({}, {"big": BIG - 1}, {"flag": None, "small": 7}))
    named = [
        {"probability": p, "prediction": c} for p, c in zip(*map(np.ndarray.tolist, expected.values()), strict=True)
    ]
    assert post(server, {"dataframe_records": records}) == named
    split = {"columns": list(record), "data": [list(row.values()) for row in records]}
    assert post(server, {"dataframe_split": split}) == named
    for change, message in (({"text": "pink"}, "text.allowed"), ({"small": 7.5}, "small.type")):
        with pytest.raises(urllib.error.HTTPError) as error:
            post(server, {"dataframe_records": [{**record, **change}]})
        assert error.value.code == 400
        assert message in error.value.read().decode()


def test_content_that_was_not_registered_is_refused(client: MlflowClient) -> None:
    """A whole other package in the place of the version's: each file is as its own manifest has it."""
    version = versions.register(client, package(), run_id=new_run(client), name="replaced", alias="")
    folder = Path(client.get_model_version_download_uri("replaced", str(version)).removeprefix("file://"))
    package(threshold=0.1).save(folder / "data" / "package")
    with pytest.raises(RegistryError, match=r"manifest.json: changed since the version was registered"):
        mlflow.pyfunc.load_model(f"models:/replaced/{version}")


def test_column_that_is_there_twice_is_refused() -> None:
    twice = pd.concat([frame(), frame()[["number"]]], axis=1)
    with pytest.raises(ContractError, match="columns given twice: number"):
        from_pandas(twice, package().input_contract)
