"""The line between the driver and its ranks: heartbeats, events and failures one way, the word to stop the other.

One TCP connection per rank, JSON lines, on the address that executors reach the driver at and no other. A message counts
only after the run's token. A connection is not made again: a rank that loses its driver ends, and is started again with
the others from their last checkpoint.
"""

import contextlib
import hmac
import json
import logging
import os
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlspark.training import events
from mlspark.training.events import Event, OnEvent
from mlspark.training.rank_supervisor import GRACE_SECONDS

logger = logging.getLogger(__name__)

ADDRESS, TOKEN = "MLSPARK_DRIVER", "MLSPARK_TOKEN"
"""Variables of a rank's environment: where its driver listens, and what it accepts."""
FUNCTIONS = "MLSPARK_FUNCTIONS"
"""Variable with the path of a file of pickled (model, loss), written by the Spark task that started the rank."""

Message = dict[str, Any]


@dataclass
class RankState:
    """What the driver knows of a rank."""

    host: str = ""
    pid: int = 0
    seen: float = 0.0
    """Time of its last message, on the clock of time.monotonic."""
    closed: float | None = None
    """Time at which its connection ended; None: it is open."""
    is_done: bool = False
    """Whether it has trained and left its result."""
    failure: Message | None = None


@dataclass
class Listener:
    """The driver's end, for the ranks of one attempt."""

    host: str
    """Address to listen on."""
    on_event: OnEvent
    """Function that is called for each event of rank 0, in order, in a thread of this listener."""
    shown_host: str = ""
    """Address at which ranks reach it, where that is another one."""
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    ranks: dict[int, RankState] = field(default_factory=dict)
    error: Exception | None = None
    """Error that `on_event` raised, after which it is not called again."""

    def __enter__(self) -> "Listener":
        listener = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                listener._serve(self)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._lock, self._streams = threading.Lock(), list[socketserver.StreamRequestHandler]()
        self._server = Server((self.host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="ranks", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"{self.shown_host or self.host}:{self._server.server_address[1]}"

    def stop(self) -> None:
        """Ask all ranks to write a checkpoint and end."""
        with self._lock:
            streams = list(self._streams)
        for stream in streams:
            with contextlib.suppress(OSError):  # it has ended already
                stream.wfile.write(b'{"command": "stop"}\n')

    def wait_closed(self, seconds: float) -> bool:
        """Return whether all ranks that were ever heard from are gone, at the latest after `seconds`."""
        deadline = time.monotonic() + seconds
        while any(state.closed is None for state in self.ranks.values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def deliver(self, event: Event) -> None:
        """Call `on_event`, unless it has raised before; what it raises is kept in `error`."""
        if self.error is None:
            try:
                self.on_event(event)
            except Exception as error:  # handed to the thread that launched
                self.error = error

    def _serve(self, stream: socketserver.StreamRequestHandler) -> None:
        try:
            hello = json.loads(stream.rfile.readline(4096) or b"{}")
        except ValueError:
            return
        if not hmac.compare_digest(str(hello.get("token", "")), self.token):
            return
        state = self.ranks.setdefault(hello["rank"], RankState(hello["host"], hello["pid"], seen=time.monotonic()))
        with self._lock:
            self._streams.append(stream)
        try:
            for line in stream.rfile:
                state.seen = time.monotonic()
                self._take(state, json.loads(line))
        except (OSError, ValueError):
            pass  # it was killed in the middle of a line
        finally:
            state.closed = time.monotonic()
            with self._lock:
                self._streams.remove(stream)

    def _take(self, state: RankState, message: Message) -> None:
        kind = message.pop("kind")
        if kind == "failed":
            state.failure = message
        elif kind == "done":
            state.is_done = True
        elif kind == "event":
            self.deliver(events.from_json(message))


class Link:
    """A rank's end. Without a driver in the environment (a rank started by torchrun) it reports nothing."""

    def __init__(self, rank: int, *, heartbeat_seconds: float) -> None:
        """Connect, and send heartbeats from now on.

        Raises:
            OSError: the driver cannot be reached.
        """
        self.should_stop = threading.Event()
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        if ADDRESS not in os.environ:
            return
        host, _, port = os.environ[ADDRESS].rpartition(":")
        try:
            self._socket = socket.create_connection((host, int(port)), timeout=30.0)
        except OSError as error:
            raise OSError(
                f"cannot reach the driver at {host}:{port} ({error}); executors must reach the address "
                f"spark.driver.host of the driver, on any port"
            ) from error
        self._socket.settimeout(None)
        self._send({"token": os.environ[TOKEN], "rank": rank, "host": socket.gethostname(), "pid": os.getpid()})
        threading.Thread(target=self._send_heartbeats, args=(heartbeat_seconds,), name="heartbeat", daemon=True).start()
        threading.Thread(target=self._follow, args=(self._socket,), name="commands", daemon=True).start()

    def event(self, event: Event) -> None:
        self._send({"kind": "event", **event.to_json()})

    def failed(self, failure: Mapping[str, Any]) -> None:
        self._send({"kind": "failed", **failure})

    def done(self) -> None:
        self._send({"kind": "done"})

    def close(self) -> None:
        """End the connection: the driver takes it as the rank's end."""
        self._is_closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the driver was faster
                self._socket.shutdown(socket.SHUT_RDWR)  # the thread that follows holds it open, too
            self._socket.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is None:
            return
        # `_follow` notices the end of the connection as well, and ends the rank.
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _send_heartbeats(self, heartbeat_seconds: float) -> None:
        while not self._is_closed:
            self._send({"kind": "heartbeat"})
            time.sleep(heartbeat_seconds)

    def _follow(self, connection: socket.socket) -> None:
        try:
            with connection.makefile("rb") as lines:
                for line in lines:
                    if json.loads(line).get("command") == "stop":
                        self.should_stop.set()
        except (OSError, ValueError):
            pass
        if not self._is_closed:  # the driver is gone: time for a checkpoint, then the end
            self.should_stop.set()
            time.sleep(GRACE_SECONDS)
            if not self._is_closed:
                os._exit(1)
