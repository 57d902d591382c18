"""Drafts of plain CSV files without Spark are those that Spark makes; every other file is left to it."""

import gzip
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from mlspark.contracts import contract as contracts
from mlspark.errors import ConfigError, ContractError, SourceError
from mlspark.intake import draft as drafts
from mlspark.sources import plain_csv
from mlspark.sources.csv import CsvSettings

POOLS = {
    "whole": [
        "0",
        "1",
        "-2",
        "+3",
        "2147483647",
        "-2147483648",
        "2147483648",
        "9223372036854775807",
        "-0",
        "+0",
        "12345678901",
    ],
    "long": [
        "9223372036854775808",
        "-9223372036854775809",
        "12345678901234567.25",
        "0.123456789012345678",
        "1" * 38,
        "1" * 39,
    ],
    "number": [
        "1.5",
        ".5",
        "-1.",
        "1e3",
        "1E-400",
        "1e400",
        "-1e400",
        "2.50",
        "0.30000000000000004",
        "1e22",
        "+.5e+2",
        "-0.0",
    ],
    "code": ["007", "00", "-01", "0x1", "0001-01-01", "0000-01-01", "01067", "+00.5", "1e", ".", "e5", "1_000"],
    "day": [
        "2024-02-29",
        "1999-12-31",
        "2023-02-29",
        "2024-13-01",
        "9999-12-31",
        "1000-01-01",
        "2024-1-1",
        "2024-02",
        "20240229",
    ],
    "moment": [
        "2024-02-29T11:00",
        "2024-02-29T12:00:00.5",
        "2024-01-01T23:59:59.123456",
        "1000-01-01T10:00:00.100",
        "2024-02-30 12:00",
        "2024-01-01 24:00:00",
        "1999-12-31 00:00:00",
    ],
    "word": ["true", "FALSE", "tRue", "yes", "y", "inf", "Infinity", "10D", "1f"],
    "marker": ["?", "NA", "N/A", "\\N", "-", "None", "nan", "NaN"],
    "text": [
        "M\u00fcller",
        "\U0001f600",
        "\u00a01",
        "\uff11",
        "a b",
        "#5",
        "it's",
        "a\\b",
        "1 2",
        "tru\u0435",
        "\u00bd",
    ],
    "none": [""],
}
MIXTURES = (
    *([kind] for kind in POOLS), ["whole", "number"],
    ["whole", "long"], ["whole", "none"], ["day", "moment"], ["day", "none"],
    ["whole", "marker"], ["number", "marker", "none"], ["word", "marker"], ["moment", "none"], list(POOLS),
)  # fmt: skip


def settings_of(file: Path, **settings: Any) -> CsvSettings:
    return CsvSettings(kind="csv", path=str(file), **settings)


def both(spark: SparkSession, settings: CsvSettings, **arguments: Any) -> tuple[Any, Any]:
    return drafts.draft_without_spark(settings, **arguments), drafts.draft_from(spark, settings, **arguments)


@pytest.mark.parametrize("seed", range(5))
def test_drafts_are_those_of_spark(spark: SparkSession, tmp_path: Path, seed: int) -> None:
    """Columns of all kinds, of numbers of rows on both sides of what keys and lists of values need."""
    draw = random.Random(seed)
    num_rows = draw.choice((1, 3, 99, 100, 130))
    ends, separator, has_header = draw.choice(("\n", "\r\n")), draw.choice(",;|\t"), draw.random() < 0.5
    columns = [[draw.choice(POOLS[draw.choice(kinds)]) for _ in range(num_rows)] for kinds in MIXTURES]
    columns += [[draw.choice(POOLS[kinds[0]][:2]) for _ in range(num_rows)] for kinds in MIXTURES]
    columns += [
        [str(n) for n in range(num_rows)],
        [f"+{n}" if n == 7 else str(n - (n == 8)) for n in range(num_rows)],
        [f"x{n}" for n in range(num_rows)],
        ["abcdef"[n % 6] for n in range(num_rows)],
        ["no" if n % 3 else "yes" for n in range(num_rows)],
    ]
    draw.shuffle(columns)
    blanks = ("", "", " ", "  ")
    rows = [
        separator.join(draw.choice(blanks) + value + draw.choice(blanks) for value in row)
        for row in zip(*columns, strict=True)
    ]
    names = [f" a b {place}" if place % 5 == 0 else f"Name{place}" for place in range(len(columns))]
    if has_header:
        rows.insert(0, separator.join(names))
    if draw.random() < 0.5:
        rows.insert(len(rows) // 2 or 1, "")
    file = tmp_path / "things.csv"
    file.write_bytes((ends.join(rows) + draw.choice(("", ends))).encode())
    label = names[3].strip() if has_header else "c4"
    missing = draw.choice(({}, {"*": "?"}, {"*": ["?", "NA", "1"], label: "true"})) if has_header else {}
    settings = settings_of(file, separator=separator, header=has_header, missing=missing)
    for closed in (True, False):
        plain, of_spark = both(spark, settings, name="things", label=label, closed=closed)
        assert plain is not None
        assert plain == of_spark


def test_census_is_drafted_as_by_spark(spark: SparkSession, adult: Path) -> None:
    names = ",".join(
        rule.name for rule in contracts.load(str(Path(__file__).parents[2] / "schemas" / "census.json")).columns
    )
    settings = settings_of(adult / "adult" / "adult.data", missing="?")
    plain, of_spark = both(spark, settings, name="census", label="income", columns=names, closed=True)
    assert plain is not None
    assert plain == of_spark


ROWS = "".join(f"{n},a{n % 3}\n" for n in range(5))


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (f'{ROWS}1,"a"\n', {}),
        (f"{ROWS}1,a,b\n", {}),
        (f"{ROWS}1\n", {}),
        (f"{ROWS} \n", {}),
        (f"{ROWS}1,a\rb\n", {}),
        (f"{ROWS}1,a\0b\n", {}),
        (f"{ROWS}1,a\tb\n", {}),
        (f"\ufeff{ROWS}", {}),
        (f"{ROWS}1,a\u2028b\n", {}),
        (f"{ROWS}1,a\ufffd\n", {}),
        (f"{ROWS}1,{'a' * 200}\n", {"max_line_bytes": 100}),
        (f"{ROWS}1,{'a' * 100_001}\n", {}),
        (f"\n{ROWS}", {"header": True}),
        (f"{ROWS}0,a0\n", {"header": True}),
        (f"a,a\n{ROWS}", {"header": True}),
        (f"a,\n{ROWS}", {"header": True}),
        (f"_mlspark_raw,a\n{ROWS}", {"header": True}),
        ("a,b\n", {"header": True}),
        ("1\n2\n", {}),
        ("", {}),
        (ROWS, {"comment": "#"}),
        (ROWS, {"filter": "c1 > 1"}),
        (ROWS, {"separator": "a"}),
        (ROWS, {"separator": ",a"}),
        (ROWS.encode("latin-1") + b"1,\xe4\n", {}),
        (gzip.compress(ROWS.encode(), mtime=0), {}),
        (f"{ROWS}1,2024-01-01 10:00:00+02:00\n", {}),
        (f"{ROWS}1,2024-01-01 1:00:00\n1,2024-01-01 10:00 PM\n", {}),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_spark(tmp_path: Path, content: str | bytes, settings: dict[str, Any]) -> None:
    file = tmp_path / "things.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    assert drafts.draft_without_spark(settings_of(file, **settings), name="things") is None


@pytest.mark.parametrize("path", ["", "*.csv", "_things.csv", "absent.csv", "hdfs://127.0.0.1:1/things.csv"])
def test_what_is_no_single_local_file_is_left_to_spark(tmp_path: Path, path: str) -> None:
    for name in ("things.csv", "_things.csv"):
        (tmp_path / name).write_text(ROWS)
    place = path if "://" in path else str(tmp_path / path)
    assert drafts.draft_without_spark(CsvSettings(kind="csv", path=place), name="things") is None


def test_large_file_is_left_to_spark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "things.csv"
    file.write_text(ROWS)
    assert drafts.draft_without_spark(settings_of(file), name="things") is not None
    monkeypatch.setattr(plain_csv, "MOST_BYTES", len(ROWS) - 1)
    assert drafts.draft_without_spark(settings_of(file), name="things") is None


def test_columns_of_another_number_are_left_to_spark_which_says_so(tmp_path: Path) -> None:
    file = tmp_path / "things.csv"
    file.write_text(ROWS)
    assert drafts.draft_without_spark(settings_of(file), name="things", columns="a,b,c") is None


@pytest.mark.parametrize(
    ("settings", "arguments", "error", "message"),
    [
        ({"header": True}, {"label": "z"}, ContractError, "label 'z' is not among the columns: a, b"),
        ({"header": True}, {"columns": "x,y"}, ConfigError, "--columns: the source names its columns itself"),
        ({}, {"columns": "x,x"}, ConfigError, "--columns x,x: a name is given twice"),
        ({"header": True, "missing": {"q": "?"}}, {}, SourceError, "missing: q: not a column, columns are a, b"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_as_by_spark(
    spark: SparkSession, tmp_path: Path, settings: Any, arguments: Any, error: type[Exception], message: str
) -> None:
    file = tmp_path / "things.csv"
    file.write_text(f"a,b\n{ROWS}")
    drafting: tuple[Callable[[], object], ...] = (
        lambda: drafts.draft_without_spark(settings_of(file, **settings), name="things", **arguments),
        lambda: drafts.draft_from(spark, settings_of(file, **settings), name="things", **arguments),
    )
    told = []
    for draft in drafting:
        with pytest.raises(error) as refused:
            draft()
        told.append(str(refused.value))
    assert message in told[0]
    assert told[0] == told[1]


def test_command_needs_no_java_for_a_plain_file(tmp_path: Path) -> None:
    file = tmp_path / "things.csv"
    file.write_text(f"a,b\n{ROWS}")
    command = [sys.executable, "-c", "from mlspark.commands.main import main; main()", "contract", "infer", str(file)]
    environment = os.environ | {"JAVA_HOME": str(tmp_path / "none"), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [*command, "--option", "header=true", "--label", "b"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert '{"name": "b", "type": "string", "nullable": false' in done.stdout
    assert "draft from 5 rows" in done.stderr
