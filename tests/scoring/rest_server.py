"""`mlspark serve` as a process of its own, and what is asked of it over real connections."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import mlflow

from mlspark.scoring.rest.server import TOKEN

from ..registry.example import ROW

RECORD = {**ROW, "moment": "2024-02-29 18:30:01", "day": "2024-02-29", "amount": "12.34"}
"""The example's row as JSON has it."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running server."""

    process: "subprocess.Popen[str]"
    host: str
    port: int
    said: list[str] = field(default_factory=list)
    """Lines of its log."""

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=120)

    def ask(self, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own; a body that is no bytes goes as JSON."""
        connection = self.connect()
        try:
            return asked(connection, path, body, **headers)
        finally:
            connection.close()

    def end(self, seconds: float = 120.0) -> int:
        """Ask it to end, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


def asked(connection: http.client.HTTPConnection, path: str, body: Any = None, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if body is not None:
        sent = {"content-type": "application/json", **sent}
    connection.request("GET" if body is None else "POST", path, body, sent)
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


@contextmanager
def serving(version: str, *options: str, token: str = "", host: str = "127.0.0.1") -> Iterator[Server]:
    """Yield a server that is ready, on a free port."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), TOKEN: token}
    program = "from mlspark.commands.main import main; main()"
    command = [sys.executable, "-c", program, "serve", version, "--port", "0", "--host", host, *options]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda stream: said.extend(stream), args=[process.stderr], daemon=True)
    reader.start()
    try:
        address = None
        for line in process.stdout:
            if address := re.search(r"answers at http://(.*):(\d+)$", line):
                break
        assert address is not None, "".join(said)
        yield Server(process, "127.0.0.1" if host == "0.0.0.0" else address[1].strip("[]"), int(address[2]), said)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
