"""What samples say of a model: chances, and how sure they are."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmx_core.errors import ConfigError

Counts = int | float | np.number[Any] | Sequence[Any] | NDArray[Any]
AT_ONCE = 2**16
"""Factors of a product that are computed together."""
SMALLEST = -750.0
"""Logarithm of what is 0 in double precision."""


def pass_at_k(n: Counts, c: Counts, k: Counts) -> Any:
    """The chance that one of `k` samples passes, of `n` of which `c` did; unbiased (equation 1 of arXiv:2107.03374).

    1 - C(n - c, k) / C(n, k), to full precision for any size. Of numbers a float, of arrays, which are broadcast, an array.
    `ConfigError` for k > n, of which these samples say nothing.
    """
    return _each(n, c, k, lambda n, c, k: -math.expm1(_log_none(n, c, k)))


def pass_hat_k(n: Counts, c: Counts, k: Counts) -> Any:
    """The chance that all of `k` samples pass, pass^k: C(c, k) / C(n, k), unbiased. Otherwise as `pass_at_k`."""
    return _each(n, c, k, lambda n, c, k: math.exp(_log_none(n, n - c, k)))


def interval(values: Sequence[int | float], confidence: float = 0.95) -> tuple[float, float]:
    """Bounds for the mean of what values from 0 to 1 are drawn from, by the values alone: those of problems.

    Wilson's score interval (1927) for as many independent trials as would have the variance of the mean,
    m (1 - m) / s^2 of them, with Student's quantile for the spread of few problems. Unlike a bootstrap it has a width where
    all values are equal: it then takes as many trials as there are values. One value says nothing: 0 to 1.
    """
    count = len(values)
    if count < 2:
        return 0.0, 1.0
    mean, squared = float(np.mean(values)), float(np.var(values, ddof=1)) / count
    trials = mean * (1 - mean) / squared if squared > 0 and 0 < mean < 1 else count
    z = student_quantile(0.5 + confidence / 2, count - 1)
    centre = (mean + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(mean * (1 - mean) / trials + z * z / (4 * trials * trials))
    return (max(centre - half, 0.0) if mean > 0 else 0.0), (min(centre + half, 1.0) if mean < 1 else 1.0)


def student_quantile(p: float, degrees: int) -> float:
    """Of Student's t with so many degrees of freedom, for p above 1/2: the finite sums of Abramowitz and Stegun 26.7.3 and
    26.7.4, solved by halving."""
    low, high = 0.0, NormalDist().inv_cdf(p)
    while _within(high, degrees) < 2 * p - 1:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 2 * p - 1 else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """The chance that Student's t is between -t and t."""
    angle = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for i in range(1 + odd, degrees, 2):
        total += term
        term *= math.cos(angle) ** 2 * i / (i + 1)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total


def _log_none(n: int, c: int, k: int) -> float:
    """The logarithm of C(n - c, k) / C(n, k): that none of k is among c of n."""
    if n - c < k:
        return -math.inf
    few, many = sorted((c, k))  # C(n - c, k) / C(n, k) is the same for the two changed
    total = 0.0
    for start in range(0, few, AT_ONCE):
        over = n - np.arange(start, min(start + AT_ONCE, few), dtype=np.float64)
        share = many / over
        logs = np.where(share < 0.5, np.log1p(-share), np.log((over - many) / over))  # each precise on its side
        total += math.fsum(logs.tolist())
        if total < SMALLEST:
            return -math.inf
    return total


def _each(n: Counts, c: Counts, k: Counts, chance: Any) -> float | NDArray[np.float64]:
    several = [np.asarray(each) for each in (n, c, k)]
    if any(each.dtype.kind not in "iu" for each in several):
        raise ConfigError(f"n={n!r:.40}, c={c!r:.40}, k={k!r:.40}: they must be whole numbers")
    rows = np.broadcast(*several)
    found = [chance(*_checked(*map(int, row))) for row in rows]
    return found[0] if not rows.shape else np.array(found, np.float64).reshape(rows.shape)


def _checked(n: int, c: int, k: int) -> tuple[int, int, int]:
    if not 0 <= c <= n:
        raise ConfigError(f"c={c} of n={n} samples passed: c must be from 0 to n")
    if not 1 <= k <= n:
        raise ConfigError(f"k={k} of n={n} samples: k must be from 1 to n. Draw more samples, or ask for a smaller k.")
    return n, c, k
