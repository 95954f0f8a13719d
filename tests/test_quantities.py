"""Numbers as people read them."""

import pytest

from lmx_core.quantities import in_bytes, in_words, ranges


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (524_288, "512 KiB"),
        (1 << 31, "2 GiB"),
        (13 << 29, "6.5 GiB"),
    ],
)
def test_bytes(n, text):
    assert in_bytes(n) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(999, "999"), (6_738_415_616, "6.74 billion"), (124_439_808, "124 million"), (10**15, "1 quadrillion")],
)
def test_words(n, text):
    assert in_words(n) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([3], "3"),
        (range(32), "0-31"),
        ([0, 1, 2, 4, 6, 7], "0-2, 4, 6-7"),
        ([0, 2, 4], "0, 2, 4"),
        (range(1, 24, 2), "1, 3, ..., 23"),
    ],
)
def test_ranges(numbers, text):
    assert ranges([*numbers]) == text
