"""Damaged inputs: each row is good or quarantined with its reason, each file read whole or refused with one line."""

import base64
import gzip
import os
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc as orc
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from pyspark.sql import SparkSession

from mlspark.errors import ContractError, MlsparkError, SourceError
from mlspark.stages.prepare import prepare

from .conftest import ANN, conformed, line, pipeline, visits

CSV = {"kind": "csv", "path": "in"}
JSON = {"kind": "json", "path": "in"}
PARQUET = {"kind": "parquet", "path": "in"}
GOOD = f"{line()}\n".encode()

CSV_LINES: list[tuple[bytes, list[str]]] = [
    (b"\xef\xbb\xbf" + line(id="0").encode() + b"\n", []),  # a mark at the start of a file is no damage
    (line().encode() + b"\r\n", []),
    (line().encode() + b"\r", []),
    (b" \n", ["no row"]),
    (line(name='"Ann ""the"" Bold, Jr."').encode() + b"\n", []),
    (line(name="caf\u00e9").encode() + b"\n", []),
    (line(age="", amount='""').encode() + b"\n", []),
    (line(";").encode() + b"\n", ["malformed not 9 fields"]),
    (line().rsplit(",", 1)[0].encode() + b"\n", ["malformed not 9 fields"]),
    (line().encode() + b",\n", ["malformed not 9 fields"]),
    (b"\xef\xbb\xbf" + line().encode() + b"\n", ["malformed byte order mark"]),
    (line(name="caf\u00e9").encode("latin-1") + b"\n", ["malformed not UTF-8"]),
    (line(name="caf\ufffd").encode() + b"\n", ["malformed not UTF-8"]),
    (line(name='"Ann').encode() + b"\n", ["malformed unclosed quote"]),
    (line(name='"Ann\nBob"').encode() + b"\n", ["malformed unclosed quote"] * 2),
    (line(name='"Ann"a"b"').encode() + b"\n", ["malformed quote inside a field"]),
    (line(name='5" x 6"').encode() + b"\n", ["malformed quote inside a field"]),
    (line(name="A\0nn").encode() + b"\n", ["malformed control character"]),
    (line(name="x" * 10_000_000).encode() + b"\n", ["malformed longer than max_line_bytes=1000000"]),
    (b",".join(name.encode() for name in ANN) + b"\n", ["id age amount ratio seen at sure.type is_new.allowed"]),
    (line(id="").encode() + b"\n", ["id.null"]),
    (line(id="3000000000", age="40000").encode() + b"\n", ["id age.type"]),
    (line(id="1.5", age="130").encode() + b"\n", ["id.type age.max"]),
    (line(amount="12345.00").encode() + b"\n", ["amount.type"]),
    (line(amount="1.005").encode() + b"\n", ["amount.type"]),
    (line(ratio="NaN").encode() + b"\n", []),
    (line(ratio="-Infinity").encode() + b"\n", ["ratio.finite"]),
    (line(ratio="1e999").encode() + b"\n", ["ratio.finite"]),
    (line(ratio="1f").encode() + b"\n", ["ratio.type"]),
    (line(seen="2020-02-30").encode() + b"\n", ["seen.type"]),
    (line(seen="2020").encode() + b"\n", ["seen.type"]),
    (line(seen="2020-01-31 or so").encode() + b"\n", ["seen.type"]),
    (line(seen="99999-01-01").encode() + b"\n", ["seen.type"]),
    (line(seen="0000-01-01").encode() + b"\n", ["seen.range"]),
    (line(at="10:00:00").encode() + b"\n", ["at.type"]),
    (line(at="2020-01-31 25:00:00").encode() + b"\n", ["at.type"]),
    (line(at="2020-01-31 10:00:00.1234567").encode() + b"\n", ["at.type"]),  # no digit is dropped
    (line(at="2020-01-31 10:00:00.123456").encode() + b"\n", []),
    (line(sure="maybe").encode() + b"\n", ["sure.type"]),
]

JSON_LINES: list[tuple[bytes, list[str]]] = [
    (b'{"id": 1, "age": null, "name": {"first": "Ann", "more": [1, 2.50]}}', []),
    (
        b'{"id": "1", "amount": 1234.56, "ratio": 1e-3, "seen": "2020-01-31", "sure": true, "name": "a\\"\\n\\u00e9"}',
        [],
    ),
    (b'{"id": 1, "name": "\\ud83d\\ude00 \\\\ud83d"}', []),
    (b"", ["no row"]),
    (b'{"id": 1, "extra": 2}', ["malformed extra key: extra"]),
    (b'{"id": 1, "id": 2}', ["malformed key twice: id"]),
    (b'[{"id": 1}]', ["malformed not one JSON object"]),
    (b'{"id": 1}{"id": 2}', ["malformed not one JSON object"]),
    (b'{"id": 1}, {"id": 2}', ["malformed not one JSON object"]),
    (b'{"id": 1}]', ["malformed not one JSON object"]),
    (b'{"id": 1}, "id": 2}', ["malformed not one JSON object"]),
    (b'{"id": 1', ["malformed not one JSON object"]),
    (b'{"id": 1,}', ["malformed not one JSON object"]),
    (b"{'id': 1}", ["malformed not one JSON object"]),
    (b'{"id": 1, "ratio": NaN}', ["malformed not one JSON object"]),
    (b'{"id": 1, "name": [' + b"[" * 5000 + b"]" * 5000 + b"]}", ["malformed not one JSON object"]),
    (b"null", ["malformed not one JSON object"]),
    (b'{"id": 1, "name": "\xff"}', ["malformed not UTF-8"]),
    (b'{"id": 1, "name": "\\ud83d"}', ["malformed half a character"]),
    (b'{"id": 1, "name": "\\ude00"}', ["malformed half a character"]),
    (b'{"id": 1, "name": "\\u0000"}', ["malformed control character"]),
    (b'{"id": 1, "name": "\x00"}', ["malformed control character"]),
    (b'\xef\xbb\xbf{"id": 1}', ["malformed byte order mark"]),
    (b'{"id": 1, "name": "' + b"x" * 10_000_000 + b'"}', ["malformed longer than max_line_bytes=1000000"]),
    (b'{"name": "Ann"}', ["id.null"]),
    (b'{"id": 1e99, "age": "", "amount": 1.005}', ["id age amount.type"]),
    (b'{"id": [1], "amount": 123456789012345678901234567890.5}', ["id amount.type"]),
    (b'{"id": 1, "ratio": 1e999, "seen": "2020-13-01"}', ["ratio.finite seen.type"]),
    (b'{"id": 1, "at": "2020-01-31 10:00:00.1234567"}', ["at.type"]),
]


def named(reasons: list[tuple[str, str, str | None]]) -> str:
    """ "malformed why", or "column column.rule column.rule" in the contract's order."""
    by_rule: dict[str, list[str]] = {}
    for column, rule, value in reasons:
        if rule == "malformed":
            return f"malformed {value}"
        by_rule.setdefault(rule, []).append(column)
    return " ".join(f"{' '.join(columns)}.{rule}" for rule, columns in by_rule.items())


def expected(lines: list[tuple[bytes, list[str]]]) -> list[str]:
    return [reason for _, reasons in lines for reason in reasons or [""] if reason != "no row"]


def test_each_damaged_csv_line_is_quarantined_with_its_reason(spark: SparkSession, folder: Path) -> None:
    (folder / "in" / "a.csv").write_bytes(b"".join(text for text, _ in CSV_LINES))
    outcome = conformed(spark, folder, CSV)
    assert [named(reasons) for _, reasons in outcome] == expected(CSV_LINES)
    [latin] = [raw for raw, _ in outcome if raw.startswith("base64:")]
    assert base64.b64decode(latin.removeprefix("base64:")).decode("latin-1") == line(name="caf\u00e9")


def test_each_damaged_json_line_is_quarantined_with_its_reason(spark: SparkSession, folder: Path) -> None:
    (folder / "in" / "a.json").write_bytes(b"\n".join(text for text, _ in JSON_LINES))
    outcome = conformed(spark, folder, JSON, visits(schema_policy={"extra": "refuse"}))
    assert [named(reasons) for _, reasons in outcome] == expected(JSON_LINES)


def test_each_damaged_line_below_a_header_is_quarantined_with_its_reason(spark: SparkSession, folder: Path) -> None:
    header = b"name,x y,id\n"
    lines = [
        (b"Ann,,1\n", []),
        (b"name,x y,id\n", ["malformed repeated header"]),
        ("caf\u00e9,,1\n".encode("latin-1"), ["malformed not UTF-8"]),
        (b"A\0nn,,1\n", ["malformed control character"]),
        (b"\xef\xbb\xbfAnn,,1\n", ["malformed byte order mark"]),
        (b"Ann,1\n", ["malformed not 3 fields"]),
    ]
    (folder / "in" / "a.csv").write_bytes(b"\xef\xbb\xbf\r\n# made by hand\r\n" + header.replace(b"\n", b"\r\n"))
    (folder / "in" / "b.csv").write_bytes(header + b"".join(text for text, _ in lines))
    (folder / "in" / "c.csv").write_bytes(header)
    outcome = conformed(
        spark,
        folder,
        {**CSV, "header": True, "comment": "#"},
        visits(schema_policy={"missing": "ignore", "extra": "ignore"}),
    )
    assert [named(reasons) for _, reasons in outcome] == expected(lines)
    assert base64.b64decode(outcome[2][0].removeprefix("base64:")) == b"caf\xe9,,1"


def test_each_wrong_value_of_typed_columns_is_quarantined_with_its_reason(spark: SparkSession, folder: Path) -> None:
    not_utf8 = pa.Array.from_buffers(pa.string(), 4, pa.array([b"\xff", b"Ann", b"x" * 10_000_000, b""]).buffers())
    seen = [datetime(2020, 1, 31), datetime(2020, 1, 31, 12), datetime(1, 1, 1), datetime(9999, 12, 31)]
    late = pa.array([0, 0, 253_402_300_800_000_000, None], pa.timestamp("us", "UTC"))  # 10000-01-01
    table = pa.table(
        {
            "id": [1.0, 1.5, float("nan"), 3e9],
            "age": [1, 121, 40_000, None],
            "amount": [1.25, 1.255, 12345.0, None],
            "ratio": [0.5, float("nan"), float("inf"), None],
            "seen": pa.array(seen, pa.timestamp("us")),
            "at": late,
            "sure": ["yes", "maybe", "", None],
            "is_new": ["no", "No", None, "yes"],
            "name": not_utf8,
        }
    )
    pq.write_table(table, folder / "in" / "a.parquet")
    outcome = conformed(spark, folder, PARQUET)
    assert [named(reasons) for _, reasons in outcome] == [
        "malformed name: not UTF-8",
        "id amount seen sure.type age.max is_new.allowed",
        "id.null age amount sure.type ratio.finite at.range name.max_length",
        "id.type",
    ]
    assert outcome[1][0] == (
        '{"id":1.5,"age":121,"amount":1.255,"ratio":"NaN","seen":"2020-01-31T12:00:00.000000Z",'
        '"at":"1970-01-01T00:00:00.000000Z","sure":"maybe","is_new":"No","name":"Ann"}'
    )


def test_types_that_spark_does_not_cast_are_quarantined_not_thrown(spark: SparkSession, folder: Path) -> None:
    table = pa.table(
        {"id": [date(2020, 1, 31), None], "seen": [18_292, None], "at": [True, None], "sure": [[1], None]}
        | {"name": pa.array([b"Ann", b"\xff"], pa.binary()), "age": pa.array([{"years": 1}, None])}
        | {"ratio": pa.array([b"0.5", None]), "amount": pa.nulls(2), "is_new": ["no", None]}
    )
    pq.write_table(table, folder / "in" / "a.parquet")
    assert [named(reasons) for _, reasons in conformed(spark, folder, PARQUET)] == [
        "id age seen at sure.type",
        "malformed name: not UTF-8",
    ]


def test_rows_that_share_a_key_are_quarantined(spark: SparkSession, folder: Path) -> None:
    (folder / "in" / "a.csv").write_text("\n".join([line(), line(id="2"), line(age="31"), line(id="")]))
    outcome = conformed(spark, folder, CSV, visits(unique_key=["id"]))
    assert sorted(named(reasons) for _, reasons in outcome) == ["", "id.null", "id.unique", "id.unique"]


def test_rows_kept_by_no_filter_are_still_quarantined_when_bad(spark: SparkSession, folder: Path) -> None:
    (folder / "in" / "a.csv").write_text("\n".join([line(), line(id="2"), "2", line(id="")]))
    outcome = conformed(spark, folder, {**CSV, "filter": "id = '2'"})
    assert [named(reasons) for _, reasons in outcome] == ["", "malformed not 9 fields"]


def truncated(content: bytes) -> bytes:
    return content[: -len(content) // 4]


def flipped(content: bytes, at: float) -> bytes:
    position = int(len(content) * at)
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


def gzipped(num_rows: int = 2000) -> bytes:
    return gzip.compress("".join(f"{line(id=str(n))}\n" for n in range(num_rows)).encode(), mtime=0)


def table_of(num_rows: int = 5, **changes: Any) -> pa.Table:
    """Good rows in the contract's types."""
    fields = {
        "id": pa.int32(), "age": pa.int16(), "amount": pa.decimal128(6, 2), "ratio": pa.float64(), "seen": pa.date32(),
        "at": pa.timestamp("us", "UTC"), "sure": pa.bool_(), "is_new": pa.string(), "name": pa.string(),
    }  # fmt: skip
    values = {"id": 1, "age": 30, "amount": 1, "ratio": 0.5, "seen": date(2020, 1, 31), "sure": True}
    values |= {"at": datetime(2020, 1, 31, tzinfo=UTC), "is_new": "yes", "name": "Ann"}
    arrays = {name: pa.array([values[name]] * num_rows, kind) for name, kind in fields.items()} | changes
    return pa.table({name: array for name, array in arrays.items() if array is not None})


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_page_checksum=True, use_dictionary=False, compression="none")
    return sink.getvalue().to_pybytes()


def orc_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    orc.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def write(**files: bytes) -> Callable[[Path], None]:
    """Names with "__" for the dot."""

    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_bytes(content)

    return make


def write_checksum(folder: Path) -> None:
    write(a__csv=GOOD)(folder)
    (folder / ".a.csv.crc").write_bytes(b"crc\0" + struct.pack(">ii", 512, 12345))


def write_link(folder: Path) -> None:
    write(a__csv=GOOD)(folder)
    (folder / "b.csv").symlink_to(folder / "gone.csv")


def write_forbidden(folder: Path) -> None:
    write(a__csv=GOOD)(folder)
    (folder / "a.csv").chmod(0)


def write_delta(folder: Path) -> None:
    write_deltalake(folder, table_of())


def write_delta_without_file(folder: Path) -> None:
    write_deltalake(folder, table_of())
    for file in folder.glob("*.parquet"):
        file.unlink()


HEADER = ",".join(ANN).encode() + b"\n"
DELTA = {"kind": "delta", "path": "in"}
ORC = {"kind": "orc", "path": "in"}
WITH_HEADER = {**CSV, "header": True}
STRICT_TYPES = {"schema_policy": {"retyped": "refuse"}}
AS_TEXT = parquet(table_of(age=pa.array(["30"] * 4 + ["forty"])))


def free_rule(expression: str) -> dict[str, Any]:
    return {"name": "odd", "expression": expression, "batch_only": True}


REFUSED: dict[str, tuple[Callable[[Path], None], dict[str, Any], dict[str, Any], type, str]] = {
    "absent": (write(), {**CSV, "path": "no"}, {}, SourceError, r"/no: no such file or folder; check sources"),
    "empty folder": (write(), CSV, {}, SourceError, r"/in: no bytes to read"),
    "empty file": (write(a__csv=b""), CSV, {}, SourceError, r"/in: no bytes to read"),
    "blank file": (write(a__csv=b"\n \n"), CSV, {}, ContractError, "0 good rows of 0 read"),
    "truncated gzip": (
        write(a__csv=GOOD, b__csv__gz=truncated(gzipped())),
        CSV, {}, SourceError, r"/in: file:.*b\.csv\.gz: cannot be read: Unexpected end of input stream; correct or remove",
    ),
    "flipped gzip": (write(a__csv__gz=flipped(gzipped(), 0.5)), CSV, {}, SourceError, r"a\.csv\.gz: cannot be read: "),
    "no gzip": (write(a__csv__gz=GOOD), CSV, {}, SourceError, r"a\.csv\.gz: cannot be read: "),
    "checksum": (write_checksum, CSV, {}, SourceError, r"cannot be read: Checksum error: file:.*a\.csv at 0 exp"),
    "link to nowhere": (write_link, CSV, {}, SourceError, r"in/b\.csv: is a link to .*gone\.csv, which is not there"),
    "forbidden": (write_forbidden, CSV, {}, SourceError, r"a\.csv.*Permission denied"),
    "wrong delimiter": (
        write(a__csv=f"{line(';')}\n".encode() * 3), CSV, {}, ContractError, r"3 of 3 rows are bad \(malformed 3\)",
    ),
    "UTF-16": (write(a__csv=GOOD.decode().encode("utf-16")), CSV, {}, ContractError, r"rows are bad \(malformed"),
    "no header": (write(a__csv=GOOD), WITH_HEADER, {}, ContractError, "missing columns .id, age"),
    "header twice in one": (
        write(a__csv=HEADER.replace(b"age", b"id") + GOOD),
        WITH_HEADER, {}, SourceError, "the header names 'id' twice; nothing was written",
    ),
    "other header": (
        write(a__csv=HEADER + GOOD, b__csv=HEADER.replace(b"age", b"Alter") + GOOD),
        WITH_HEADER, {}, SourceError,
        r"b\.csv: its first line 'id,Alter,.*' is not the first file's header 'id,age,.*'; correct or remove it",
    ),
    "header in one of two": (
        write(a__csv=HEADER + GOOD, b__csv=GOOD), WITH_HEADER, {}, SourceError, r"b\.csv: its first line '1,30,",
    ),
    "Latin-1 header": (
        write(a__csv=HEADER.replace(b"age", b"\xe4ge")), WITH_HEADER, {}, SourceError, "the header is not UTF-8",
    ),
    "open header": (
        write(a__csv=HEADER.replace(b"age", b'"age')), WITH_HEADER, {}, SourceError, "the header leaves a quote open",
    ),
    "JSON document": (
        write(a__json=b'[\n {"id": 1},\n {"id": 2}\n]\n'), JSON, {}, ContractError, r"3 of 4 rows .*malformed 3",
    ),
    "truncated Parquet": (
        write(a__parquet=parquet(table_of()), b__parquet=truncated(parquet(table_of()))),
        PARQUET, {}, SourceError, r"b\.parquet is not a Parquet file",
    ),
    "text as Parquet": (write(a__parquet=GOOD), PARQUET, {}, SourceError, r"a\.parquet is not a Parquet file"),
    "Parquet without bytes": (
        write(a__parquet=parquet(table_of()), b__parquet=b""), PARQUET, {}, SourceError, r"b\.parquet: has no byte",
    ),
    "flipped Parquet": (
        write(a__parquet=flipped(parquet(table_of(20_000)), 0.1)),
        PARQUET, {}, SourceError, r"a\.parquet.*cannot be read: .*CRC checksum verification failed",
    ),
    "truncated ORC": (
        write(a__orc=truncated(orc_bytes(table_of()))), ORC, {}, SourceError, r"Malformed ORC file .*a\.orc",
    ),
    "Parquet types that differ": (
        write(a__parquet=parquet(table_of()), b__parquet=AS_TEXT),
        PARQUET, {}, SourceError,
        r"files differ: age is '.*int32 age.*' in .*a\.parquet and '.*binary age.*' in .*b\.parquet; correct",
    ),
    "column that one file lacks": (
        write(a__parquet=parquet(table_of()), b__parquet=parquet(table_of(age=None))),
        PARQUET, {}, ContractError, r"missing columns \(age: not in file:.*b\.parquet\)",
    ),
    "wrong type": (
        write(a__parquet=AS_TEXT), PARQUET, STRICT_TYPES,
        ContractError, r"re-typed columns \(age: string, expected smallint",
    ),
    "columns alike": (
        write(a__parquet=parquet(table_of(AGE=pa.array([1] * 5)))), PARQUET, {}, SourceError, "`age` already exists",
    ),
    "nanoseconds": (
        write(a__parquet=parquet(table_of(at=pa.array([1] * 5, pa.timestamp("ns"))))),
        PARQUET, {}, SourceError,
        r"visits: at is '.*NANOS.*' in file:.*a\.parquet, which Spark does not read; write it in microseconds \(pandas: coe",
    ),
    "column without values": (
        write(a__parquet=parquet(table_of(ratio=pa.nulls(5, pa.float64())))),
        PARQUET, {}, ContractError, "learn: ratio: 5 of 5 values are missing: no value at all",
    ),
    "other table": (
        write(a__parquet=parquet(pa.table({"x": [1]}))), PARQUET, {"schema_policy": {"missing": "ignore"}},
        SourceError, "has none of the columns of contract visits, but x",
    ),
    "Delta as Parquet": (write_delta, PARQUET, {}, SourceError, "is a Delta table; set kind to delta"),
    "no Delta": (write(a__parquet=parquet(table_of())), DELTA, {}, SourceError, "no Delta table there"),
    "no such version": (write_delta, {**DELTA, "version": 7}, {}, SourceError, "has no version 7; the latest is 0"),
    "no version so old": (
        write_delta, {**DELTA, "timestamp": "2001-01-01"}, {}, SourceError, "has no version as old as 2001-01-01",
    ),
    "no time": (write_delta, {**DELTA, "timestamp": "soon"}, {}, SourceError, "timestamp 'soon': expected a time like"),
    "vacuumed": (write_delta_without_file, DELTA, {}, SourceError, r"\.parquet.*(not exist|No such file)"),
    "filter over no column": (
        write(a__csv=GOOD), {**CSV, "filter": "size > 1"}, {}, SourceError,
        r"filter 'size > 1': .*`size` cannot be resolved.*the source's columns are id, age",
    ),
    "filter that is none": (write(a__csv=GOOD), {**CSV, "filter": "id >"}, {}, SourceError, "filter 'id >': Syntax error"),
    "filter that fails": (
        write(a__csv=GOOD + line(id="x").encode()), {**CSV, "filter": "id > 0"}, {}, SourceError,
        r"fails on a row: The value 'x' of the type \"STRING\" cannot be cast to \"BIGINT\".*try_cast",
    ),
    "rule that fails on a cast": (
        write(a__csv=GOOD), CSV, {"rules": [free_rule("cast(name AS int) > 0")]}, SourceError,
        r"'cast\(name AS int\)' \(filter, or rule of the contract\) fails on a row: The value 'Ann' .*try_cast.*; nothing",
    ),
    "rule that fails on a division": (
        write(a__csv=GOOD), CSV, {"rules": [free_rule("100 / (age - 30) > 1")]}, SourceError,
        r"'100 / \(age - 30\)' \(filter, or rule of the contract\) fails on a row: Division by zero.*try_divide",
    ),
    "rule that overflows": (
        write(a__csv=GOOD), CSV, {"rules": [free_rule("(id + 9223372036854775806) * 2 > 0")]}, SourceError,
        r"\(filter, or rule of the contract\) fails on a row: .*overflow",
    ),
    "database without driver": (
        write(), {"kind": "jdbc", "url": "jdbc:mysql://127.0.0.1:1/x", "query": "t"}, {}, SourceError,
        "jdbc:mysql://127.0.0.1:1/x#t: .*No suitable driver.*; put the driver on spark.jars.packages",
    ),
    "no Hive table": (
        write(), {"kind": "hive", "table": "nowhere.visits"}, {}, SourceError, "nowhere.visits: no such table in the meta",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_input_that_cannot_be_accounted_for_is_refused_and_nothing_is_written(
    spark: SparkSession, folder: Path, case: str
) -> None:
    make, learn, changes, exception, message = REFUSED[case]
    if case == "forbidden" and os.geteuid() == 0:
        pytest.skip("root may read every file")
    make(folder / "in")
    with pytest.raises(exception, match=message) as refused:
        prepare(spark, pipeline(folder, learn, visits(**changes)))
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "\tat " not in str(refused.value)
    assert isinstance(refused.value, MlsparkError)
    assert not (folder / "home").exists()


def test_text_in_a_number_column_of_parquet_is_quarantined_where_types_may_differ(
    spark: SparkSession, folder: Path
) -> None:
    write(a__parquet=AS_TEXT)(folder / "in")
    outcome = conformed(spark, folder, PARQUET)
    assert [reasons for _, reasons in outcome] == [[]] * 4 + [[("age", "type", "forty")]]


def test_row_that_breaks_a_rule_of_spark_alone_is_quarantined(spark: SparkSession, folder: Path) -> None:
    """Unknown, as for a missing name, is not broken; a value that `try_cast` does not take is missing."""
    rows = [line(name="7"), line(name="-7"), line(name="Ann"), line(name="")]
    (folder / "in" / "a.csv").write_text("".join(f"{row}\n" for row in rows))
    rule = free_rule("try_cast(name AS int) > 0")
    outcome = conformed(spark, folder, CSV, visits(rules=[rule], unique_key=[]))
    assert [reasons for _, reasons in outcome] == [[], [("", "odd", rule["expression"])], [], []]
