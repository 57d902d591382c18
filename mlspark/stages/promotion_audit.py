"""The audit of promotion: a Delta table with a row for each decision. Driver; needs no JVM."""

import json
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
from deltalake import CommitProperties, write_deltalake
from pyarrow import fs

from mlspark import storage, tables
from mlspark.registry.decision import Decision

_SCHEMA = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("decided_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("model_name", pa.string(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("alias", pa.string(), nullable=False),
        pa.field("champion_before", pa.int64()),
        pa.field("champion_after", pa.int64()),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("mode", pa.string(), nullable=False),
        pa.field("user", pa.string(), nullable=False),
        pa.field("checks", pa.string(), nullable=False),
        pa.field("settings", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
    ]
)
_AS_JSON = ("checks", "settings")


def read(table: str, model_name: str) -> list[Decision]:
    """Return the decisions on versions of a model, oldest first; none where there is no table yet.

    Raises:
        TableError: the table's log cannot be read.
    """
    return [_decision(row) for row in _rows(table) if row["model_name"] == model_name]


def append(table: str, decision: Decision) -> None:
    """Add a decision to the table, which is made where there is none; one that is there already is left as it is.

    Only one process at a time may do so.

    Raises:
        TableError: the table's log cannot be read.
    """
    rows = _rows(table)
    if any(row["id"] == decision.id for row in rows):
        return
    row = {
        **decision.to_json(),
        "number": len(rows) + 1,
        "decided_at": datetime.fromisoformat(decision.decided_at),
        **{name: json.dumps(getattr(decision, name), ensure_ascii=False) for name in _AS_JSON},
    }
    is_s3 = isinstance(storage.filesystem(table)[0], fs.S3FileSystem)
    write_deltalake(
        storage.rust_uri(table),
        pa.Table.from_pylist([row], schema=_SCHEMA),
        mode="append",
        storage_options={"conditional_put": "etag"} if is_s3 else None,
        commit_properties=CommitProperties(
            custom_metadata={"userMetadata": json.dumps({"mlspark": {"id": decision.id}})}
        ),
    )


def _rows(table: str) -> Sequence[dict[str, object]]:
    """Return the table's rows, oldest first."""
    if not tables.exists(table):
        return []
    rows: list[dict[str, object]] = tables.opened(table).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: row["number"])  # type: ignore[arg-type,return-value]


def _decision(row: dict[str, object]) -> Decision:
    fields = {name: value for name, value in row.items() if name != "number"}
    moment = row["decided_at"]
    assert isinstance(moment, datetime)
    return Decision.from_json(
        {**fields, "decided_at": moment.isoformat(), **{name: json.loads(str(row[name])) for name in _AS_JSON}}
    )
