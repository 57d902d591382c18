"""The line between the driver and its ranks: heartbeats, events and failures one way, the word to stop the other.

One TCP connection per rank, JSON lines, on the address that executors reach the driver at and no other. Each end proves
that it knows the run's token without sending it: an HMAC of what the other end has just drawn. A connection is not made
again: a rank that loses its driver ends, and is started again with the others from their last checkpoint.

Heartbeats are read in one thread for each rank, events are handled in another one: a handler may be slow.
"""

import contextlib
import json
import logging
import os
import queue
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlspark.training import events
from mlspark.training.events import Event, OnEvent
from mlspark.training.json_lines import PROOF_BYTES, Lines, end, is_proof, proof, read_object, to_line
from mlspark.training.rank_supervisor import GRACE_SECONDS

logger = logging.getLogger(__name__)

ADDRESS, TOKEN, HEARTBEAT = "MLSPARK_DRIVER", "MLSPARK_TOKEN", "MLSPARK_HEARTBEAT"
"""Variables of a rank's environment: where its driver listens, what both know, seconds between two heartbeats."""
FUNCTIONS = "MLSPARK_FUNCTIONS"
"""Variable with the path of a file of pickled (model, loss), written by the Spark task that started the rank."""

_PROOF_SECONDS = 10.0
"""Seconds that a connection may take to prove that it knows the token."""
_MOST_UNPROVEN = 32
"""Connections that have not proved it yet; one more ends the oldest of them, so that ranks always get in."""
_MOST_BYTES = 2**22
"""Bytes of a line; ranks send less, as `rank` shortens what it reports."""
_CONNECT_SECONDS = 30.0
_DELIVERY_SECONDS = 60.0
"""Seconds that the handler of events may take, once the ranks have ended, for those that wait."""

Message = dict[str, Any]


class Stopped(Exception):
    """The rank was asked to end, and has left a checkpoint if it could."""

    def __init__(self, step: int) -> None:
        super().__init__(f"asked to end at step {step}")
        self.step = step
        self.is_by_driver = False
        """Whether the driver asked: then this is how the rank should end."""


@dataclass
class RankState:
    """What the driver knows of a rank."""

    host: str = ""
    pid: int = 0
    seen: float = 0.0
    """Time of its last message, on the clock of time.monotonic."""
    is_ready: bool = False
    """Whether it has imported what it needs. Until then it may be silent for longer: imports stop heartbeats."""
    closed: float | None = None
    """Time at which its connection ended; None: it is open."""
    done: float | None = None
    """Time at which it had trained and left its result; None: it has not."""
    stopped_step: int | None = None
    """Step after which it ended because it was asked to."""
    failure: Message | None = None


@dataclass
class Listener:
    """The driver's end, for the ranks of one attempt."""

    host: str
    """Address to listen on."""
    world_size: int
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

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                listener._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

            def process_request(self, request: Any, client_address: Any) -> None:
                listener._admit(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                logger.warning("a connection to the driver failed", exc_info=True)

        self._lock = threading.Lock()
        self._unproven: dict[socket.socket, None] = {}  # in the order in which they came
        self._connections: dict[int, socket.socket] = {}
        self._events: queue.SimpleQueue[Event | threading.Event | None] = queue.SimpleQueue()
        self._server = Server((self.host, 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="ranks", daemon=True).start()
        threading.Thread(target=self._handle_events, name="events", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            open_ones = [*self._unproven, *self._connections.values()]
        for connection in open_ones:
            end(connection)
        self._events.put(None)

    @property
    def address(self) -> str:
        return f"{self.shown_host or self.host}:{self._server.server_address[1]}"

    @property
    def all_are_done(self) -> bool:
        """Whether every rank has left its result."""
        return sum(state.done is not None for state in self.ranks.values()) == self.world_size

    @property
    def stopped_step(self) -> int | None:
        """Step after which the run was stopped, None where no rank has said so."""
        steps = [state.stopped_step for state in self.ranks.values() if state.stopped_step is not None]
        return max(steps, default=None)

    def stop(self) -> None:
        """Ask all ranks to write a checkpoint and end."""
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            with contextlib.suppress(OSError):  # it has ended already
                connection.sendall(b'{"command": "stop"}\n')

    def wait_closed(self, seconds: float) -> bool:
        """Return whether all ranks that were ever heard from are gone, at the latest after `seconds`."""
        deadline = time.monotonic() + seconds
        while any(state.closed is None for state in list(self.ranks.values())):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def deliver(self, event: Event) -> None:
        """Have `on_event` called after the events before, unless it has raised; what it raises is kept in `error`."""
        self._events.put(event)

    def wait_delivered(self, seconds: float = _DELIVERY_SECONDS) -> None:
        """Return when all events so far are handled, at the latest after `seconds`, with a warning then."""
        marker = threading.Event()
        self._events.put(marker)
        if not marker.wait(seconds):
            logger.warning("the handler of training events has been busy for %.0f s; it is left behind", seconds)

    def _handle_events(self) -> None:
        while (event := self._events.get()) is not None:
            if isinstance(event, threading.Event):
                event.set()
            elif self.error is None:
                try:
                    self.on_event(event)
                except Exception as error:  # handed to the thread that launched
                    self.error = error

    def _admit(self, connection: socket.socket) -> None:
        """Take note of a connection; end the oldest silent one where there are too many."""
        with self._lock:
            self._unproven[connection] = None
            oldest = next(iter(self._unproven)) if len(self._unproven) > _MOST_UNPROVEN else None
            if oldest is not None:
                del self._unproven[oldest]
        if oldest is not None:
            end(oldest)

    def _serve(self, connection: socket.socket) -> None:
        lines, state, rank = Lines(connection), None, -1
        try:
            hello = self._proven(connection, lines)
            with self._lock:
                self._unproven.pop(connection, None)
                if hello is None or not self._may_join(hello):
                    return
                rank = hello["rank"]
                state = self.ranks[rank] = RankState(str(hello["host"]), int(hello["pid"]), seen=time.monotonic())
                self._connections[rank] = connection
            connection.settimeout(None)
            while line := lines.next(_MOST_BYTES):
                state.seen = time.monotonic()
                self._take(state, json.loads(line))
        except (OSError, ValueError, KeyError, TypeError) as error:
            # A rank that is killed in the middle of a line leaves the end of the connection, which is no error.
            if state is not None:
                logger.warning("rank %d on %s: its line to the driver broke: %s", rank, state.host, error)
        finally:
            with self._lock:
                self._unproven.pop(connection, None)
                if state is not None:
                    del self._connections[rank]
            if state is not None:
                state.closed = time.monotonic()

    def _proven(self, connection: socket.socket, lines: Lines) -> Message | None:
        """Return what the other end says of itself, once it has proved that it knows the token; None where it has not."""
        deadline, nonce = time.monotonic() + _PROOF_SECONDS, secrets.token_hex(16)
        connection.settimeout(_PROOF_SECONDS)
        connection.sendall(to_line({"nonce": nonce}))
        hello = read_object(lines, deadline=deadline)
        if not is_proof(hello, proof(self.token, "rank", nonce, hello)):
            return None
        connection.sendall(to_line({"proof": proof(self.token, "driver", nonce, hello)}))
        return hello

    def _may_join(self, hello: Message) -> bool:
        rank = hello["rank"]
        if type(rank) is not int or not 0 <= rank < self.world_size or rank in self.ranks:
            logger.warning("a connection to the driver says it is rank %r of %d: refused", rank, self.world_size)
            return False
        return True

    def _take(self, state: RankState, message: Message) -> None:
        kind = message.pop("kind")
        if kind == "ready":
            state.is_ready = True
        elif kind == "failed":
            state.failure = message
        elif kind == "stopped":
            state.stopped_step = int(message["step"])
        elif kind == "done":
            state.done = time.monotonic()
        elif kind == "event":
            self.deliver(events.from_json(message))


class Link:
    """A rank's end. Without a driver in the environment (a rank started by torchrun) it reports nothing."""

    def __init__(self, rank: int, *, heartbeat_seconds: float, on_loss: Callable[[], object] = lambda: None) -> None:
        """Connect, and send heartbeats from now on.

        Args:
            rank: number of this rank.
            heartbeat_seconds: seconds between two heartbeats.
            on_loss: called in another thread when the driver is gone and the rank, which is asked to stop then, has not
                closed the link within rank_supervisor.GRACE_SECONDS.

        Raises:
            OSError: the driver cannot be reached, or what listens there is not this run's driver.
        """
        self.should_stop = threading.Event()
        self.is_told_to_stop = False
        """Whether the driver has asked for it, and so knows why the ranks end."""
        self._on_loss = on_loss
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        if ADDRESS not in os.environ:
            return
        host, _, port = os.environ[ADDRESS].rpartition(":")
        self._socket, lines = _connected(host, int(port), rank)
        threading.Thread(target=self._send_heartbeats, args=(heartbeat_seconds,), name="heartbeat", daemon=True).start()
        threading.Thread(target=self._follow, args=(lines,), name="commands", daemon=True).start()

    def ready(self) -> None:
        """Say that all imports are made: from now on heartbeats come in time."""
        self._send({"kind": "ready"})

    def event(self, event: Event) -> None:
        self._send({"kind": "event", **event.to_json()})

    def failed(self, failure: Mapping[str, Any]) -> None:
        self._send({"kind": "failed", **failure})

    def stopped(self, step: int) -> None:
        """Say that the rank ends after `step`, as it was asked to."""
        self._send({"kind": "stopped", "step": step})

    def done(self) -> None:
        self._send({"kind": "done"})

    def close(self) -> None:
        """End the connection: the driver takes it as the rank's end."""
        self._is_closed = True
        if self._socket is not None:
            end(self._socket)  # the thread that follows holds it open, too
            self._socket.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._socket is None:
            return
        # `_follow` notices the end of the connection as well, and ends the rank.
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(to_line(message))

    def _send_heartbeats(self, heartbeat_seconds: float) -> None:
        while not self._is_closed:
            self._send({"kind": "heartbeat"})
            time.sleep(heartbeat_seconds)

    def _follow(self, lines: Lines) -> None:
        with contextlib.suppress(OSError, ValueError):
            while line := lines.next(PROOF_BYTES):
                if json.loads(line).get("command") == "stop":
                    self.is_told_to_stop = True
                    self.should_stop.set()
        if not self._is_closed:  # the driver is gone: time for a checkpoint, then the end
            self.should_stop.set()
            time.sleep(GRACE_SECONDS)
            if not self._is_closed:
                self._on_loss()


def _connected(host: str, port: int, rank: int) -> tuple[socket.socket, Lines]:
    """Return a rank's connection to its driver, and the lines that come over it."""
    deadline, cause = time.monotonic() + _CONNECT_SECONDS, OSError("no answer")
    while True:
        connection = None
        try:
            connection = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
            lines = Lines(connection)
            _prove(connection, lines, rank)
        except ConnectionRefusedError as error:
            cause, deadline = error, 0.0
        except (OSError, ValueError) as error:  # ended unheard, among too many: once more
            cause = OSError(str(error))
        else:
            connection.settimeout(None)
            return connection, lines
        if connection is not None:
            connection.close()
        if time.monotonic() > deadline:
            raise OSError(
                f"cannot reach the driver at {host}:{port} ({cause}); executors must reach the address "
                f"spark.driver.host of the driver, on any port"
            ) from cause
        time.sleep(0.2)


def _prove(connection: socket.socket, lines: Lines, rank: int) -> None:
    """Prove to the driver that this is one of its ranks, and have it prove that it is their driver."""
    deadline, token = time.monotonic() + _CONNECT_SECONDS, os.environ[TOKEN]
    nonce = str(read_object(lines, deadline=deadline).get("nonce"))
    hello = {"rank": rank, "host": socket.gethostname(), "pid": os.getpid(), "nonce": secrets.token_hex(16)}
    connection.sendall(to_line({**hello, "proof": proof(token, "rank", nonce, hello)}))
    answer = read_object(lines, deadline=deadline)
    if not is_proof(answer, proof(token, "driver", nonce, hello)):
        raise OSError("what listens there is not this run's driver")
