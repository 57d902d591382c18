"""Drafts of contracts: types, ranges, lists and keys as the data has them, in two passes, met by that very data."""

import datetime
import math
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from mlspark.contracts import check_spark, infer
from mlspark.contracts import contract as contracts
from mlspark.contracts.contract import Contract
from mlspark.contracts.infer import Draft
from mlspark.contracts.own_columns import MALFORMED, RAW, SOURCE_FILE
from mlspark.contracts.shapes import SparkRows
from mlspark.errors import ContractError
from mlspark.intake import check as checking
from mlspark.intake import draft as drafts
from mlspark.sources.csv import CsvSettings


def raw(rows: DataFrame) -> DataFrame:
    """Rows as a reader of sources gives them."""
    missing = F.lit(None).cast("string")
    return rows.select("*", missing.alias(MALFORMED), missing.alias(RAW), missing.alias(SOURCE_FILE))


def draft_of(rows: DataFrame, **arguments: Any) -> Draft:
    columns = {field.name: field.dataType.simpleString() for field in rows.schema}

    def read(contract: Contract) -> DataFrame:
        named = {column.source_name: column.name for column in contract.columns}
        return raw(rows.select(*(F.col(f"`{name}`").alias(named[name]) for name in columns if name in named)))

    return infer.draft(SparkRows(read), columns, **{"name": "things", "closed": True} | arguments)


def num_bad(rows: DataFrame, contract: Contract) -> int:
    return check_spark.conform(raw(rows), contract).where(check_spark.is_bad()).count()


def above(number: float) -> float:
    """The next double: bounds are exact, and a draft knows the extremes of such long numbers through doubles alone."""
    return math.nextafter(number, math.inf)


def below(number: float) -> float:
    return math.nextafter(number, -math.inf)


TEXTS = {
    "whole": (["1", "-2", "+3"], {"type": "int", "min": -2, "max": 3}),
    "ten_digits": (["3000000000", "1", "0"], {"type": "bigint", "min": 0, "max": 3e9}),
    "greatest": (["9223372036854775807", "1", "1"], {"type": "bigint", "min": 1, "max": 2.0**63}),
    "fraction": (["1.5", "2", "-1e3"], {"type": "double", "min": -1000, "max": 2}),
    "printed": (["0.30000000000000004", "0.1", "0.2"], {"type": "double", "min": 0.1, "max": 0.30000000000000004}),
    "exact": (
        ["0.123456789012345678", "0", "0"],
        {"type": "decimal(18,18)", "min": 0, "max": above(0.12345678901234568)},
    ),
    "money": (
        ["12345678901234567.25", "0.5", "1"],
        {"type": "decimal(19,2)", "min": below(0.5), "max": above(12345678901234567.25)},
    ),
    "endless": (["1" * 39, "1", "2"], {"type": "string", "max_length": 39}),
    "huge": (["1e400", "1", "2"], {"type": "string", "max_length": 5}),
    "day": (["2024-02-29", "1999-12-31", "2000-01-01"], {"type": "date", "min": "1999-12-31", "max": "2024-02-29"}),
    "no_day": (["2023-02-29", "1999-12-31", "2000-01-01"], {"type": "string", "max_length": 10}),
    "year_zero": (["0000-01-01", "1999-12-31", "2000-01-01"], {"type": "string", "max_length": 10}),
    "year_one": (["0001-01-01", "1999-12-31", "2000-01-01"], {"type": "string", "max_length": 10}),
    "moment_one": (["0001-01-01 00:00", "1999-12-31 10:00", "2000-01-01 10:00"], {"type": "string", "max_length": 16}),
    "moment": (
        ["2024-02-29 12:00:00.5", "2024-02-29T11:00", "2024-01-01"],
        {"type": "timestamp", "min": "2024-01-01 00:00:00", "max": "2024-02-29 12:00:00.5"},
    ),
    "flag": (["true", "FALSE", "true"], {"type": "boolean"}),
    "answer": (["y", "n", "y"], {"type": "string", "max_length": 1}),
    "year": (["2024-02", "2024", "2023"], {"type": "string", "max_length": 7}),
    "postcode": (["01067", "10115", "80331"], {"type": "string", "max_length": 5}),
    "java": (["10D", "12F", "1"], {"type": "string", "max_length": 3}),
    "gap": (["1", None, "2"], {"type": "int", "nullable": True, "min": 1, "max": 2, "max_missing_share": 0.334}),
    "nothing": ([None, None, None], {"type": "string", "nullable": True, "max_missing_share": 1.0}),
    "marked": (["?", "1", "2"], {"type": "string", "max_length": 1}),
    "umlaut": (["Müller", "Straße", "\u1f600"], {"type": "string", "max_length": 6}),
}


@pytest.fixture(scope="module")
def texts(spark: SparkSession) -> DataFrame:
    rows = list(zip(*(values for values, _ in TEXTS.values()), strict=True))
    return spark.createDataFrame(rows, ", ".join(f"{name} string" for name in TEXTS)).coalesce(1)


@pytest.fixture(scope="module")
def texts_draft(texts: DataFrame) -> Draft:
    return draft_of(texts, label="whole")


def test_each_text_gets_the_narrowest_type_that_people_mean(texts_draft: Draft) -> None:
    found = {rule.name: rule.model_dump(exclude_none=True, exclude={"name"}) for rule in texts_draft.contract.columns}
    assert found == {name: {"nullable": False} | expected for name, (_, expected) in TEXTS.items()}
    assert texts_draft.contract.label == "whole"
    assert texts_draft.contract.unique_key == ()


def test_open_draft_has_types_and_the_labels_values_alone(spark: SparkSession) -> None:
    """Numbers, categories, days and gaps that were not seen are the encoder's business."""
    days = ["2024-01-01", "2024-06-01"]
    rows = [(n, "abcd"[n % 4], days[n % 2], None if n % 3 else n / 2, n % 2, ["no", "yes"][n % 2]) for n in range(120)]
    frame = spark.createDataFrame(rows, "id int, job string, day string, gap double, flag int, rich string")
    draft = draft_of(frame.coalesce(1), closed=False, label="rich")
    found = {rule.name: rule.model_dump(exclude_defaults=True, exclude={"name"}) for rule in draft.contract.columns}
    assert found == {
        "id": {"type": "int", "nullable": False},
        "job": {"type": "string", "nullable": False},
        "day": {"type": "date", "nullable": False},
        "gap": {"type": "double"},
        "flag": {"type": "int", "nullable": False},
        "rich": {"type": "string", "nullable": False, "allowed": ("no", "yes")},
    }
    assert draft.contract.unique_key == ("id",)
    assert draft.notes[0] == (
        "draft from 120 rows: takes other values of the same types, but of the label; for ranges and lists as seen: --closed"
    )
    flag = draft_of(frame.coalesce(1), closed=False, label="flag").contract.column("flag")
    assert (flag.min, flag.max, flag.allowed) == (0, 1, None)
    number = draft_of(frame.coalesce(1), closed=False, label="id").contract.column("id")
    assert (number.min, number.max) == (None, None)
    empty = draft_of(frame.where("gap is null").coalesce(1), closed=False, has_types=True).contract.column("gap")
    assert empty.max_missing_share == 1.0


def test_draft_accepts_the_rows_it_is_drawn_from(texts: DataFrame, texts_draft: Draft) -> None:
    assert num_bad(texts, texts_draft.contract) == 0


def test_draft_says_what_to_know_before_use(texts_draft: Draft) -> None:
    assert texts_draft.notes == (
        "draft from 3 rows: widen before use; ranges, lists, lengths and shares are those seen",
        "missing: gap 33.3%, nothing 100.0%",
        "'?' may mark missing values (marked 1): if so, draft again with --option missing='?'",
        "nothing: has no value at all",
        "marked: would be int without '?'",
    )


def test_file_of_a_draft_gives_the_same_contract_and_the_same_bytes(texts_draft: Draft, tmp_path: Path) -> None:
    file = tmp_path / "things.json"
    file.write_text(infer.to_text(texts_draft.contract), encoding="utf-8")
    assert contracts.load(str(file)) == texts_draft.contract
    assert infer.to_text(contracts.load(str(file))) == file.read_text(encoding="utf-8")
    assert '{"name": "whole", "type": "int", "nullable": false, "min": -2, "max": 3},\n' in file.read_text()


def test_lists_and_keys_come_from_the_values_themselves(spark: SparkSession) -> None:
    """100 rows: a list may have 5 values (4 where one is missing), and a key must be different in each."""
    rows = [
        Row(
            group="abcde"[n % 5], sparse="abcde"[n % 5] if n else None,
            groups="abcdef"[n % 6], share=f"{n}.5", twice=str(max(n, 1)), gap=str(n) if n else None,
            same=f"+{n}" if n == 7 else str(n - (n == 8)), code=f"x{n}", number=str(n),
        )
        for n in range(100)
    ]  # fmt: skip
    frame = spark.createDataFrame(rows).coalesce(1)
    draft = draft_of(frame)
    rules = {rule.name: rule for rule in draft.contract.columns}
    assert rules["group"].allowed == ("a", "b", "c", "d", "e")
    assert rules["group"].max_length is None
    assert {name for name, rule in rules.items() if rule.allowed} == {"group"}
    # `share` is a double, `twice` has 1 twice, `gap` a missing value, `same` 7 as +7 and 7.
    assert draft.contract.unique_key == ("code",)
    assert draft.notes[-1] == "unique key: code; unique too: number"
    assert num_bad(frame, draft.contract) == 0
    assert draft_of(frame.limit(99)).contract.unique_key == ()


def test_own_types_of_a_source_are_kept_and_what_has_no_type_is_left_out(spark: SparkSession) -> None:
    schema = (
        "small tinyint, third float, ratio double, price decimal(10,2), zip string, at timestamp, day date, "
        "`a b` int, tags array<string>, ID int, id int"
    )
    rows = [
        (1, 0.1, 0.5, "1.25", "01067", "2024-01-01 00:00:00.25", "2024-01-01", 1, ["x"], 1, 2),
        (2, 0.3, float("nan"), None, "10115", "2024-01-02 00:00:00", None, 1, None, 1, 2),
    ]
    texts = schema.replace("decimal(10,2)", "string").replace("timestamp", "string").replace("date", "string")
    frame = spark.createDataFrame(rows, texts).select(
        *("small", "third", "ratio", F.col("price").cast("decimal(10,2)"), "zip", F.col("at").cast("timestamp")),
        *(F.col("day").cast("date"), "`a b`", "tags"),
    )
    draft = draft_of(frame, has_types=True)
    named = frame.withColumnRenamed("a b", "a_b")
    found = {rule.name: (rule.type, rule.min, rule.max) for rule in draft.contract.columns}
    assert found == {
        "small": ("smallint", 1, 2),
        "third": ("float", 0.10000000149011612, 0.30000001192092896),
        "ratio": ("double", 0.5, 0.5),
        "price": ("decimal(10,2)", 1.25, 1.25),
        "zip": ("string", None, None),
        "at": ("timestamp", "2024-01-01 00:00:00.25", "2024-01-02 00:00:00"),
        "day": ("date", "2024-01-01", "2024-01-01"),
        "a_b": ("int", 1, 1),
    }
    assert draft.notes[1:] == (
        "left out: tags (no type for array<string>)",
        "names in settings, rules and tables: 'a b' is a_b",
        "missing: ratio 50.0%, price 50.0%, day 50.0%",
    )
    assert num_bad(named, draft.contract) == 0


def test_keys_of_json_objects_are_columns_in_the_order_of_the_lines(spark: SparkSession) -> None:
    lines = [
        '{"name": "Ada", "age": 36, "Age": 1, "late": null}',
        '{"name": "Bob", "age": 41.5, "nested": {"a": [1]}, "sure": "?"}',
        '{"name": "", "late": "2024-01-01", "a-b": 1, "sure": true}',
    ]
    frame = spark.createDataFrame(
        [(line, None, "f") for line in lines],
        "_mlspark_raw string, _mlspark_malformed string, _mlspark_source_file string",
    )

    def read(contract: Contract) -> DataFrame:
        names = {column.name: column.source_name for column in contract.columns}
        line = F.try_parse_json(RAW)
        values = {name: F.try_variant_get(line, f"$['{key}']", "string") for name, key in names.items()}
        return frame.select(
            *(F.nullif(value, F.lit("?")).alias(name) for name, value in values.items()), *frame.columns
        )

    draft = infer.draft(SparkRows(read, {"*": ["?"]}), None, name="people", closed=True)
    assert [(rule.name, rule.type, rule.nullable) for rule in draft.contract.columns] == [
        ("name", "string", False),
        ("age", "double", True),
        ("late", "date", True),
        ("Age_2", "int", True),
        ("a_b", "int", True),
        ("nested", "string", True),
        ("sure", "boolean", True),
    ]
    assert draft.notes[1] == "names in settings, rules and tables: 'Age' is Age_2, 'a-b' is a_b"
    assert check_spark.conform(read(draft.contract), draft.contract).where(check_spark.is_bad()).count() == 0


def csv(folder: Path, lines: Sequence[str], **settings: Any) -> CsvSettings:
    file = folder / "things.csv"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return CsvSettings(kind="csv", path=str(file), **settings)


def test_lines_that_cannot_be_parsed_are_told_and_shape_nothing(spark: SparkSession, tmp_path: Path) -> None:
    settings = csv(tmp_path, ["|made by hand", *(f"{n}, x" for n in range(10)), "one, two, three"], comment="|")
    draft = drafts.draft_from(spark, settings, name="things")
    assert [(rule.name, rule.type) for rule in draft.contract.columns] == [("c1", "int"), ("c2", "string")]
    assert draft.notes[1] == "1 of 11 rows cannot be parsed and count for nothing here: not 2 fields 1"


@pytest.mark.parametrize(
    ("lines", "settings", "arguments", "message"),
    [
        (["a,b", "1,2"], {"header": True}, {"label": "c"}, "label 'c' is not among the columns: a, b"),
        (["a,b"], {"header": True}, {}, "things: no rows to draft a contract from"),
        (["1,2", "1"], {}, {"columns": "a,b"}, "1 of 2 rows are bad (not 2 fields 1)"),
    ],
)  # fmt: skip
def test_what_no_contract_can_be_drafted_from_is_refused(
    spark: SparkSession, tmp_path: Path, lines: list[str], settings: Any, arguments: Any, message: str
) -> None:
    with pytest.raises(ContractError) as refused:
        drafts.draft_from(spark, csv(tmp_path, lines, **settings), name="things", **arguments)
    assert message in str(refused.value)


def records_read(spark: SparkSession, action: Callable[[], object]) -> int:
    """Records that the tasks of `action` took from files: Spark's own metric of their stages, over its jobs."""
    context, group = spark.sparkContext, uuid.uuid4().hex
    context.setJobGroup(group, "counted")
    try:
        action()
    finally:
        context.setJobGroup("", "")
    tracker, status = context.statusTracker(), context._jsc.sc()
    status.listenerBus().waitUntilEmpty()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = {stage for job in jobs if job for stage in job.stageIds}
    return sum(status.statusStore().lastStageAttempt(stage).inputRecords() for stage in stages)


@pytest.mark.parametrize("num_columns", [3, 60])
def test_source_is_read_twice_whatever_the_number_of_columns(
    spark: SparkSession, tmp_path: Path, num_columns: int
) -> None:
    num_rows, num_first_lines = 500, 2 * 20
    lines = [",".join([str(n), "ab"[n % 2], *[str(n)] * (num_columns - 2)]) for n in range(num_rows)]
    settings = csv(tmp_path, lines)
    found = records_read(spark, lambda: drafts.draft_from(spark, settings, name="things"))
    assert 2 * num_rows <= found <= 2 * num_rows + num_first_lines


def test_draft_of_the_real_census_has_its_numbers_and_categories(spark: SparkSession, adult: Path) -> None:
    path = str(adult / "adult" / "adult.data")
    names = [rule.name for rule in contracts.load(str(Path(__file__).parents[2] / "schemas" / "census.json")).columns]
    settings = CsvSettings(kind="csv", path=path)
    draft = drafts.draft_from(spark, settings, name="census", label="income", columns=",".join(names), closed=True)
    rules = {rule.name: rule for rule in draft.contract.columns}
    numbers = {"age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"}
    rows = [line.split(", ") for line in Path(path).read_text().splitlines() if line]
    missing = {name: sum(row[at] == "?" for row in rows) for at, name in enumerate(names)}
    if len(rows) > 2_000:  # the whole file, not the sample
        assert (len(rows), missing["workclass"], missing["occupation"], missing["native_country"]) == (
            32_561, 1_836, 1_843, 583,
        )  # fmt: skip
    assert draft.num_rows == len(rows)
    assert {name for name, rule in rules.items() if rule.type == "int"} == numbers
    assert {name for name, rule in rules.items() if rule.allowed} == set(names) - numbers
    assert (rules["age"].min, rules["age"].max) == (17, 90)
    assert rules["income"].allowed == ("<=50K", ">50K")
    assert draft.notes[1:] == (
        "'?' may mark missing values ("
        + ", ".join(f"{name} {missing[name]:,}" for name in ("workclass", "occupation", "native_country"))
        + "): if so, draft again with --option missing='?'",
    )
    report = checking.check(spark, draft.contract, {"source": settings}, root=".")
    assert (report["is_met"], report["rules"]) == (True, {})


def test_today_is_no_part_of_a_draft(spark: SparkSession) -> None:
    """To Spark "12:30" is a timestamp: half past twelve today."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    draft = draft_of(spark.createDataFrame([("12:30", "now")], "clock string, word string"))
    assert [rule.type for rule in draft.contract.columns] == ["string", "string"]
    assert today not in infer.to_text(draft.contract)
