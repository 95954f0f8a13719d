"""Plain data is of a type or it is not: nothing is converted, and every problem has its path."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from lmx_core.config import ComponentSpec, type_problem
from lmx_core.exactly import Problems, exact_converter


def problems(data, kind):
    with pytest.raises(Problems) as found:
        exact_converter().structure(data, kind)
    return list(found.value.found)


@pytest.mark.parametrize(
    ("data", "kind", "value"),
    [
        (3, float, 3),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([0.9, 1], tuple[float, float], (0.9, 1)),
        ([1], list[int], [1]),
        ([1], Sequence[int], (1,)),
        ("none", int | None, None),
        ([1, "none", None], list[int | None], [1, None, None]),
        ({"a": [1]}, dict[str, tuple[int, ...]], {"a": (1,)}),
        (["a"], Sequence[str] | str, ("a",)),
        ("a", Sequence[str] | str, "a"),
        ([1], tuple[int, ...] | int, (1,)),
        ("none", str, "none"),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_what_fits_is_read(data, kind, value):
    found = exact_converter().structure(data, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (True, int, [("", "expected int, got True (bool)")]),
        (1.0, int, [("", "expected int, got 1.0 (float)")]),
        (True, Literal[1, "a"], [("", "expected 1 or 'a', got True (bool)")]),
        (["a", 1, "b"], list[int], [("[0]", "expected int, got 'a' (str)"), ("[2]", "expected int, got 'b' (str)")]),
        ([1], tuple[int, int], [("", "expected a list of int, int, got [1] (list)")]),
        ("abc", Sequence[str], [("", "expected a list of str, got 'abc' (str)")]),
        ({"a": "x", "b": 1}, Mapping[str, int], [("a", "expected int, got 'x' (str)")]),
        ({"a": [1, "x"]}, dict[str, list[int]], [("a[1]", "expected int, got 'x' (str)")]),
        ({1: 2}, dict[str, int], [("", "expected a table of int, got {1: 2} (dict)")]),
        (["x"], list[int] | None, [("[0]", "expected int, got 'x' (str)")]),
        (float("inf"), float, [("", "expected a finite number, got inf")]),
        ([1.0, float("nan")], list[float], [("[1]", "expected a finite number, got nan")]),
        (-float("inf"), float | None, [("", "expected a finite number, got -inf")]),
        (float("inf"), int | str, [("", "expected int or str, got inf (float)")]),
        (0.5, int | str, [("", "expected int or str, got 0.5 (float)")]),
    ],
)
def test_what_does_not_fit_is_told_by_its_place(data, kind, expected):
    assert problems(data, kind) == expected


def test_a_python_value_is_held_to_what_is_in_it():
    """As a file is: `exact_types` looks into lists and tables."""
    assert type_problem(("a", 1), tuple[str, ...]) == "expected a list of str, got ('a', 1) (tuple)"
    assert type_problem((1, 2, 3), tuple[int, int]) == "expected a list of int, int, got (1, 2, 3) (tuple)"
    assert type_problem({"a": 1.5}, Mapping[str, int]) == "expected a table of int, got {'a': 1.5} (dict)"
    assert type_problem((ComponentSpec("a"),), tuple[ComponentSpec, ...]) is None
