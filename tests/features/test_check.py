"""Features are refused by pipeline, feature, column and type before any data is read; expressions are arithmetic alone."""

import json
import math
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.expressions import parse
from mlspark.errors import FeatureError
from mlspark.features.check import check, warnings
from mlspark.features.kinds.categories import safe_names
from mlspark.features.kinds.image import ImageFeature
from mlspark.features.settings import FeaturesSettings
from mlspark.features.tensors import Tensors, TensorSpec
from mlspark.pictures.filling import check_augment
from mlspark.settings import loading
from mlspark.tasks.kinds import from_settings

from ..conftest import ROOT

CONTRACT = Contract(
    name="people",
    label="rich",
    columns=(
        ColumnRule(name="age", type="int"),
        ColumnRule(name="education_num", header="education-num", type="int"),
        ColumnRule(name="class", type="int"),
        ColumnRule(name="wage", type="double"),
        ColumnRule(name="job", type="string"),
        ColumnRule(name="born", type="date"),
        ColumnRule(name="face", type="array<float>", min_length=3, max_length=3),
        ColumnRule(name="rich", type="string", allowed=("no", "yes")),
    ),
)
HEADER = "the column of header 'education-num' is called `education_num`"
RICH = {"kind": "binary", "target": "rich", "classes": ["no", "yes"]}
TASK = from_settings(RICH)
AGE = {"kind": "number", "columns": ["age"]}


def declared(*inputs: dict[str, Any]) -> FeaturesSettings:
    return FeaturesSettings.model_validate_json(json.dumps({"inputs": inputs}))


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            {"kind": "number", "columns": ["pay"]},
            "number pay: pay: not a column of contract people (age, education_num",
        ),
        ({"kind": "number", "columns": ["job"]}, "number job: job: type string, expected a number or boolean"),
        ({"kind": "index", "columns": ["wage"]}, "index wage: wage: type double, expected text, a whole number"),
        (
            {"kind": "as_is", "columns": ["wage"], "ids": 3},
            "as_is wage: wage: ids are whole numbers, the contract must give it the type int or bigint, it gives double",
        ),
        ({"kind": "as_is", "columns": ["wage"]}, 'as_is wage: wage: the contract must give it "nullable": false'),
        ({"kind": "index", "columns": ["rich"]}, "index rich: rich: is the label"),
        ({"kind": "one_hot", "cross": ["job", "wage"], "name": "x"}, "one_hot x: wage: type double, expected text"),
        ({"kind": "cyclic", "columns": ["job"], "parts": ["hour"]}, "cyclic job: job: type string, expected a date"),
        ({"kind": "ngrams", "columns": ["age"]}, "ngrams age: age: type int, expected text"),
        ({"kind": "vector", "columns": ["face"], "size": 2}, "the contract must give it min_length and max_length 2"),
        (
            {"kind": "number", "expression": "age + length(born)", "name": "x"},
            "number x: born: type date, expected text",
        ),
        ({"kind": "number", "expression": "age +", "name": "x"}, "number x: expression 'age +': cannot be read at its"),
        ({"kind": "number", "expression": "exp(age)", "name": "x"}, "'exp(age)' cannot be used; known are columns"),
        ({"kind": "number", "expression": "age ** 2", "name": "x"}, "'age ** 2': cannot be read at *"),
        ({"kind": "number", "expression": "__import__('os')", "name": "x"}, "cannot be used"),
        ({"kind": "number", "expression": "age.real", "name": "x"}, "expression 'age.real': '.' cannot be used"),
        (
            {"kind": "number", "columns": ["education-num"]},
            "number education-num: education-num: the column of header 'education-num' is called `education_num`",
        ),
        ({"kind": "index", "cross": ["job", "education-num"], "name": "x"}, HEADER),
        ({"kind": "hash", "columns": ["job", "education-num"], "name": "x", "buckets": 9}, HEADER),
        ({"kind": "number", "expression": "education-num * 2", "name": "x"}, f"number x: {HEADER}"),
        ({"kind": "number", "expression": "`education-num` * 2", "name": "x"}, f"number x: {HEADER}"),
        ({"kind": "buckets", "expression": "age - education-num", "edges": [1], "name": "x"}, f"buckets x: {HEADER}"),
        ({"kind": "index", "columns": ["Job"]}, "Job: not a column of contract people, did you mean job?"),
        ({"kind": "index", "columns": ["a b", "(x"]}, "a b: not a column of contract people (age, education_num"),
    ],
)
def test_features_that_the_contract_cannot_give_are_refused(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureError, match=r"^pipeline people: features: ") as refused:
        check(declared(feature), TASK, CONTRACT, "people")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"target": "pay"}, "task.target pay: not a column of contract people"),
        ({"target": "job"}, "task.target job: the contract's label is rich"),
        ({"weight": "pay"}, "task.weight pay: not a column of contract people"),
        ({"target": "education-num"}, f"task.target education-num: {HEADER}"),
        ({"weight": "education-num"}, f"task.weight education-num: {HEADER}"),
        ({"weight": "job"}, "weight job: type string, expected a number"),
        ({"classes": [0, 1]}, "task.classes 0, 1 are integers, but the contract's type is string"),
        ({"classes": ["no", "YES"]}, "task.target rich"),
    ],
)
def test_targets_that_the_contract_cannot_give_are_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(FeatureError) as refused:
        check(declared(AGE), from_settings({**RICH, **task}), CONTRACT, "people")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([AGE, AGE], "features of the same name: age; give one of them another `name`"),
        ([{"kind": "number"}], "give either columns or expression"),
        ([{"kind": "number", "expression": "age + 1"}], "expression needs a name"),
        ([{"kind": "number", "columns": ["age", "wage"], "name": "x"}], "name x: is for one column, these are 2"),
        ([{**AGE, "log1p": True, "power": 2}], "log1p and power: choose one"),
        ([{**AGE, "clip": [3, 2]}], "clip: 3.0 is not below 2.0"),
        ([{**AGE, "fill": 1}], "fill needs impute: constant"),
        ([{"kind": "buckets", "columns": ["age"]}], "give either edges or quantiles"),
        ([{"kind": "buckets", "columns": ["age"], "edges": [2, 1]}], "edges: must ascend"),
        ([{"kind": "index", "cross": ["job"], "name": "x"}], "cross: needs two or more columns"),
        (
            [{"kind": "hash", "columns": ["job", "age"], "name": "x", "buckets": 9, "into": "id"}],
            "needs one column, or",
        ),
        ([{"kind": "ngrams", "columns": ["job"], "lengths": [3, 2]}], "lengths: 3 is more than 2"),
        ([], "at least 1 item"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(inputs: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        declared(*inputs)
    assert message in str(refused.value)


def test_message_about_a_wide_contract_stays_short() -> None:
    wide = Contract(
        name="wide",
        label="rich",
        columns=(CONTRACT.column("rich"), *(ColumnRule(name=f"column_{n}", type="int") for n in range(41))),
    )
    with pytest.raises(FeatureError) as refused:
        check(declared({"kind": "number", "columns": ["education-num"]}), TASK, wide, "people")
    assert "education-num: not a column of contract wide (rich, column_0, " in str(refused.value)
    assert str(refused.value).endswith("column_18 and 22 more)")


def test_columns_called_like_words_of_python_are_columns() -> None:
    check(declared({"kind": "number", "columns": ["class"], "log1p": True}), TASK, CONTRACT, "people")
    rows = pa.table({"class": [1, 2], "is": [3, 4]})
    assert parse("class").evaluate(rows).tolist() == [1.0, 2.0]
    assert parse("`class` * 2 - `is`").evaluate(rows).tolist() == [-1.0, 0.0]
    assert parse("class + 1").sql() == "(CAST(`class` AS DOUBLE) + 1.0D)"


def test_good_features_pass() -> None:
    check(declared(AGE, {"kind": "vector", "columns": ["face"], "size": 3}), TASK, CONTRACT, "people")
    joined = declared({"kind": "number", "columns": ["count_clicks_7d"]})
    check(joined, TASK, CONTRACT, "people", joined={"count_clicks_7d": "bigint"})


def test_expressions_are_evaluated_as_written() -> None:
    rows = pa.table({"a": pa.array([1, None, 4]), "b": [2.0, 3.0, 0.0], "t": ["é", "", None]})
    values = parse("-(a + 1) * 2 / b - length(t)").evaluate(rows)
    assert values[0] == -3.0
    assert math.isnan(values[1])
    assert math.isnan(values[2])
    assert parse("3").evaluate(rows).tolist() == [3.0, 3.0, 3.0]
    assert parse("a / b").evaluate(rows)[2] == math.inf
    assert parse("a + length(t)").columns == {"a": "number", "t": "text"}


def test_indicator_of_a_column_that_is_never_missing_is_worth_a_warning() -> None:
    contract = CONTRACT.model_copy(
        update={
            "columns": tuple(
                rule.model_copy(update={"nullable": rule.name not in ("age", "face")}) for rule in CONTRACT.columns
            )
        }
    )
    inputs = declared(
        {"kind": "number", "columns": ["age", "wage"], "indicator": True},
        {"kind": "vector", "columns": ["face"], "size": 3, "indicator": True},
        {"kind": "number", "expression": "age + wage", "name": "both", "indicator": True},
        {"kind": "index", "columns": ["job"]},
    )
    why = "indicator: true, but the contract says that it is never missing: a column of zeros; leave it out"
    assert warnings(inputs, contract) == [f"number age: {why}", f"vector face: {why}"]
    check(inputs, TASK, contract, "people")
    assert warnings(inputs, CONTRACT) == []


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["Female", "Male"], ["Female", "Male"]),
        (["<=50K", ">50K"], ["__50K", "_50K"]),
        (["a b", "a-b", "a_b", "c"], ["a_b_0", "a_b_1", "a_b_2", "c"]),
        (["A", "a", "a_1"], ["A_0", "a_1_", "a_1"]),
        (["", "is_missing"], ["empty", "is_missing_1"]),
        (["größer", "年齢", "x²", "B\u001fSales"], ["größer", "年齢", "x2", "B_x_Sales"]),
        (["x" * 200, "x" * 201], ["x" * 60 + "_0", "x" * 60 + "_1"]),
    ],
)
def test_each_category_has_a_name_that_a_column_can_have(values: list[str], names: list[str]) -> None:
    assert safe_names(values) == names
    assert len({name.casefold() for name in names}) == len(names)
    assert all(f"sex__{name}".isidentifier() for name in names)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "pictures"])
def test_pipelines_of_pictures_fit_their_contracts(name: str) -> None:
    settings = loading.load([str(ROOT / "conf" / f"{name}.yaml")])
    contract = contracts.load(str(ROOT / settings.contract))
    check(settings.features, settings.task, contract, name)
    [spec] = [entry.spec for entry in settings.features.inputs if isinstance(entry, ImageFeature)]
    tensors = Tensors((TensorSpec("image", ("image",), "uint8", picture=spec),))
    settings.model.check_tensors(tensors)
    check_augment(tensors.pictures, settings.training.augment)


@pytest.mark.parametrize(("variant", "kind"), [("trees", "trees"), ("tuned", "tabular"), ("tabm", "tabm")])
def test_variants_of_the_census_fit_its_contract(variant: str, kind: str) -> None:
    settings = loading.load([str(ROOT / "conf" / name) for name in ("census.yaml", f"census.{variant}.yaml")])
    check(settings.features, settings.task, contracts.load(str(ROOT / settings.contract)), variant)
    assert settings.model.kind == kind
