"""What is drafted from the columns of a CSV file: types though values be dirty, task, features, keys, what is refused."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from mlspark.commands import source_arguments
from mlspark.contracts import check_spark
from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.contracts.own_columns import MALFORMED, RAW, SOURCE_FILE
from mlspark.errors import ConfigError, MlsparkError
from mlspark.intake import check as checking
from mlspark.projects import columns, csv_rows
from mlspark.projects.draft import Draft, TaskKind, draft

NUM_ROWS = 200


def people(folder: Path, *, label: str = "grade", kind: TaskKind | None = None) -> Draft:
    """200 rows, 6 of them dirty in known ways, and a column for each thing that a column may be."""
    lines = ["customer-id;age;pay;rooms;town;job;note;since;member;empty;same;grade;score;level"]
    for row in range(NUM_ROWS):
        fields = {
            "customer-id": f"c{row:03}",
            "age": str(20 + row % 50),
            "pay": f"{1.5 ** (row % 30):.2f}",  # a long tail
            "rooms": str(1 + row % 4),
            "town": "?" if row % 10 == 0 else ["Rome", "Oslo"][row % 2],
            "job": f"job {row % 60}",
            "note": f"said in call {row}",
            "since": f"2024-01-{1 + row % 28:02}",
            "member": ["true", "false"][row % 2],
            "empty": "",
            "same": "x",
            "grade": "abc"[row % 3],
            "score": f"{row * 1.25}",
            "level": str(row % 2),
        }
        lines.append(";".join(fields.values()))
    dirty = [
        ("age", "forty"), ("age", "99999999999999999999"), ("grade", ""), ("grade", "A"), ("customer-id", "c001")
    ]  # fmt: skip
    names = lines[0].split(";")
    for place, (column, text) in enumerate(dirty):  # in rows 2, 12, 22, ...; row 42 gets the id of row 1
        fields_of_row = lines[3 + 10 * place].split(";")
        fields_of_row[names.index(column)] = text
        lines[3 + 10 * place] = ";".join(fields_of_row)
    lines.insert(5, "c999;1;2")
    file = folder / "people.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return draft("people", csv_rows.read(file), label, kind)


def test_dirty_values_do_not_decide_the_type_and_are_counted(tmp_path: Path) -> None:
    drafted = people(tmp_path)
    contract = drafted.contract
    assert {column.name: column.type for column in contract.columns} == {
        "customer_id": "string", "age": "int", "pay": "double", "rooms": "int", "town": "string", "job": "string",
        "note": "string", "since": "date", "member": "boolean", "empty": "string", "same": "string", "grade": "string",
        "score": "double", "level": "int",
    }  # fmt: skip
    assert drafted.num_rows == NUM_ROWS + 1
    assert drafted.reasons == {
        "age.type": 2,
        "customer_id.unique": 2,
        "grade.allowed": 1,
        "grade.null": 1,
        "malformed": 1,
    }
    assert drafted.num_bad == 7
    assert drafted.missing == {"town": ("?",)}
    assert contract.unique_key == ("customer_id",)
    assert contract.column("customer_id").source_name == "customer-id"
    assert (contract.label, contract.column("grade").allowed) == ("grade", ("a", "b", "c"))
    assert not contract.column("grade").nullable
    assert contract.column("empty").max_missing_share == 1.0


def test_spark_refuses_the_very_rows_that_were_counted(spark: SparkSession, tmp_path: Path) -> None:
    drafted = people(tmp_path)
    source = source_arguments.settings("people.csv", "csv", ["header=true", "separator=;", "missing.town=?"])
    report = checking.check(spark, drafted.contract, {"learn": source}, root=str(tmp_path))
    assert report["problems"] == []
    assert {rule: found["rows"] for rule, found in report["rules"].items()} == dict(drafted.reasons)
    assert report["sources"]["learn"]["rows_read"] == drafted.num_rows
    assert report["sources"]["learn"]["rows_bad"] == drafted.num_bad


@pytest.mark.parametrize(
    ("clean", "also", "dirty"),
    [
        ("12", ["007", "-3", "+4"], ["1.5", "1e3", "99999999999", "x"]),
        ("1.5", ["007", "1e3", ".5", "7."], ["1e999", "1,5", "0x1", "Infinity"]),
        ("true", ["FALSE", "yes", "n", "1"], ["2", "maybe"]),
        ("2024-05-06", ["2024-5-6"], ["2024-02-30", "06.05.2024", "2024"]),
    ],
)
def test_values_that_a_cast_takes_are_clean(spark: SparkSession, clean: str, also: list[str], dirty: list[str]) -> None:
    """By Spark's own verdict on the contract's type."""
    column = columns.of("x", "x", [clean] * 400 + also + dirty)
    assert set(column.dirty) == set(dirty)
    contract = Contract(name="x", columns=(ColumnRule(name="x", type=column.type),))
    raw = spark.createDataFrame(
        [(text, None, text, "f") for text in [*also, *dirty]],
        f"x string, {MALFORMED} string, {RAW} string, {SOURCE_FILE} string",
    )
    conformed = check_spark.conform(raw, contract)
    bad = {row[RAW] for row in conformed.where(check_spark.is_bad()).collect()}
    assert bad == set(dirty)


def test_features_follow_the_types_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    drafted = people(tmp_path)
    features = {tuple(entry["columns"]): entry for entry in drafted.features}
    assert features == {
        ("age", "score"): {"kind": "number", "columns": ["age", "score"]},
        ("pay",): {"kind": "number", "columns": ["pay"], "scale": "quantile", "impute": "median"},
        ("rooms", "town", "member", "level"): {"kind": "index", "columns": ["rooms", "town", "member", "level"]},
        ("job",): {"kind": "hash", "columns": ["job"], "name": "job_hash", "into": "id", "buckets": 128},
        ("since",): {"kind": "cyclic", "columns": ["since"], "parts": ["month", "day_of_week"]},
    }
    left_out = {note.split(",")[0] for note in drafted.notes if note.startswith("left out")}
    assert left_out == {f"left out: {name}" for name in ("customer_id", "note", "empty", "same")}
    assert "age: int; taken for errors: 99999999999999999999, forty" in drafted.notes


@pytest.mark.parametrize(
    ("label", "kind", "task", "note"),
    [
        ("grade", None, {"kind": "multiclass", "classes": ["a", "b", "c"]}, "taken for errors: A"),
        ("level", None, {"kind": "binary", "classes": [0, 1]}, "predicted is the probability of 1"),
        ("member", None, {"kind": "binary", "classes": [False, True]}, "has the 2 values false, true"),
        ("rooms", None, {"kind": "multiclass", "classes": [1, 2, 3, 4]}, "has the 4 values 1, 2, 3, 4"),
        ("rooms", "regression", {"kind": "regression"}, "4 different numbers"),
        ("age", None, {"kind": "regression"}, "different numbers"),
        ("score", None, {"kind": "regression"}, "different numbers"),
    ],
)
def test_the_task_follows_from_the_label(
    tmp_path: Path, label: str, kind: TaskKind | None, task: dict[str, object], note: str
) -> None:
    drafted = people(tmp_path, label=label, kind=kind)
    assert drafted.task == task | {"target": label}
    assert note in drafted.notes[0]


@pytest.mark.parametrize(
    ("label", "kind", "message"),
    [
        ("grad", None, "--label grad: not a column, did you mean grade?"),
        ("same", None, "has the one value x; there is nothing to predict"),
        ("empty", None, "has no value; there is nothing to predict"),
        ("note", None, "more than the 50 classes of a draft"),
        ("since", None, "holds a date"),
        ("town", "regression", "is no number; leave --task out"),
        ("rooms", "binary", "has 4 values, --task binary needs 2"),
    ],
)
def test_a_label_that_cannot_be_predicted_is_refused(
    tmp_path: Path, label: str, kind: TaskKind | None, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        people(tmp_path, label=label, kind=kind)
    assert message in str(refused.value)


ROWS = "\n".join(f"{row},{row % 2}" for row in range(60))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty; give a CSV file"),
        (b"a,b\n1,2\n", "1 rows; at least 50 are needed"),
        (b"a,b\n" + b"1,2,3\n" * 60, "0 rows, 60 more have not 2 fields"),
        (b"1.5,2\n" + ROWS.encode(), "the first line has the number 1.5, so it is no header; name the columns"),
        (b"a,\n" + ROWS.encode(), "field 2 of the header is empty"),
        (b"a,a\n" + ROWS.encode(), "the header names a twice"),
        (b"a\n" + b"1\n" * 60, "one column only"),
        (b"a,b\n\xff,1\n", "not UTF-8"),
    ],
)
def test_a_file_that_makes_no_project_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "rows.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(MlsparkError) as refused:
        csv_rows.read(file)
    assert message in str(refused.value)
    assert str(file) in str(refused.value)


def test_lines_are_rows_as_spark_reads_them(tmp_path: Path) -> None:
    """A header given beforehand; quotes, blanks, an empty line, a line too short, quotes that do not close or open late."""
    good = ['"a, ""b""" , 1', "", "c,"] + ["d,2"] * 60
    bad = ["only", '"open,1', 'x"y,1', '"a"b,1']
    file = tmp_path / "rows.csv"
    file.write_text("\ufeff" + "\n".join([*good, *bad]), encoding="utf-8")  # a mark that Hadoop takes off, too
    rows = csv_rows.read(file, ["text", "number"])
    assert rows.num_malformed == len(bad)
    assert rows.columns["text"][:3] == ['a, "b"', "c", "d"]
    assert rows.columns["number"][:3] == ["1", None, "2"]
    assert (rows.separator, rows.has_header, rows.is_whole) == (",", False, True)


def test_ids_by_name_or_by_count_are_no_features() -> None:
    counted = columns.of("number", "number", [str(row) for row in range(7, 207)])
    amounts = columns.of("amount", "amount", [str(row * row) for row in range(200)])
    foreign = columns.of("shop_id", "shop_id", [str(row % 60) for row in range(200)])
    assert [column.is_like_an_id for column in (counted, amounts, foreign)] == [True, False, True]
    assert [column.is_key for column in (counted, amounts, foreign)] == [True, False, False]
