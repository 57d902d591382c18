"""Spark's xxhash64 outside Spark, and tables that find a text by it in constant time. Runs anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import xxhash
from numpy.typing import NDArray

SEED = 42
"""Seed of Spark's function xxhash64."""
_MOST_SHIFT = 40
_SMALLEST = 8
_MOST_OF_ONE_SHIFT = 64
"""Most texts for which one shift for all is looked for: of more, some always meet."""


def xxhash64(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return Spark's `xxhash64(text)` of each text: shape (n,)."""
    hashes = [xxhash.xxh64_intdigest(text.encode(), seed=SEED) for text in texts]
    return np.array(hashes, np.uint64).view(np.int64)


@dataclass(frozen=True)
class PerfectTable:
    """A place of its own for each of some different texts, found by their hash h.

    The place is (h >>> shifts[h & (len(shifts) - 1)]) & (size - 1): texts that meet in a bucket are separated by other
    bits of their hashes ("hash and displace": Belazzougui, Botelho, Dietzfelbinger 2009, with a shift as displacement).
    A text that is not among them has a place, too, so what is there must be compared.
    """

    shifts: tuple[int, ...]
    """Shift of each bucket; their number is a power of two."""
    size: int
    """Number of places, a power of two."""
    places: tuple[int, ...]
    """Place of each text, in the texts' order."""


def perfect_table(texts: Sequence[str]) -> PerfectTable:
    """Return a table for `texts`, which differ; some four places for each."""
    hashes = [int(value) for value in xxhash64(texts).view(np.uint64)]
    assert len(set(hashes)) == len(hashes), "two texts of the same 64-bit hash"
    smallest = max(_SMALLEST, 1 << (4 * len(texts) - 1).bit_length()) if texts else _SMALLEST
    return next(table for power in count() if (table := _placed(hashes, smallest << power)) is not None)


def _placed(hashes: Sequence[int], size: int) -> PerfectTable | None:
    """Return a table of `size` places, None if some bucket's texts cannot be separated there."""
    for shift in range(_MOST_SHIFT if len(hashes) <= _MOST_OF_ONE_SHIFT else 0):
        wanted = [(value >> shift) & (size - 1) for value in hashes]
        if len(set(wanted)) == len(wanted):
            return PerfectTable((shift,), size, tuple(wanted))
    buckets: dict[int, list[int]] = {}
    num_buckets = size // 8
    for index, value in enumerate(hashes):
        buckets.setdefault(value & (num_buckets - 1), []).append(index)
    shifts, places = [0] * num_buckets, [-1] * len(hashes)
    taken = bytearray(size)
    for bucket, members in sorted(buckets.items(), key=lambda item: (-len(item[1]), item[0])):
        for shift in range(_MOST_SHIFT):
            wanted = [(hashes[index] >> shift) & (size - 1) for index in members]
            if len(set(wanted)) == len(wanted) and not any(taken[place] for place in wanted):
                break
        else:
            return None
        shifts[bucket] = shift
        for index, place in zip(members, wanted, strict=True):
            places[index] = place
            taken[place] = 1
    return PerfectTable(tuple(shifts), size, tuple(places))
