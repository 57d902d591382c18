"""A row as a form: its pictures as files, all other columns in one field of JSON."""

from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from mlspark.contracts.contract import Contract
from mlspark.scoring.rest import bodies
from mlspark.scoring.rest.limits import Limits, Refused

MEDIA_TYPE = "multipart/form-data"
FIELD = "row"
"""Field with the columns that are no files, as a JSON object."""
_MOST_PARTS = 100


async def row(body: bytes, headers: Headers, contract: Contract, limits: Limits) -> dict[str, Any]:
    """Return a row: column -> JSON value, or the bytes of a file.

    Raises:
        Refused: 400, it is no form; 422, a part is neither the field `row` nor the file of a binary column, or stands there
            twice.
    """
    binary = {name: column for name, column in contract.names_by_header.items() if contract.column(column).is_binary}
    files = {*binary, *binary.values()}

    async def whole() -> AsyncIterator[bytes]:
        yield body

    parser = MultiPartParser(
        headers,
        whole(),  # type: ignore[arg-type]  # any iterator will do
        max_files=_MOST_PARTS,
        max_fields=_MOST_PARTS,
        max_part_size=limits.body_bytes,
    )
    try:
        parts = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise Refused(400, f"the body is no form ({str(error)[:200]})") from None
    columns: dict[str, Any] = {}
    seen: set[str] = set()
    for name, part in parts.multi_items():
        if name in seen:
            raise Refused(422, f"part {name[:100]!r} is given twice")
        seen.add(name)
        content = await part.read() if isinstance(part, UploadFile) else part.encode()
        if name in files:
            _add(columns, {name: content})
        elif name == FIELD:
            value = bodies.parsed(content)
            if not isinstance(value, dict):
                raise Refused(422, f"part {FIELD}: expected one object, column: value")
            _add(columns, value)
        else:
            raise Refused(
                422,
                f"part {name[:100]!r}: expected {FIELD} (a JSON object of columns) or a file for one of the binary columns "
                f"({', '.join(sorted(binary)) or 'there are none'})",
            )
    return columns


def _add(columns: dict[str, Any], more: dict[str, Any]) -> None:
    if twice := columns.keys() & more.keys():
        raise Refused(422, f"column {sorted(twice)[0][:100]!r} is given twice")
    columns |= more
