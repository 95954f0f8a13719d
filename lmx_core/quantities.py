"""Numbers as people read them."""

from collections.abc import Sequence
from itertools import pairwise

BINARY = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
DECIMAL = ("", "thousand", "million", "billion", "trillion", "quadrillion")


def in_bytes(n: int) -> str:
    """`1.5 GiB`: three digits, and units of 1024."""
    return _scaled(n, 1024, BINARY)


def in_words(n: int) -> str:
    """`6.74 billion`: three digits."""
    return _scaled(n, 1000, DECIMAL).strip()


def ranges(numbers: Sequence[int]) -> str:
    """`0-4, 6-10, 12`, or `0, 2, ..., 24` where four or more are equally far apart."""
    steps = {b - a for a, b in pairwise(numbers)}
    if len(numbers) > 3 and len(steps) == 1 and 1 not in steps:
        return f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _scaled(n: int, base: int, units: Sequence[str]) -> str:
    i, scaled = 0, float(n)
    while scaled >= base and i + 1 < len(units):
        i, scaled = i + 1, scaled / base
    digits = f"{scaled:.0f}" if scaled >= 100 or i == 0 else f"{scaled:.3g}"
    return f"{digits} {units[i]}"
