"""Arrays in memory that earlier ones no longer need: new memory costs a page fault for each page that is written to.

A batch of 128 pictures of 224 pixels has 19 MB. glibc gives so much back to the system whenever it is let go of, and the
faults took 35 to 400 us of a picture's 1,000.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_KEPT = 4  # of a size


def keep_what_is_freed() -> None:
    """Have glibc keep what this process frees in arrays of up to 16 MB for its next ones, as it does once it freed one.

    It gives each array above its threshold back to the system, and raises the threshold to the largest that it has freed.
    Threads that change pictures make and free arrays of 2 MB: the faults took half of their time. Row groups have some
    megabytes: of an epoch in the table's order the faults took a quarter.
    """
    np.empty(2**24, np.uint8)  # never written to


class ReusedMemory:
    """Makes uninitialised arrays, like np.empty; keeps the memory of a few that went, for the next ones of their size."""

    def __init__(self) -> None:
        self._free: dict[int, list[NDArray[np.uint8]]] = {}

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array; its memory is used again when neither it nor any view or tensor of it is left."""
        if dtype.hasobject:
            return np.empty(shape, dtype)
        num_bytes = math.prod(shape) * dtype.itemsize
        free = self._free.setdefault(num_bytes, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(num_bytes, np.uint8)
        return np.asarray(_Lent(memory, free)).view(dtype).reshape(shape)

    def clear(self) -> None:
        """Let go of what is kept."""
        self._free = {}


class _Lent:
    """Owner of an array's memory: goes with the last view of it."""

    def __init__(self, memory: NDArray[np.uint8], free: list[NDArray[np.uint8]]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory, self._free = memory, free

    def __del__(self) -> None:
        if len(self._free) < _MOST_KEPT:
            self._free.append(self._memory)
