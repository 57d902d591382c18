"""Any header of a source has a name in a contract, and the contract keeps both."""

import json

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import ValidationError

from mlspark.contracts import check_arrow, naming, schema_differences
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.data_frames import from_pandas
from mlspark.errors import ContractError

HEADERS = {
    "age": "age",
    "education-num": "education_num",
    "native country": "native_country",
    "Größe (cm)": "Grosse_cm",
    "a.b": "a_b",
    "a b": "a_b_2",
    "Age": "Age_2",
    "возраст": "column_8",
    "年齢": "column_9",
    "1999": "column_1999",
    "": "column_11",
    "_id": "id",
    'say "hi"`': "say_hi",
    "class": "class",
}


def test_every_header_has_a_name_of_its_own_and_is_kept() -> None:
    columns, left_out = naming.usable(dict.fromkeys(HEADERS, "string"))
    assert {column.source_name: column.name for column in columns} == HEADERS
    assert [column.header for column in columns if column.name == column.source_name] == [None, None]
    assert left_out == []
    assert len({column.name.lower() for column in columns}) == len(HEADERS)


def test_names_that_a_contract_can_have_stay_whatever_comes_before_them() -> None:
    columns, _ = naming.usable(dict.fromkeys(["a-b", "a_b"], "string"))
    assert [(column.name, column.header) for column in columns] == [("a_b_2", "a-b"), ("a_b", None)]


def test_columns_of_types_that_no_contract_has_are_left_out() -> None:
    columns, left_out = naming.usable({"at-hand": "map<string,int>", "b": "tinyint", "c": "varchar(3)"})
    assert [(column.name, column.type) for column in columns] == [("b", "smallint"), ("c", "string")]
    assert left_out == ["at-hand (no type for map<string,int>)"]


CONTRACT = Contract(
    name="people",
    columns=(ColumnRule(name="education_num", header="education-num", type="int"), ColumnRule(name="age", type="int")),
)


@pytest.mark.parametrize("name", ["education-num", "education_num"])
def test_rows_in_memory_may_have_either_name(name: str) -> None:
    conformed = check_arrow.check(pa.table({name: [1, 2], "age": [3, 4]}), CONTRACT)
    assert conformed.to_pydict() == {"education_num": [1, 2], "age": [3, 4]}
    frame = pd.DataFrame({name: [1.0, None], "age": [3, 4]})
    conformed = check_arrow.check(from_pandas(frame, CONTRACT), CONTRACT)
    assert conformed.to_pydict() == {"education_num": [1, None], "age": [3, 4]}


def test_missing_and_doubled_columns_are_named() -> None:
    with pytest.raises(ContractError, match=r"contract people: columns missing: education-num$"):
        check_arrow.check(pa.table({"age": [3]}), CONTRACT)
    both = pa.table({"education-num": [1], "education_num": [2], "age": [3]})
    with pytest.raises(ContractError, match="contract people: columns given twice: education_num"):
        check_arrow.check(both, CONTRACT)


def test_differences_are_in_the_names_of_the_source() -> None:
    differing = schema_differences.differences({"age": "int", "Education-Num": "int"}, CONTRACT)
    assert differing.to_json() == {"extra": ["Education-Num"], "missing": ["education-num"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ([("a", "x y"), ("b", "x y")], "columns a and b have the same header 'x y'"),
        ([("a", "b"), ("b", "x")], "a has the header 'b', which is the name of another column"),
        ([("a", "b"), ("b", None)], "columns a and b have the same header 'b'"),
    ],
)
def test_headers_that_leave_open_which_column_is_meant_are_refused(
    columns: list[tuple[str, str | None]], message: str
) -> None:
    rules = [{"name": name, "header": header, "type": "int"} for name, header in columns]
    with pytest.raises(ValidationError, match=message):
        Contract.model_validate_json(json.dumps({"name": "c", "columns": rules}))
