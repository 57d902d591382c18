"""Random numbers of rows, the same wherever and with whichever other rows they are drawn: numpy's Philox, vectorised.

`numpy.random.Philox` is a function of a key and a counter, but its interface draws for one of each at a time. Here the
counter holds the row, so that thousands of rows have their numbers at once: row r of an epoch gets those of
`numpy.random.Generator(numpy.random.Philox(key=[seed, epoch], counter=[0, r, purpose, place])).random(count)`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)[:, None]
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_ROUNDS = 10
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)
_WORD = 2**64 - 1
_BLOCK = 4
"""Numbers that one counter gives."""
_CHUNK = 8192  # counters at a time, so that they stay in the CPU's cache


def draw(
    seed: int, epoch: int, rows: NDArray[np.int64], counts: Sequence[int], *, place: int = 0
) -> list[NDArray[np.float64]]:
    """Return for each purpose the numbers of all rows, in [0, 1): arrays of (rows, count).

    Args:
        seed: of the run.
        epoch: epoch, from 0.
        rows: (n,) int64 of any value; equal ones get equal numbers.
        counts: numbers of each purpose, of which none changes those of another.
        place: tells apart what draws for the same rows.
    """
    num_blocks = [-(-count // _BLOCK) for count in counts]
    # Counters of one row, purpose after purpose: numpy counts before it draws, so the first one is 1.
    first = np.array([block + 1 for blocks in num_blocks for block in range(blocks)], np.uint64)
    purpose = np.array([number for number, blocks in enumerate(num_blocks) for _ in range(blocks)], np.uint64)
    words = np.empty((len(rows), len(first), _BLOCK), np.float64)
    step = max(1, _CHUNK // max(1, len(first)))
    for start in range(0, len(rows), step):
        ids = rows[start : start + step].astype(np.int64, copy=False).view(np.uint64)
        even = np.stack([np.tile(first, len(ids)), np.tile(purpose, len(ids))])
        odd = np.stack([np.repeat(ids, len(first)), np.full(len(ids) * len(first), place & _WORD, np.uint64)])
        even, odd = _philox(even, odd, (seed & _WORD, epoch & _WORD))
        part = words[start : start + step].reshape(-1, _BLOCK)
        part[:, 0::2], part[:, 1::2] = _unit(even).T, _unit(odd).T
    ends = np.cumsum(num_blocks)
    flat = words.reshape(len(rows), _BLOCK * len(first))
    return [
        flat[:, _BLOCK * (end - blocks) : _BLOCK * (end - blocks) + count]
        for end, blocks, count in zip(ends.tolist(), num_blocks, counts, strict=True)
    ]


def _philox(
    even: NDArray[np.uint64], odd: NDArray[np.uint64], key: tuple[int, int]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return words 0 and 2, and 1 and 3, of Philox 4x64 with ten rounds; the counters come the same way: (2, n)."""
    for number in range(_ROUNDS):
        keys = np.array([(word + number * weyl) & _WORD for word, weyl in zip(key, _WEYL, strict=True)], np.uint64)
        high, low = _high(even), even * _MULTIPLIERS
        even, odd = high[::-1] ^ odd ^ keys[:, None], low[::-1]
    return even, odd


def _high(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the high 64 bits of the 128 of each word times its multiplier."""
    low, high = words & _LOW, words >> _HALF
    by_low, by_high = _MULTIPLIERS & _LOW, _MULTIPLIERS >> _HALF
    middle = ((low * by_low) >> _HALF) + low * by_high  # below 2**64
    carried = (middle & _LOW) + high * by_low
    result: NDArray[np.uint64] = high * by_high + (middle >> _HALF) + (carried >> _HALF)
    return result


def _unit(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return words as numbers in [0, 1), as numpy's Generator does."""
    unit: NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit
