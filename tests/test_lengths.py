"""Sums of very many numbers are right, where MLX's own lose a part."""

import mlx.core as mx
import numpy as np
import pytest

from lmx_core import lengths
from lmx_core.lengths import AT_ONCE, length, sum_of_squares, total
from lmx_core.train.callbacks.statistics import statistics
from lmx_core.train.optimizers.adafactor import _size
from lmx_core.train.optimizers.muon import orthogonal
from lmx_core.train.step import _norm

SHAPES = [(7,), (3, 5), (4, 3, 5), (1000, 2000), (2, 1_000_000), (3, 500, 800), (10_000_000,), (3_000_000, 4), (2**20,)]


def drawn(shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return x, x.astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_float64(shape):
    x, exact = drawn(shape)
    squares = mx.array(x * x)
    assert total(squares).item() == pytest.approx((exact**2).sum(), rel=1e-5)
    assert sum_of_squares(mx.array(x)).item() == pytest.approx((exact**2).sum(), rel=1e-5)


def test_on_a_gpu_it_is_a_plain_sum(monkeypatch):
    monkeypatch.setattr(lengths, "_on_cpu", lambda: False)
    x, exact = drawn((300, 40))
    assert total(mx.array(x)).item() == pytest.approx(exact.sum(), rel=1e-4)
    assert sum_of_squares(mx.array(x)).item() == pytest.approx((exact**2).sum(), rel=1e-4)


def test_the_shapes_are_on_both_sides_of_what_is_added_at_once():
    sizes = [np.prod(shape) for shape in SHAPES]
    assert min(sizes) < AT_ONCE < max(sizes)


def test_a_length_is_that_of_all_parts():
    parts = [drawn(shape) for shape in SHAPES]
    exact = np.sqrt(sum((each**2).sum() for _, each in parts))
    assert length(mx.array(x) for x, _ in parts).item() == pytest.approx(exact, rel=1e-5)
    assert length([]).item() == 0


def test_half_precision_is_summed_in_float32():
    x = mx.full((4, 1000), 3.0, dtype=mx.float16)
    assert sum_of_squares(x).dtype == mx.float32
    assert sum_of_squares(x).item() == 36_000


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_not_finite_shows(odd):
    x = np.ones((3, 4), np.float32)
    x[1, 2] = odd
    assert not np.isfinite(length([mx.array(x)]).item())
    assert not np.isfinite(total(mx.array(x)).item())


@pytest.mark.parametrize("measured", ["norm of a gradient", "size of a weight", "std of weights", "singular values"])
def test_who_sums_many_numbers_does_so_here(measured):
    """Of 2 million, of which a plain sum loses 1e-3."""
    x, exact = drawn((1000, 2000))
    found, expected = {
        "norm of a gradient": lambda: (_norm({"w": mx.array(x)}), np.linalg.norm(exact)),
        "size of a weight": lambda: (_size(mx.array(x)), np.sqrt((exact**2).mean())),
        "std of weights": lambda: (statistics([mx.array(x)])["std"], exact.std()),
        "singular values": lambda: (
            mx.linalg.norm(orthogonal(mx.array(x), 0), axis=-1).square().sum(),
            1.0,
        ),
    }[measured]()
    assert found.item() == pytest.approx(expected, rel=2e-5)
