"""Events of a running training: rank 0 writes one small file each, the driver follows them."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mlspark import storage


class EventLog:
    """Writes events 1, 2, 3, ... to a folder. One writer: rank 0."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._number = 0

    def write(self, event: Mapping[str, Any]) -> None:
        """Write `event` (JSON values) as the next file."""
        self._number += 1
        storage.write_json(_file(self._uri, self._number), dict(event))


@contextmanager
def following(uri: str, on_event: Callable[[dict[str, Any]], None], *, poll_seconds: float = 0.5) -> Iterator[None]:
    """Call `on_event` from a thread for each event in folder `uri`, in order, exactly once, while the body runs.

    Events written before the body ends are delivered before this returns, also when the body raises. When `on_event`
    raises, no more events are delivered and its exception is raised at the end, unless the body raises one.
    """
    ended = threading.Event()
    failures: list[Exception] = []

    def follow() -> None:
        number = 1
        while True:
            is_last_look = ended.is_set()  # asked before looking: nothing written before the end is missed
            while (event := _read(_file(uri, number))) is not None:
                on_event(event)
                number += 1
            if is_last_look:
                return
            ended.wait(poll_seconds)

    def guarded() -> None:
        try:
            follow()
        except Exception as error:  # handed to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=guarded, name="training-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def _file(uri: str, number: int) -> str:
    return storage.join(uri, f"{number:06d}.json")


def _read(uri: str) -> dict[str, Any] | None:
    try:
        return dict(storage.read_json(uri))
    except FileNotFoundError:
        return None
