"""Orders and draws that a key alone determines."""

import numpy as np
import pytest

from lmx_core.data.sources import order
from lmx_core.data.sources.order import drawn, shuffled


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000, 5000])
def test_orders_are_permutations(monkeypatch, count):
    """Both those that are kept as a table and those that are computed number by number."""
    for tabled in (10**6, 0):
        monkeypatch.setattr(order, "TABLED", tabled)
        found = shuffled(range(count), count, 3, 1)
        assert sorted(found.tolist()) == list(range(count))
        if count >= 1000:
            assert shuffled(range(count), count, 3, 2).tolist() != found.tolist()
            assert abs(np.corrcoef(found, np.arange(count))[0, 1]) < 0.1
            neighbours = np.abs(np.diff(found)).mean() / count
            assert neighbours == pytest.approx(1 / 3, abs=0.03)


def test_an_order_of_a_billion_takes_no_memory():
    found = shuffled([0, 1, 999_999_999], 10**9, 0)
    assert len(set(found.tolist())) == 3
    assert found.max() < 10**9


def test_orders_are_the_same_everywhere():
    """A run may go on on another machine, with another version of NumPy."""
    assert shuffled(range(8), 8, 3, 0).tolist() == [0, 7, 5, 2, 1, 4, 6, 3]
    assert shuffled([0, 1, 2], 2**21, 3, 1).tolist() == [1831102, 694957, 1384781]
    assert drawn(range(6), 100, 3).tolist() == [48, 93, 81, 55, 46, 4]


def test_draws_are_even():
    counts = np.bincount(drawn(range(100_000), 10, 7))
    assert len(counts) == 10
    assert np.abs(counts / 10_000 - 1).max() < 0.05
