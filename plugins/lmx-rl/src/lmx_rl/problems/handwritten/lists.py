"""Problems of lists, tables and what is nested in them."""
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUnknownArgumentType=false
# A prompt reads as people write it: a nested list has no type that a checker knows in full.

from typing import Any


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges with those that overlap or touch made one, by where they begin. Each has its first and last number.

    >>> merged([(1, 3), (8, 9), (2, 5)])
    [(1, 5), (8, 9)]
    >>> merged([(1, 4), (5, 6)])
    [(1, 4), (5, 6)]
    """
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def majority(values: list[int]) -> int | None:
    """Return the value that more than half of the values are, or None if there is none.

    >>> majority([3, 1, 3])
    3
    >>> majority([1, 2]) is None
    True
    """
    for value in set(values):
        if 2 * values.count(value) > len(values):
            return value
    return None


def flattened(nested: list) -> list:
    """Return all that is in a list and in the lists inside it, however deep, in order.

    >>> flattened([1, [2, [3]], []])
    [1, 2, 3]
    """
    found = []
    for item in nested:
        if isinstance(item, list):
            found += flattened(item)
        else:
            found.append(item)
    return found


def columns(rows: list[list[int]]) -> list[list[int]]:
    """Return the columns of a table as lists, from the left; all rows are equally long.

    >>> columns([[1, 2], [3, 4], [5, 6]])
    [[1, 3, 5], [2, 4, 6]]
    """
    return [[row[i] for row in rows] for i in range(len(rows[0]))] if rows else []


def trapped(heights: list[int]) -> int:
    """Return how much water stays between walls of these heights, each one wide, when it rains.

    >>> trapped([2, 0, 1])
    1
    >>> trapped([1, 2, 3])
    0
    """
    total = 0
    for i, height in enumerate(heights):
        total += min(max(heights[: i + 1]), max(heights[i:])) - height
    return total


def by_length(words: list[str]) -> dict[int, list[str]]:
    """Return the words by how long they are, those of one length in alphabetical order.

    >>> by_length(["be", "a", "at"])
    {1: ['a'], 2: ['at', 'be']}
    """
    found: dict[int, list[str]] = {}
    for word in sorted(words):
        found.setdefault(len(word), []).append(word)
    return found


def islands(grid: list[str]) -> int:
    """Return how many areas of "#" a map has. Places that touch by a side, not by a corner alone, are of one area.

    >>> islands(["##.", "..#"])
    2
    """
    land = {(r, c) for r, row in enumerate(grid) for c, mark in enumerate(row) if mark == "#"}
    count = 0
    while land:
        count += 1
        edge = [land.pop()]
        while edge:
            r, c = edge.pop()
            for place in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if place in land:
                    land.remove(place)
                    edge.append(place)
    return count


def first_pair(values: list[int], total: int) -> tuple[int, int] | None:
    """Return the places of two values with this sum, or None if there are none.

    Of several pairs the one whose second place is smallest, and then the one whose first place is.
    >>> first_pair([4, 1, 3, 1], 4)
    (1, 2)
    """
    for second in range(len(values)):
        for first in range(second):
            if values[first] + values[second] == total:
                return first, second
    return None


CASES: dict[str, tuple[int, list[tuple[tuple[Any, ...], Any]]]] = {
    "merged": (
        3,
        [
            (([],), []),
            (([(1, 1)],), [(1, 1)]),
            (([(1, 10), (2, 3)],), [(1, 10)]),
            (([(5, 6), (1, 5)],), [(1, 6)]),
            (([(1, 2), (4, 5), (2, 4)],), [(1, 5)]),
            (([(0, 0), (1, 1)],), [(0, 0), (1, 1)]),
        ],
    ),
    "majority": (
        1,
        [
            (([],), None),
            (([7],), 7),
            (([1, 1, 2, 2],), None),
            (([2, 2, 1, 2],), 2),
            (([0, 0, 1],), 0),
            (([5, 4, 5, 3, 5, 5],), 5),
        ],
    ),
    "flattened": (
        2,
        [
            (([],), []),
            (([[[]]],), []),
            (([[1], 2, [[3, 4], 5]],), [1, 2, 3, 4, 5]),
            (([["ab"], "c"],), ["ab", "c"]),
            (([[[[7]]], [0]],), [7, 0]),
        ],
    ),
    "columns": (
        1,
        [
            (([[1]],), [[1]]),
            (([[1, 2, 3]],), [[1], [2], [3]]),
            (([[1], [2]],), [[1, 2]]),
            (([[1, 2], [3, 4]],), [[1, 3], [2, 4]]),
            (([],), []),
        ],
    ),
    "trapped": (
        3,
        [
            (([],), 0),
            (([3, 0, 3],), 3),
            (([0, 1, 0, 2, 1, 0, 1, 3, 2, 1, 2, 1],), 6),
            (([4, 2, 0, 3, 2, 5],), 9),
            (([5, 4, 1, 2],), 1),
            (([2, 2, 2],), 0),
        ],
    ),
    "by_length": (
        2,
        [
            (([],), {}),
            ((["b", "a"],), {1: ["a", "b"]}),
            ((["one", "two", "three"],), {3: ["one", "two"], 5: ["three"]}),
            ((["aa", "", "aa"],), {0: [""], 2: ["aa", "aa"]}),
        ],
    ),
    "islands": (
        3,
        [
            (([],), 0),
            ((["..."],), 0),
            ((["###", "#.#", "###"],), 1),
            ((["#.#", ".#.", "#.#"],), 5),
            ((["##", "##"],), 1),
            ((["#..#", "#..#", "...."],), 2),
        ],
    ),
    "first_pair": (
        2,
        [
            (([], 0), None),
            (([2], 4), None),
            (([2, 2], 4), (0, 1)),
            (([1, 5, 3, 7], 8), (1, 2)),
            (([1, 2, 3], 7), None),
            (([0, 4, 0, 4], 4), (0, 1)),
            (([3, 1, 1, 2], 3), (1, 3)),
        ],
    ),
}
