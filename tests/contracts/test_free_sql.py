"""SQL of a person: what only a row decides is accepted, all else is refused by name, whatever it is called."""

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession
from pyspark.sql.types import BooleanType, StructType

from mlspark.contracts import check_spark, free_sql
from mlspark.contracts.contract import Contract
from mlspark.contracts.own_columns import RAW, REASONS, SOURCE_FILE
from mlspark.errors import ContractError, SourceError
from mlspark.sources import source
from mlspark.sources.settings import SourceSettings

COLUMNS = "id bigint, age int, name string, at timestamp, day date, price decimal(10,2), tags array<string>, `a.b` int"

ACCEPTED = [
    "age > 18",
    "name LIKE 'A%' OR name IS NULL",
    "age IN (1, 2, 3) AND price BETWEEN 1 AND 2",
    "CASE WHEN age > 1 THEN true ELSE name = 'x' END",
    "cast(name AS int) > 3",
    "try_cast(name AS date) < DATE '2024-01-31'",
    "at < TIMESTAMP '2024-01-31 12:00:00' AND day >= '2024-01-01'",
    "exists(tags, tag -> tag = name)",
    "aggregate(transform(tags, tag -> length(tag)), 0, (a, b) -> a + b) < 10",
    "hash(id) % 10 < 3 AND xxhash64(name) > 0",
    "regexp_like(name, '^[a-z]+$') AND sha2(name, 256) <> ''",
    "date_trunc('DAY', at) = at AND date_add(day, 1) > day AND hour(at) = 3",
    "get_json_object(name, '$.a') = 'now'",
    "name = 'today' OR lower(name) = 'now()'",
    "`a.b` > 1 AND size(tags) > 0",
    "is_valid_utf8(name) AND url_encode(name) = name",
    "nvl2(age, age > 1, false) AND coalesce(age, 0) = 0 AND greatest(age, id) > 1",
    "split(name, ',')[0] = 'a' AND array_contains(tags, name)",
    "to_date(name, 'yyyy-MM-dd') < day",
    "date 'epoch' < day",
]
REFUSED = {
    "rand() < 0.5": r"^rand\(\) may give another value each time; a condition has deterministic functions of the row's own",
    "age > 1 AND (rand(5) < 0.5 OR age > 2)": r"^rand\(\) may give",
    "randn() > 0": r"^randn\(\) may",
    "uuid() = name": r"^uuid\(\) may",
    "shuffle(tags)[0] = name": r"^shuffle\(\) may",
    "monotonically_increasing_id() > 3": r"^monotonically_increasing_id\(\) may",
    "spark_partition_id() = 0": r"^spark_partition_id\(\) may",
    "input_file_name() = name": r"^input_file_name\(\) may",
    "input_file_block_start() = 0": r"^input_file_block_start\(\) may",
    "randstr(5) = name": r"^randstr\(\) may",
    "uniform(1, 5) > 2": r"^uniform\(\) may|^rand\(\) may",
    "aes_encrypt(name, '0000111122223333') = name": r"may give another value each time",
    "reflect('java.lang.System', 'getenv', 'HOME') = name": r"^reflect\(\) may",
    "java_method('java.lang.Runtime', 'getRuntime') = name": r"^java_method\(\) may",
    "try_reflect('java.lang.System', 'exit', 1) = name": r"reflect\(\) may",
    "identifier('rand')() > 0": r"^rand\(\) may",
    "current_timestamp() > at": r"^current_timestamp\(\) is decided by the session or the time",
    "now() > at": r"^now\(\) is decided",
    "current_date > day": r"^current_date\(\) is decided",
    "curdate() > day": r"^curr?e?n?t?_?date\(\) is decided",
    "localtimestamp() > at": r"^localtimestamp\(\) is decided",
    "unix_timestamp() > 1": r"is decided by the session or the time",
    "current_user() = name": r"^current_user\(\) is decided|^user\(\) is decided",
    "session_user() = name": r"is decided",
    "current_database() = name": r"is decided",
    "current_catalog() = name": r"is decided",
    "current_timezone() = name": r"is decided",
    "version() = name": r"is decided",
    "at > 'now'": r"^the time at which it runs would decide \(now, today, tomorrow, yesterday\); give a date",
    "day = ' TODAY '": r"^the time at which it runs",
    "cast('tomorrow' AS timestamp) > at": r"^the time at which it runs",
    "cast(concat('no', 'w') AS timestamp) > at": r"^the time at which it runs",
    "at > timestamp 'now'": r"^the time at which it runs",
    "at > timestamp /* a word */ 'no' 'w'": r"^the time at which it runs",
    'day > DATE "yesterday UTC"': r"^the time at which it runs",
    "age > (SELECT 1)": r"^a subquery reads other rows; a condition has",
    "age IN (SELECT * FROM json.`/etc/hostname`)": r"^a subquery reads other rows",
    "id IN (SELECT id FROM range(3))": r"^a subquery reads other rows",
    "EXISTS (SELECT 1)": r"^a subquery reads other rows",
    "row_number() OVER (ORDER BY age) = 1": r"^a window function reads other rows",
    "lag(age) OVER (ORDER BY id) = 1": r"^a window function reads other rows",
    "count(*) > 1": r"is an aggregate, which reads other rows",
    "max(age) = 3": r"^max\(\) is an aggregate, which reads other rows",
    "explode(tags) = name": r"explode\(|generator",
    "raise_error('x')": r"^raise_error\(\) ends the job",
    "assert_true(age > 1) IS NULL": r"ends the job",
    "age": r"^is no condition, but int$",
    "*": r"^is no condition, but bigint, int, |Invalid usage of '\*'",
    "ages > 1": r"`ages` cannot be resolved.*`age`",
    "_metadata.file_path = name": r"`_metadata`.* cannot be resolved",
    "age >": r"^Syntax error",
    "age = 1; DROP TABLE x": r"^Syntax error",
    ":parameter = age": r".",
    "no_such_function(age)": r"no_such_function",
}


@pytest.fixture(scope="module")
def columns(spark: SparkSession) -> StructType:
    return spark.createDataFrame([], COLUMNS).schema


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_a_row_decides_is_accepted(spark: SparkSession, columns: StructType, text: str) -> None:
    free_sql.check(spark, text, columns)


@pytest.mark.parametrize("text", REFUSED)
def test_all_else_is_refused_by_name(spark: SparkSession, columns: StructType, text: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[text]) as refused:
        free_sql.check(spark, text, columns)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def functions(spark: SparkSession) -> Iterator[None]:
    spark.udf.register("of_python", lambda age: age > 3, BooleanType())
    spark.sql("CREATE TEMPORARY FUNCTION of_sql(x INT) RETURNS BOOLEAN RETURN x > 3")
    spark.sql("DECLARE OR REPLACE VARIABLE limit_of_session INT DEFAULT 3")
    yield
    spark.sql("DROP TEMPORARY FUNCTION of_python")
    spark.sql("DROP TEMPORARY FUNCTION of_sql")
    spark.sql("DROP TEMPORARY VARIABLE limit_of_session")


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("of_python(age)", r"^of_python\(\) is a function of somebody's own"),
        ("of_sql(age)", r"of_sql|is decided by|somebody's own"),
        ("age > limit_of_session", r"is decided by the session"),
    ],
)
def test_names_of_a_session_are_refused(spark: SparkSession, columns: StructType, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        free_sql.check(spark, text, columns)


def test_filter_and_rule_say_which_they_are(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("1", None, "1", "f")],
        "age string, _mlspark_malformed string, _mlspark_raw string, _mlspark_source_file string",
    )
    contract = Contract.model_validate_json(
        '{"name": "people", "columns": [{"name": "age", "type": "int"}], '
        '"rules": [{"name": "new", "expression": "age < unix_timestamp()", "batch_only": true}]}'
    )
    settings = SourceSettings(kind="csv", filter="rand() < 0.5")
    with pytest.raises(
        SourceError, match=r"^filter 'rand\(\) < 0.5': rand\(\) may .*; the source's columns are age, _m"
    ):
        source.filtered(rows, settings, contract)
    settings = SourceSettings(kind="csv", filter="_mlspark_raw = '1'")
    with pytest.raises(SourceError, match=r"`_mlspark_raw` cannot be resolved.*; the source's columns are age$"):
        source.filtered(rows, settings, contract, columns=["age"])
    with pytest.raises(ContractError, match=r"^contract people: rule new: 'age < unix_timestamp\(\)' cannot be used: "):
        check_spark.conform(rows, contract)


def test_rule_is_asked_of_rows_alone_whose_values_are_good(spark: SparkSession) -> None:
    """It may fail of others: Spark ends the job where a text is no number."""
    rows = spark.createDataFrame(
        [("7", None, "0", "f"), ("abc", None, "1", "f"), ("3", None, "2", "f"), (None, "no line", "3", "f")],
        "code string, _mlspark_malformed string, _mlspark_raw string, _mlspark_source_file string",
    )
    contract = Contract.model_validate_json(
        r'{"name": "codes", "columns": [{"name": "code", "type": "string", "pattern": "\\d+"}], "rules": ['
        '{"name": "great", "expression": "CAST(code AS INT) > 5 -- and no less", "batch_only": true}]}'
    )
    conformed = check_spark.conform(rows, contract)
    assert conformed.columns == ["code", REASONS, RAW, SOURCE_FILE]
    found = {row[RAW]: [(reason.column, reason.rule) for reason in row[REASONS]] for row in conformed.collect()}
    assert found == {"0": [], "1": [("code", "pattern")], "2": [("", "great")], "3": [("", "malformed")]}
