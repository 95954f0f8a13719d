"""Whether a value is the one that was expected."""

import math
from collections.abc import Hashable
from typing import Any

from lmx_rl.sandbox.child.values import DEPTH

CLOSE = 1e-9
"""How far a float may be off, as a share of the larger of the two."""


def equal(found: Any, expected: Any, depth: int = 0) -> bool:
    """Whether both are the same plain value: of one type throughout, so that neither True nor 1.0 is 1.

    Floats may differ by 1e-9 of their size, but not within sets and as keys; NaN is NaN. Values of other types than those
    of `Call` are not equal to anything, nor are those that are nested more than 100 deep.
    """
    kind = type(found)
    if kind is not type(expected) or depth > DEPTH:
        return False
    if kind is float:
        return math.isclose(found, expected, rel_tol=CLOSE) or (math.isnan(found) and math.isnan(expected))
    if kind in (list, tuple):
        return len(found) == len(expected) and all(map(lambda a, b: equal(a, b, depth + 1), found, expected))
    if kind in (set, frozenset):
        return {exactly(item) for item in found} == {exactly(item) for item in expected}
    if kind is dict:
        others = {exactly(key): item for key, item in expected.items()}
        return len(found) == len(others) and all(
            (name := exactly(key)) in others and equal(item, others[name], depth + 1) for key, item in found.items()
        )
    return kind in (type(None), bool, int, str, bytes) and found == expected


def exactly(key: Any) -> Hashable:
    """What two keys share only if they are equal in type, too."""
    kind = type(key)
    if kind is tuple:
        return kind, tuple(map(exactly, key))
    if kind is frozenset:
        return kind, frozenset(map(exactly, key))
    return kind, "nan" if kind is float and math.isnan(key) else key
