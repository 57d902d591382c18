"""Bodies of requests, read within limits; JSON as it is meant, with nothing chosen in silence."""

import json
from typing import Any

from starlette.requests import ClientDisconnect, Request

from mlspark.scoring import rows_of_json
from mlspark.scoring.rest.limits import Limits, Refused

_CLOSE = {"connection": "close"}
"""After a request whose body is not read to its end."""


async def read(request: Request, limits: Limits) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: 413, it has more bytes than `limits.body_bytes`; 415, it is compressed; 400, the sender went away.
    """
    too_large = Refused(
        413, f"the body has more than {limits.body_bytes:,} bytes; send fewer rows in a request", headers=_CLOSE
    )
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise Refused(415, f"content-encoding {encoding!r} is not taken; send the body as it is", headers=_CLOSE)
    declared = request.headers.get("content-length", "")
    length = int(declared) if declared.isdigit() else 0
    if length > 2 * limits.body_bytes:
        raise too_large
    chunks, num_bytes = [], 0
    try:
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes <= limits.body_bytes:
                chunks.append(chunk)
            elif length < num_bytes:  # it has not said where it ends
                raise too_large
    except ClientDisconnect:
        raise Refused(400, "the body ended before its end", headers=_CLOSE) from None
    if num_bytes > limits.body_bytes:
        # After all of it, where it is not much more: who is still sending does not look at an answer.
        raise too_large
    return b"".join(chunks)


def media_type(request: Request) -> str:
    """Return the type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parsed(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        Refused: 400, it is no JSON: not in UTF-8, NaN, an object with a key twice, nested too deeply, a number of thousands
            of digits; says where.
    """
    try:
        return rows_of_json.parsed(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Refused(400, f"the body is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise Refused(400, f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise Refused(400, "the body is nested too deeply; a row is an object of column: value") from None
    except ValueError as error:  # also of a number with more digits than Python reads
        raise Refused(400, f"the body is not JSON that is taken: {str(error)[:200]}") from None
