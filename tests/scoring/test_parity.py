"""Batch, HTTP, MLflow and explanations on the same rows, good, broken and odd: the same prediction or refusal, row by row.

Refusals are compared by the rule and the words that say what is wrong with a value, not by the value: JSON writes some
otherwise.
"""

import json
import random
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from mlspark import tables
from mlspark.contracts.contract import ColumnRule
from mlspark.errors import ContractError
from mlspark.registry import versions
from mlspark.registry.package import Package
from mlspark.scoring.explain import Explainer
from mlspark.scoring.mlflow_model import ServedModel
from mlspark.scoring.predictor import Predictor, Verdicts
from mlspark.stages.score import score

from ..registry.conftest import new_run
from ..registry.example import BIG, package
from .rest_server import RECORD, serving
from .test_score import register, settings

NUM_ROWS = 10_000
NAN, INFINITE = float("nan"), float("inf")

POOLS: dict[str, tuple[pa.DataType, list[Any], list[Any]]] = {
    # column: type of the source, good values, values that are broken or odd
    "small": (pa.float64(), [0.0, 5.0, 99.0], [7.5, -1.0, 139.0, 32767.0, 70000.0, None, NAN, 1e300]),
    "number": (pa.int64(), [0, 39, None, 2**31 - 1], [-5, 2**31, -(2**63)]),
    "big": (pa.int64(), [BIG, BIG - 1, 0, None, 2**63 - 1, -(2**63)], [BIG + 1]),
    "single": (pa.float64(), [0.25, 0.1, None, NAN, -0.0, 1e-45], [1e300, INFINITE]),
    "real": (pa.float64(), [1.5, 999.9999999999999, None, NAN, -1e6, 5e-324], [1000.5, INFINITE, -INFINITE]),
    "text": (pa.string(), ["red", "green", "blue", None], ["pink", "", "Red", "red ", "r\u00e9d", "\u2028", "\x00"]),
    "flag": (pa.int32(), [0, 1, None], [2, -1]),
    "day": (pa.date32(), [date(2000, 1, 1), date(2024, 2, 29), None], [date(1999, 12, 31), date(1, 1, 1)]),
    "moment": (
        pa.timestamp("us", "UTC"),
        [datetime(2024, 2, 29, 18, 30, 1, 999999, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC), None],
        [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)],
    ),
    "amount": (
        pa.decimal128(20, 4),
        [Decimal("12.3400"), Decimal("-0.0100"), None],
        [Decimal("12.3456"), Decimal("123456789.0000"), Decimal("99999999.9900")],
    ),
    "vector": (
        pa.list_(pa.float64()), [[0.5, -1.0], [0.0, 1e-3], None],
        [[], [1.0], [1.0, None], [INFINITE, 1.0], [NAN, 2.0]],
    ),
}  # fmt: skip


def given_rows() -> pa.Table:
    """Rows of which about a tenth has a broken or odd value somewhere."""
    draw = random.Random(1)
    columns: dict[str, list[Any]] = {name: [] for name in POOLS}
    for _ in range(NUM_ROWS):
        odd = draw.choice(list(POOLS)) if draw.random() < 0.1 else ""
        for name, (_, good, others) in POOLS.items():
            columns[name].append(draw.choice(others if name == odd else good))
    arrays = {name: pa.array(values, POOLS[name][0]) for name, values in columns.items()}
    return pa.table({"id": pa.array(range(NUM_ROWS), pa.int64()), **arrays})


def version() -> Package:
    """The example, with a column that names the row."""
    made = package(joined=False)
    changed = made.contract.model_copy(
        update={"columns": (*made.contract.columns, ColumnRule(name="id", type="bigint")), "max_quarantined_share": 1.0}
    )
    model = {name: made.files[name] for name in ("model.json", "weights.safetensors")}
    return Package.pack(model=model, encoder=made.encoder, contract=changed, task=made.task, provenance=made.provenance)


def as_json(rows: pa.Table) -> bytes:
    """The body of a request: a missing number is null, an infinite one a number that no double holds."""
    plain = [{name: _json(value) for name, value in row.items()} for row in rows.to_pylist()]
    return json.dumps({"rows": plain}).replace("Infinity", "1e999").encode()


def _json(value: Any) -> Any:
    if isinstance(value, float) and np.isnan(value):
        return None
    if isinstance(value, list):
        # In a list NaN is no missing value: as JSON has none, another number that is not finite.
        return [INFINITE if element is not None and np.isnan(element) else element for element in value]
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    return str(value) if isinstance(value, date | Decimal) else value


Outcomes = dict[int, Any]
"""Row -> (probability, prediction), or the rules that it breaks, in words: "number.type: expected int"."""


def of_verdicts(verdicts: Verdicts) -> Outcomes:
    values = zip(verdicts.predictions["probability"].tolist(), verdicts.predictions["prediction"].tolist(), strict=True)
    outcomes: Outcomes = dict(zip(verdicts.good.tolist(), values, strict=True))
    for broken in verdicts.broken:
        outcomes.setdefault(broken.row, []).append(in_words(str(broken)))
    return outcomes


def in_words(message: str) -> str:
    """What a message says but for the row's number and value."""
    return message.removeprefix("contract example: ").partition(" row ")[0].removesuffix(":")


def of_answer(predictions: list[Any], broken: list[dict[str, Any]]) -> Outcomes:
    outcomes: Outcomes = {
        row: (each["probability"], each["prediction"]) for row, each in enumerate(predictions) if each is not None
    }
    for each in broken:
        outcomes.setdefault(each["row"], []).append(in_words(each["message"]))
    return outcomes


def of_batch(spark: SparkSession, report: dict[str, Any], quarantine: str) -> Outcomes:
    scores = tables.read(spark, report["output"]).select("id", "probability", "prediction").collect()
    outcomes: Outcomes = {row["id"]: (row["probability"], row["prediction"]) for row in scores}
    for row in tables.read(spark, quarantine).collect():
        reasons = [f"{each['column']}.{each['rule']}" if each["column"] else each["rule"] for each in row["reasons"]]
        outcomes[json.loads(row["raw"])["id"]] = reasons
    return outcomes


def of_mlflow(rows: pa.Table, good: list[int], name: str) -> Outcomes:
    """Good rows in one frame; the others one by one, since a frame is refused as a whole, for the first rule broken."""
    model = mlflow.pyfunc.load_model(f"models:/{name}/1")
    predicted = model.predict(rows.take(pa.array(good)).to_pandas(types_mapper={pa.int64(): _NULLABLE}.get))
    values = zip(predicted["probability"].tolist(), predicted["prediction"].tolist(), strict=True)
    outcomes: Outcomes = dict(zip(good, values, strict=True))
    for row in sorted({*range(rows.num_rows)} - {*good}):
        frame = rows.slice(row, 1).to_pandas(types_mapper={pa.int64(): _NULLABLE}.get)
        try:
            model.predict(frame)
        except ContractError as error:
            outcomes[row] = [in_words(str(error))]
    return outcomes


_NULLABLE = pd.Int64Dtype()


@pytest.fixture(scope="module")
def expected() -> Outcomes:
    """What `Predictor` says of each row."""
    outcomes = of_verdicts(Predictor(version()).judge(given_rows()))
    assert len(outcomes) == NUM_ROWS
    assert 9_000 < len(good_rows(outcomes)) < 9_500
    return outcomes


def good_rows(outcomes: Outcomes) -> list[int]:
    return sorted(row for row, outcome in outcomes.items() if isinstance(outcome, tuple))


@pytest.mark.slow
def test_http_and_mlflow_say_of_each_row_what_the_predictor_says(client: MlflowClient, expected: Outcomes) -> None:
    rows = given_rows()
    versions.register(client, version(), run_id=new_run(client), name="same", alias="champion")
    with serving("same", "--timeout", "300") as server:
        answer = server.ask("/predict/rows?on_error=report", as_json(rows)).json
        assert of_answer(answer["predictions"], answer["broken"]) == expected
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        arrow = server.ask(
            "/predict/rows?on_error=report", bytes(sink.getvalue()), content_type="application/vnd.apache.arrow.stream"
        )
    answered = pa.ipc.open_stream(arrow.body).read_all().to_pylist()
    broken = [{"row": row, **each} for row, entry in enumerate(answered) for each in entry["refused"] or ()]
    assert of_answer([None if entry["refused"] else entry for entry in answered], broken) == expected
    first = {row: outcome if isinstance(outcome, tuple) else outcome[:1] for row, outcome in expected.items()}
    for outcome in first.values():
        if outcome == ["vector.type: expected array<float>"]:  # a missing element, which a data frame has as NaN
            outcome[:] = ["vector.finite"]
    assert of_mlflow(rows, good_rows(expected), "same") == first


@pytest.mark.slow
def test_explanations_are_of_the_predictions_that_the_predictor_gives(expected: Outcomes) -> None:
    made, rows = version(), given_rows()
    tensors = made.encoder.tensors(made.task)
    reference = {spec.name: np.zeros((1, *spec.shape), spec.dtype) for spec in tensors.specs}
    verdicts, explained = Explainer(made, reference).explain(rows)
    assert of_verdicts(verdicts) == expected
    odds = np.log(verdicts.predictions["probability"]) - np.log1p(-verdicts.predictions["probability"])
    np.testing.assert_allclose(explained.output, odds, rtol=1e-6, atol=1e-6)


def test_numbers_of_more_than_64_bits_are_refused_in_the_same_words_in_json_and_in_a_data_frame() -> None:
    """pandas has them as Python's: MLflow's server, too, makes such a column of a number in a body of JSON."""
    predictor = Predictor(version())
    row = {name: value for name, value in RECORD.items() if name != "events_mean"} | {"id": 0}
    for column, value in [
        ("number", 10**30),
        ("small", 2**64),
        ("text", 10**30),
        ("amount", 10**80),
        ("big", -(2**63) - 1),
    ]:
        [broken] = predictor.judge([row | {column: value}]).broken
        with pytest.raises(ContractError) as refused:
            ServedModel(predictor).predict(pd.DataFrame.from_records([row | {column: value}]))
        assert str(refused.value) == f"contract example: {broken}"


@pytest.mark.slow
def test_batch_scoring_says_of_each_row_what_the_predictor_says(
    spark: SparkSession, tmp_path: Path, expected: Outcomes
) -> None:
    file = tmp_path / "rows.parquet"
    pq.write_table(given_rows(), file)
    into = settings(tmp_path, file, f"scoring.source={json.dumps({'kind': 'parquet', 'path': str(file)})}")
    register(into, version())
    report = score(spark, into)
    assert report["rows_read"] == NUM_ROWS
    # A quarantined row has its rules and values, but no words.
    rules = {
        row: outcome if isinstance(outcome, tuple) else [words.partition(":")[0] for words in outcome]
        for row, outcome in expected.items()
    }
    assert of_batch(spark, report, into.table("scores_quarantine")) == rules
