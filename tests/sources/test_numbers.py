"""Numbers in JSON keep their digits, or make their row bad."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from .conftest import ANN, conformed

DIGITS = "123456789" * 4 + "012"


def line(number: str, **others: Any) -> str:
    """A row whose name is a number, as it stands there."""
    text = json.dumps(ANN | {"name": "NUMBER"} | others)
    return text.replace('"NUMBER"', number)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (DIGITS[:38], None),
        ("0.1", None),
        ("1.5e3", None),
        (f'"{DIGITS}1e400"', None),
        (DIGITS, "number with too many digits: name"),
        (f"-0.{DIGITS}", "number with too many digits: name"),
        ("1e400", "number with too many digits: name"),
        ("1.23456789012345678901e5", "number with too many digits: name"),
    ],
)
def test_numbers_keep_their_digits_or_are_bad(
    spark: SparkSession, folder: Path, number: str, reason: str | None
) -> None:
    (folder / "in" / "a.json").write_text(line(number, other=1e300) + "\n")
    [(_, reasons)] = conformed(spark, folder, {"kind": "json", "path": "in"})
    assert [found[2] for found in reasons] == ([] if reason is None else [reason])
