"""Raw rows as JSON: an object, a list of them, one a line, or the body that MLflow's REST server takes. Runs anywhere.

What has two meanings is refused, as `mlspark serve` refuses it: a key twice in an object, NaN.
"""

import json
from collections.abc import Mapping
from typing import Any

from mlspark.errors import ConfigError

Row = Mapping[str, Any]

_FORMS = "an object for each row, in a list or one a line, or dataframe_records or dataframe_split as MLflow takes them"


def rows_of(text: str, name: str) -> list[Row]:
    """Return the rows of a text.

    Args:
        text: JSON.
        name: of the file, for messages.

    Raises:
        ConfigError: not JSON, or not of rows.
    """
    try:
        value = parsed(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].rstrip().endswith("}"):
            raise ConfigError(f"{name}: not JSON: {error}; give {_FORMS}") from None
        return [_row(_line(line, number, name), f"{name}: row {number}") for number, line in enumerate(lines)]
    if isinstance(value, dict) and set(value) <= {"dataframe_records", "params"} and "dataframe_records" in value:
        value = value["dataframe_records"]
    elif isinstance(value, dict) and set(value) <= {"dataframe_split", "params"} and "dataframe_split" in value:
        value = _split(value["dataframe_split"], name)
    values = value if isinstance(value, list) else [value]
    return [_row(row, f"{name}: row {number}") for number, row in enumerate(values)]


def parsed(text: str) -> Any:
    """Return the value of a JSON text in which nothing is chosen in silence.

    Raises:
        ValueError: it is no JSON, has NaN or an infinity, an object with a key twice, or a number of thousands of digits.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice[:100]!r} is given twice in one object")
    return value


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON; a missing value is null")


def _line(line: str, number: int, name: str) -> Any:
    try:
        return parsed(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: row {number}: not JSON: {error}; give one object a line") from None


def _row(row: Any, name: str) -> Row:
    if not isinstance(row, dict):
        raise ConfigError(f"{name} is {type(row).__name__}, no object of columns; give {_FORMS}")
    return row


def _split(value: Any, name: str) -> list[Any]:
    """Return the rows of {"columns": [...], "data": [[...], ...]}."""
    try:
        columns, data = list(value["columns"]), list(value["data"])
        return [dict(zip(columns, row, strict=True)) for row in data]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{name}: dataframe_split: not columns and rows of as many values ({error})") from None
