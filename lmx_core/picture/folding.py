"""Many layers as a few rows."""

from collections.abc import Sequence
from itertools import groupby

import attrs

FEW, MANY = 8, 9
"""Up to so many layers each has a row; from so many rows on, those that repeat themselves are folded."""


@attrs.frozen
class Row:
    """Layers of one kind, one after the other."""

    kind: int
    first: int
    n: int


@attrs.frozen
class Rows:
    """Rows that come so many times, one after the other; they say which layers those of the first time are."""

    rows: Sequence[Row]
    times: int = 1


def folded(order: Sequence[int]) -> list[Rows]:
    """The layers of a model, given the kind of each: few one by one, more by runs, and those where they repeat."""
    if len(order) <= FEW:
        return [Rows([Row(kind, i, 1) for i, kind in enumerate(order)])]
    rows: list[Row] = []
    for kind, run in groupby(range(len(order)), key=lambda layer: order[layer]):
        first, *others = run
        rows.append(Row(kind, first, 1 + len(others)))
    return _folded(rows) if len(rows) >= MANY else [Rows(rows)]


def _folded(rows: Sequence[Row]) -> list[Rows]:
    """The longest stretch that repeats itself, by its shortest period, and the same of what is before and after it."""
    looks = [(row.kind, row.n) for row in rows]
    stretches = [
        (times * size, -size, start)
        for size in range(1, len(rows) // 2 + 1)
        for start in range(len(rows) - 2 * size + 1)
        if (times := _times(looks, start, size)) > 1
    ]
    if not stretches:
        return [Rows(rows)] if rows else []
    length, size, start = max(stretches, key=lambda found: found[:2])
    fold = Rows(rows[start : start - size], length // -size)
    return [*_folded(rows[:start]), fold, *_folded(rows[start + length :])]


def _times(looks: Sequence[tuple[int, int]], start: int, size: int) -> int:
    times = 1
    while looks[start + times * size : start + (times + 1) * size] == looks[start : start + size]:
        times += 1
    return times
