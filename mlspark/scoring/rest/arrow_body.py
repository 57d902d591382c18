"""Rows and predictions as Arrow streams, read with the same distrust as any text from elsewhere."""

import struct
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import compute as pc

from mlspark.contracts.check_arrow import Broken
from mlspark.contracts.column_types import arrow_type, is_bytes, is_text
from mlspark.scoring.predictor import Verdicts
from mlspark.scoring.rest.answers import Served, refusal
from mlspark.scoring.rest.limits import Limits, Refused

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
_REFUSED = pa.list_(pa.struct([(name, pa.string()) for name in ("column", "rule", "value", "message")]))


def parsed(body: bytes, limits: Limits) -> pa.Table:
    """Return the rows of a stream, in memory of about the body's size.

    Raises:
        Refused: 400, it is no stream, damaged, or compressed (what it becomes is not known before); 413, it has more rows
            than `limits.rows`, or values that stand in it once and in many rows, and become larger than `limits.body_bytes`;
            422, a column's type is none that a contract has.
    """
    try:
        if any(map(_is_compressed, _messages(body))):
            raise Refused(400, "the stream is compressed; send it without compression")
        num_rows, batches = 0, []
        with pa.ipc.open_stream(pa.py_buffer(body)) as stream:
            for batch in stream:
                num_rows += batch.num_rows
                if num_rows > limits.rows:
                    raise Refused(413, f"more than {limits.rows:,} rows; send fewer in a request")
                batch.validate(full=True)
                batches.append(batch)
            table = pa.Table.from_batches(batches, stream.schema)
        _check_columns(table, limits)
    except (pa.ArrowException, OSError, ValueError, struct.error, IndexError) as error:
        raise Refused(400, f"the body is no Arrow stream that is taken: {' '.join(str(error).split())[:200]}") from None
    return table


def _check_columns(table: pa.Table, limits: Limits) -> None:
    for name, column in zip(table.column_names, table.columns, strict=True):
        _check_type(name, column.type)
        if pa.types.is_dictionary(column.type) and _dense_bytes(column) > limits.body_bytes:
            raise Refused(413, f"column {name[:100]}: repeats large values; send fewer rows in a request")


def _messages(body: bytes) -> Iterator[pa.ipc.Message]:
    yield from pa.ipc.MessageReader.open_stream(pa.py_buffer(body))


def _is_compressed(message: "pa.ipc.Message") -> bool:
    """Return whether a message's buffers are compressed, which pyarrow does not say: its fourth field names the codec."""
    metadata = message.metadata.to_pybytes()
    header = _field(metadata, struct.unpack_from("<I", metadata)[0], 2)
    if header is None or message.type not in ("record batch", "dictionary"):
        return False
    batch = header + int(struct.unpack_from("<I", metadata, header)[0])
    if message.type == "dictionary":
        data = _field(metadata, batch, 1)
        if data is None:
            return False
        batch = data + int(struct.unpack_from("<I", metadata, data)[0])
    return _field(metadata, batch, 3) is not None


def _field(metadata: bytes, table: int, number: int) -> int | None:
    """Return where a field of a flatbuffers table stands; None where the table has none."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    place = 4 + 2 * number
    if place >= struct.unpack_from("<H", metadata, vtable)[0]:
        return None
    offset = struct.unpack_from("<H", metadata, vtable + place)[0]
    return table + offset if offset else None


def _check_type(name: str, kind: pa.DataType) -> None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    element = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    is_plain = (
        pa.types.is_primitive(element) or pa.types.is_decimal(element) or pa.types.is_null(element)
        or pa.types.is_string(element) or pa.types.is_large_string(element)
        or pa.types.is_binary(element) or pa.types.is_large_binary(element)
    )  # fmt: skip
    if pa.types.is_decimal(element) and not (element.bit_width <= 128 and 0 <= element.scale <= element.precision):
        is_plain = False  # Python has none of some of these
    if not is_plain and not pa.types.is_fixed_size_list(kind):
        raise Refused(
            422, f"column {name[:100]}: type {str(kind)[:100]} is not taken; send numbers, texts, times or lists"
        )


def _dense_bytes(column: pa.ChunkedArray) -> int:
    """Return the bytes of a dictionary column when each row has its own value."""
    total = 0
    for chunk in column.chunks:
        values = chunk.dictionary
        if is_text(values.type) or is_bytes(values.type):
            lengths = pc.binary_length(values).take(chunk.indices)
        elif pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            lengths = pc.multiply(pc.list_value_length(values).take(chunk.indices), 8)
        else:
            continue
        total += pc.sum(lengths).as_py() or 0
    return total


def predicted(served: Served, verdicts: Verdicts, num_rows: int, first_row: int, *, is_reported: bool) -> pa.Table:
    """Return the predictions of n rows, null where a row is refused; reported, with what is wrong in a column `refused`."""
    columns: dict[str, pa.Array] = {}
    place = pa.nulls(num_rows, pa.int64())
    if len(verdicts.good):
        places: list[int | None] = [None] * num_rows
        for at, row in enumerate(verdicts.good.tolist()):
            places[row] = at
        place = pa.array(places, pa.int64())
    for name, kind in served.predictor.task.prediction_types.items():
        values = pa.array(verdicts.predictions[name].tolist(), arrow_type(kind))
        columns[name] = values.take(place)
    if is_reported:
        columns["refused"] = _by_row(verdicts.broken, num_rows, first_row)
    return pa.table(columns)


def _by_row(broken: tuple[Broken, ...], num_rows: int, first_row: int) -> pa.Array:
    by_row: list[list[dict[str, str]] | None] = [None] * num_rows
    for each in broken:
        told = refusal(each.moved(first_row))
        entry = {name: str(told[name]) for name in ("column", "rule", "value", "message")}
        by_row[each.row] = [*(by_row[each.row] or ()), entry]
    return pa.array(by_row, _REFUSED)


def to_bytes(table: pa.Table) -> bytes:
    """Return a table as a stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())
