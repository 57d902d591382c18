"""A row as an example of what a model takes: typical values, so that it is nobody's. Runs anywhere."""

import base64
import datetime
from collections.abc import Mapping
from typing import Any

from mlspark.contracts.contract import ColumnRule, Contract
from mlspark.pictures.plain import grey

_EPOCH = datetime.datetime(1970, 1, 1)


def typical_row(contract: Contract, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return header -> the median of a number or moment, the commonest text; None where nothing is known.

    No row of the data is shown: a picture is grey all over. The values are JSON's: moments, decimals and pictures are texts.

    Args:
        contract: of the rows to be scored.
        profile: record of the table that the model was trained on (`features.profile`).
    """
    return {
        column.source_name: _typical(column, profile["columns"].get(column.name, {})) for column in contract.columns
    }


def _typical(column: ColumnRule, record: Mapping[str, Any]) -> Any:
    if column.media is not None:
        return base64.b64encode(grey(column.media)).decode()
    if record.get("values"):
        value = record["values"][0][0]
        return value == "true" if column.type == "boolean" else value
    if not record.get("quantiles"):
        return None
    median = record["quantiles"]["50"]
    match column.type.partition("(")[0]:
        case "date":
            return (_EPOCH + datetime.timedelta(days=round(median))).date().isoformat()
        case "timestamp":
            return (_EPOCH + datetime.timedelta(days=median)).isoformat(sep=" ", timespec="seconds")
        case "decimal":
            return str(round(median))
        case "float" | "double":
            return float(median)
        case _:
            return round(median)
