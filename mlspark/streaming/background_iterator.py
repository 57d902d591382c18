"""An iterator that runs in a thread, ahead of its consumer."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

Item = TypeVar("Item")


class BackgroundIterator(Iterator[Item]):
    """Runs an iterator in a thread, some items ahead; raises here what it raised there."""

    def __init__(self, items: Iterable[Item], num_ahead: int) -> None:
        self._items: queue.Queue[tuple[bool, Any]] = queue.Queue(num_ahead)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, args=(items,), name="mlspark-gather", daemon=True)
        self._thread.start()

    def __next__(self) -> Item:
        is_item, item = self._items.get()
        if is_item:
            return item  # type: ignore[no-any-return]
        self._put(False, item)  # for the next call
        if item is None:
            raise StopIteration
        raise item

    def ignore_what_comes(self) -> None:
        """Drop items and errors that come from now on: before what the iterator needs is taken away, and `close` follows."""
        self._is_closed = True

    def close(self, error: BaseException) -> None:
        """End the thread; what waits in the queue is dropped, and `error` raised by whoever waits for an item."""
        self._is_closed = True
        while self._thread.is_alive():
            self._drop()
            self._thread.join(0.01)
        self._drop()
        self._items.put((False, error))

    def _drop(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._items.get_nowait()

    def _run(self, items: Iterable[Item]) -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not self._put(True, item):
                    break
            self._put(False, None)
        except BaseException as error:  # raised again where the consumer is
            self._put(False, error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def _put(self, is_item: bool, item: Any) -> bool:
        while not self._is_closed:
            try:
                self._items.put((is_item, item), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
