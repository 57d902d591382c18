"""JSON lines over a connection, and how its two ends prove to each other that they know the same secret. Runs anywhere."""

import contextlib
import hmac
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

PROOF_BYTES = 4096
"""Bytes of a line by which an end proves that it knows the secret, and of a command."""


class Lines:
    """The lines that come over a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._rest = connection, b""

    def next(self, most_bytes: int, *, deadline: float | None = None) -> bytes:
        """Return the next line without its end; empty when the connection has ended.

        Args:
            most_bytes: of a line.
            deadline: on the clock of time.monotonic; None: wait for ever.

        Raises:
            ValueError: a longer line.
            OSError: the connection broke, or the deadline is over.
        """
        while b"\n" not in self._rest:
            if len(self._rest) > most_bytes:
                raise ValueError(f"a line of more than {most_bytes:,} bytes")
            if deadline is not None:
                self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            chunk = self._connection.recv(65_536)
            if not chunk:
                return b""
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def proof(token: str, who: str, nonce: str, hello: Mapping[str, Any]) -> str:
    """Return the HMAC by which `who` proves to know the token; the other end's nonce makes it good for once."""
    said = json.dumps([who, nonce, hello.get("nonce"), hello.get("rank"), hello.get("host"), hello.get("pid")])
    return hmac.new(token.encode(), said.encode(), "sha256").hexdigest()


def to_line(message: Mapping[str, Any]) -> bytes:
    """Return a message as a line."""
    return json.dumps(message).encode() + b"\n"


def end(connection: socket.socket) -> None:
    """End both directions of a connection, whoever waits for it."""
    with contextlib.suppress(OSError):  # the other end was faster
        connection.shutdown(socket.SHUT_RDWR)


def is_proof(answer: Mapping[str, Any], expected: str) -> bool:
    """Return whether the other end's answer holds the expected proof."""
    return hmac.compare_digest(str(answer.get("proof", "")).encode(), expected.encode())


def read_object(lines: Lines, *, deadline: float) -> dict[str, Any]:
    """Return the next line's JSON object.

    Raises:
        ValueError: it is none.
        OSError: as `Lines.next`.
    """
    value = json.loads(lines.next(PROOF_BYTES, deadline=deadline))
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {type(value).__name__}")
    return value
