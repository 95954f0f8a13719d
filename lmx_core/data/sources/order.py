"""Random orders and draws that a key alone determines, on every machine and in every version of NumPy."""

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]
TABLED = 2**16
"""Orders of up to so many numbers are kept as a table; those of more are computed number by number, without memory."""
ROUNDS = 4
"""Enough for a random permutation (Luby and Rackoff, doi:10.1137/0217022)."""


def shuffled(numbers: Sequence[int] | Numbers, count: int, *key: int) -> Numbers:
    """What stands at these places of the order of `range(count)` that the key draws."""
    places = np.asarray(numbers, np.int64)
    return _table(count, key)[places].astype(np.int64) if count <= TABLED else _walked(places, count, key)


def drawn(numbers: Sequence[int] | Numbers, below: int, *key: int) -> Numbers:
    """For each number a draw of its own from `range(below)`."""
    random = _noise(np.asarray(numbers, np.int64).astype(np.uint64), _folded(key))
    return ((random >> np.uint64(11)).astype(np.float64) * (below / 2**53)).astype(np.int64)


@functools.lru_cache(maxsize=256)
def _table(count: int, key: tuple[int, ...]) -> NDArray[np.uint32]:
    random = _noise(np.arange(count, dtype=np.uint64), _folded(key))
    return np.argsort(random, kind="stable").astype(np.uint32)


def _walked(places: Numbers, count: int, key: tuple[int, ...]) -> Numbers:
    """A Feistel network permutes the next square number; what lands outside of `range(count)` goes on until inside."""
    side, keys = math.isqrt(count - 1) + 1, _round_keys(key)
    found = _feistel(places.astype(np.uint64), side, keys)
    while len(outside := np.flatnonzero(found >= count)):
        found[outside] = _feistel(found[outside], side, keys)
    return found.astype(np.int64)


def _feistel(numbers: Words, side: int, keys: Sequence[int]) -> Words:
    base = np.uint64(side)
    left, right = np.divmod(numbers, base)
    for key in keys:
        left, right = right, (left + _noise(right, key) % base) % base
    return left * base + right


def _noise(numbers: Words, key: int) -> Words:
    """SplitMix64 (doi:10.1145/2660193.2660195): the output that follows each number, for a start of its own."""
    x = numbers * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=256)
def _round_keys(key: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_folded((*key, i)) for i in range(ROUNDS))


def _folded(key: tuple[int, ...]) -> int:
    """One number of 64 bits for several."""
    folded = 0
    for part in key:
        folded = int(_noise(np.array([part % 2**64], np.uint64), folded)[0])
    return folded
