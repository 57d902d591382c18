"""What a contract's file may say: rules, patterns, bounds and types that are understood, and how others are refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlspark.contracts import check_arrow, contract, patterns, schema_differences
from mlspark.contracts.conditions import parse_condition
from mlspark.contracts.contract import Contract
from mlspark.errors import ContractError

TYPES = {
    "age": "int", "id": "bigint", "price": "decimal(6,2)", "wide": "decimal(38,30)", "height": "double", "sex": "string",
    "day": "date", "at": "timestamp", "sure": "boolean", "class": "string", "marks": "array<float>",
}  # fmt: skip
ROWS = pa.table(
    {
        "age": pa.array([17, 18, None], pa.int32()),
        "id": pa.array([2**53, 2**53 + 1, None]),
        "sex": ["it's", "B", None],
        "class": ["x", "y", None],
        "height": [0.0, float("nan"), None],
        "sure": [True, False, None],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age >= 18", [False, True, None]),
        ("18 <= age", [False, True, None]),
        ("age >= 17.5 AND age <> 20", [False, True, None]),
        ("0 <= age <= 17", [True, False, None]),
        ("NOT age = 17", [False, True, None]),
        ("id = 9007199254740993", [False, True, None]),
        ("sex = 'it''s' or sex = \"B\"", [True, True, None]),
        ("sex in ('B', 'C')", [False, True, None]),
        ("age not in (17)", [False, True, None]),
        ("age IS NULL", [False, False, True]),
        ("age is not missing", [True, True, False]),
        ("age is missing or age > 17", [False, True, True]),
        ("`class` = 'x'", [True, False, None]),
        ("1 / height > 0", [None, False, None]),
        ("100 / height is missing", [True, False, True]),
        ("sure", [True, False, None]),
        ("sure = false", [False, True, None]),
        ("length(sex) + age < 20", [False, True, None]),
        ("age < 99999999999", [True, True, None]),
    ],
)
def test_rules_are_read_in_the_spellings_of_sql_and_python(text: str, expected: list[bool | None]) -> None:
    types = {name: TYPES[name] for name in ROWS.column_names}
    condition = parse_condition(text, types)
    # 1 / NaN is NaN, which is greater than any number.
    expected = [None, True, None] if text == "1 / height > 0" else expected
    assert condition.evaluate_condition(ROWS).to_pylist() == expected


def test_a_function_is_no_column_of_its_name() -> None:
    assert parse_condition("length(sex) > 0", {"length": "int", "sex": "string"}).columns == ("sex",)
    assert parse_condition("length > 0", {"length": "int", "sex": "string"}).columns == ("length",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agee >= 18", "agee is not a column; columns are age, id"),
        ("age >=", "cannot be read at its end"),
        ("sure and", "cannot be read at its end"),
        ("age > 5 )", "cannot be read at )"),
        ("sex in ('a' 'b')", "'b': a comma or a sign is missing before it"),
        ("sure and (age > 1) is missing", "'age > 1' cannot be used"),
        ("sex like 'a%'", "cannot be read at like"),
        ("sex = 1", "sex = 1: string and number cannot be compared so"),
        ("sex = null", "null: nothing is equal to it, write `is missing`"),
        ("sex", "sex (string) is no condition"),
        ("upper(sex) = 'A'", "'upper(sex)' cannot be used; known are columns"),
        ("price * 2 > 1", "arithmetic is in doubles, and price (decimal(6,2)) is exact"),
        ("wide = id", "decimal(38,30) and bigint have no type that holds both exactly"),
        ("day > 'yesterday'", "'yesterday' is not a date like 1990-01-31"),
        ("at > '2020-01-01 10:00:00.1234567'", "is not a time like"),
        (r"sex = 'a\b'", "a backslash in a text is not known"),
        ("age > 5 -- and more", "'-' cannot be used"),
        ("age > 5 # and more", "'#' cannot be used"),
        ("1 < 2", "no column in it"),
        ("age in (id)", "after `in` come numbers or quoted texts"),
        ("marks = 1", "array<float> and number cannot be compared so"),
        ("sure < true", "boolean and boolean cannot be compared so"),
        ("age > 1e999", "1e999 is beyond every double"),
    ],
)
def test_rule_that_is_not_understood_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    columns = [{"name": name, "type": kind} for name, kind in TYPES.items()]
    file = tmp_path / "people.json"
    rule = {"name": "adults", "expression": text}
    file.write_text(json.dumps({"name": "people", "columns": columns, "rules": [rule]}))
    with pytest.raises(ContractError, match=r"people\.json: rule adults: ") as refused:
        contract.load(str(file))
    assert message in str(refused.value)
    assert 'or mark the rule "batch_only": true' in str(refused.value)
    file.write_text(json.dumps({"name": "people", "columns": columns, "rules": [rule | {"batch_only": True}]}))
    assert contract.load(str(file)).unserved_rules == ("adults",)


@pytest.mark.parametrize("pattern", ["[A-Z]{2}", "^a.b$", r"\d+(-\w+)*", r"[\s,]+", "(?:a|b)??", r"\x41\."])
def test_common_patterns_are_taken(pattern: str) -> None:
    patterns.check(pattern)


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("(?i)a", "(?i at character 1"), ("a(?=b)", "(?= at character 2"), ("(?<!a)b", "(?<! at character 1"),
        (r"(a)\1", r"\1 at character 4"), (r"\bword", r"\b at character 1"), ("a$b", "$ at character 2"),
        (r"\u00e9", r"\u at character 1"), ("[[a]", "[ in a class"), ("[a&&b]", "&&"),
        ("a{2000}", "at most 1000"), ("(?P<n>a)", "(?P< at character 1"),
        (r"[\S]", r"\S in a class"), ("a{x}", r"write \{"), ("a*+", "*+ at character 2"),
        ("(a", "missing ), unterminated subpattern"), (r"\p{L}", "bad escape"), ("[]a]", "write"),
    ],
)  # fmt: skip
def test_pattern_that_engines_read_differently_is_refused_by_part(pattern: str, part: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the message is compared below)
        patterns.check(pattern)
    assert part in str(refused.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "integer"}, "'integer' is not a type of a column, did you mean int?"),
        ({"type": "long"}, "did you mean bigint? Types are boolean, smallint, int, bigint"),
        ({"type": "Decimal(6, 2)"}, "did you mean decimal(6,2)?"),
        ({"type": "decimal(40,2)"}, "a decimal has 1 to 38 digits"),
        ({"type": "map<string,int>"}, "'map<string,int>' is not a type of a column"),
        ({"type": "int", "max": -3e9}, "x: max: max -3000000000.0 is beyond every int"),
        ({"type": "date", "min": "1990-13-01"}, "x: min: month must be in 1..12"),
        ({"type": "string", "pattern": "a(?=b)"}, "x: pattern 'a(?=b)': (?= at character 2"),
    ],
)
def test_column_is_refused_by_its_name(column: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"name": "c", "columns": [{"name": "x", **column}]}))
    with pytest.raises(ContractError) as refused:
        contract.load(str(tmp_path / "c.json"))
    assert message in str(refused.value)
    assert "Value error" not in str(refused.value)


LABELLED = Contract.model_validate_json(
    json.dumps(
        {
            "name": "people",
            "label": "rich",
            "unique_key": ["age"],
            "min_rows": 5,
            "columns": [
                {"name": "age", "type": "int"},
                {"name": "rich", "type": "string"},
                {"name": "is_rich", "type": "boolean"},
            ],
            "rules": [
                {"name": "adult", "expression": "age >= 18 or age = 3"},
                {"name": "said", "expression": "age < 90 or rich = 'no'"},
                {"name": "quoted", "expression": "not is_rich or age > 'rich' ", "batch_only": True},
                {"name": "free", "expression": "upper(RICH) <> 'X'", "batch_only": True},
            ],
            "schema_policy": {"extra": "refuse"},
        }
    )
)


def test_rows_to_be_scored_have_no_label_and_no_rule_that_uses_it() -> None:
    view = LABELLED.scoring_view()
    assert view.names == ("age", "is_rich")
    assert [rule.name for rule in view.rules] == ["adult", "quoted"]
    assert (view.label, view.label_place, view.unique_key, view.min_rows) == (None, None, (), 1)
    assert view.unserved_rules == ("quoted",)
    assert (LABELLED.label_place, LABELLED.names) == (1, ("age", "rich", "is_rich"))


def test_label_is_no_extra_column_of_rows_to_be_scored() -> None:
    view, rows = LABELLED.scoring_view(), pa.table({"age": [20], "rich": ["no"], "is_rich": [True]})
    with pytest.raises(ContractError, match="extra columns: rich; leave them out"):
        check_arrow.check(rows, view)
    assert check_arrow.check(rows, view, ignored=["rich"]).column_names == ["age", "is_rich"]
    types = {"age": "int", "rich": "string", "is_rich": "boolean", "more": "int"}
    found = schema_differences.differences(types, view, ignored=["rich"])
    assert found.to_json() == {"extra": ["more"]}
    with pytest.raises(ContractError, match=r"the source has extra columns \(more\); nothing was written"):
        schema_differences.check(found, view)


def test_every_broken_rule_of_every_row_is_named() -> None:
    rows = pa.table({"age": [3.5, 17.0, 20.0, None], "is_rich": [None, True, True, None]})
    conformed = check_arrow.conform(rows, LABELLED.scoring_view(), ignored=["rich"])
    assert [(broken.row, broken.reason, broken.value) for broken in conformed.broken] == [
        (0, "age.type", 3.5),
        (1, "adult", "age >= 18 or age = 3"),
    ]
    assert conformed.rows.column("age").to_pylist() == [None, 17, 20, None]
    assert conformed.good.to_pydict() == {"age": [20, None], "is_rich": [True, None]}
