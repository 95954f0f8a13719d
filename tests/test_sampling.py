"""Filters keep what they say they keep, and draws follow the renormalised distribution."""

import mlx.core as mx
import numpy as np
import pytest
from scipy import stats

from lmx_core import LmxError
from lmx_core.sampling import Sampling, drawn, min_p, repetition_penalty, temperature, top_k, top_p

LOGITS = mx.array([[2.0, 1.0, 0.5, 0.0, -1.0, -3.0, 1.5, 0.2], [0.0, 0.1, 5.0, 4.9, -2.0, 0.3, 0.4, 4.0]])
DRAWS = 40_000


def kept(logits):
    return [set(np.flatnonzero(np.isfinite(row)).tolist()) for row in np.array(logits)]


def probabilities(logits):
    values = np.array(logits, np.float64)
    weights = np.exp(values - values.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def reference_nucleus(row, p):
    """The fewest likeliest tokens that reach p, one by one."""
    chosen, total = set(), 0.0
    for token in np.argsort(-row):
        if total >= p:
            break
        chosen.add(int(token))
        total += row[token]
    return chosen


def test_top_k_keeps_the_k_likeliest():
    assert kept(top_k(LOGITS, 3)) == [{0, 6, 1}, {2, 3, 7}]
    assert kept(top_k(LOGITS, 8)) == [set(range(8))] * 2


def test_top_k_keeps_k_of_equals():
    """Ties do not let more than k through."""
    assert [len(row) for row in kept(top_k(mx.zeros((2, 10)), 4))] == [4, 4]


@pytest.mark.parametrize("p", [0.01, 0.3, 0.6, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_nucleus(p):
    assert kept(top_p(LOGITS, p)) == [reference_nucleus(row, p) for row in probabilities(LOGITS)]


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5, 1.0])
def test_min_p_keeps_what_is_likely_enough(p):
    expected = [set(np.flatnonzero(row >= p * row.max()).tolist()) for row in probabilities(LOGITS)]
    assert kept(min_p(LOGITS, p)) == expected


def test_filters_leave_the_kept_logits_alone():
    for filtered in (top_k(LOGITS, 3), top_p(LOGITS, 0.8), min_p(LOGITS, 0.1)):
        finite = np.isfinite(np.array(filtered))
        assert (np.array(filtered)[finite] == np.array(LOGITS)[finite]).all()


def test_temperature_sharpens():
    assert np.allclose(probabilities(temperature(LOGITS, 0.5)), probabilities(np.array(LOGITS) * 2))


def test_repetition_penalty_makes_seen_tokens_less_likely():
    """Positive logits are divided and negative ones multiplied, of seen tokens only."""
    seen = mx.array([[True, False, False, False, True, False, False, False]] * 2)
    penalised = np.array(repetition_penalty(LOGITS, seen, 2.0))

    assert penalised[0].tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0, -2.0, -3.0, 1.5, 0.2])


def test_numbers_from_0_to_1_choose_tokens_by_their_probabilities():
    """A share of the numbers as large as the probability; the ends of the range choose no token that is ruled out."""
    n = 1000
    logits = mx.concatenate([mx.array([-mx.inf]), LOGITS[0], mx.array([-mx.inf])])
    chosen = drawn(mx.repeat(logits[None], n, axis=0), (mx.arange(n) + 0.5) / n, mx.zeros(n))
    shares = np.bincount(np.array(chosen), minlength=10)
    assert np.abs(shares[1:-1] - n * probabilities(LOGITS[:1])[0]).max() <= 1
    ends = mx.array([0.0, 1 - 2**-24, 1.0])
    assert drawn(mx.repeat(logits[None], 3, axis=0), ends, ends).tolist() == [1, 8, 8]


def test_rare_tokens_of_a_large_vocabulary_are_drawn():
    """Each so rare that float32 rounds it away beside the likeliest, and together 13 in 1000; the ends are ruled out."""
    size, n = 20_000, 4000
    logits = mx.where(mx.arange(size) == 700, 0.0, mx.array(-14.25)[None])
    logits = mx.where((mx.arange(size) < 600) | (mx.arange(size) >= 19_900), -mx.inf, logits)
    even = (mx.arange(n) + 0.5) / n
    chosen = np.array(
        drawn(mx.repeat(logits[None], n, axis=0), mx.random.permutation(even, key=mx.random.key(0)), even)
    )

    rare = 19_299 * np.exp(-14.25)
    assert (chosen != 700).mean() == pytest.approx(rare / (1 + rare), abs=2 / n)
    assert len({*chosen.tolist()}) > 30
    ends = mx.array([0.0, 1 - 2**-24, 1.0])
    assert drawn(mx.repeat(logits[None], 3, axis=0), ends, ends).tolist() == [600, 19_899, 19_899]


@pytest.mark.parametrize("size", [13, 2000])
def test_rows_with_keys_follow_the_distribution(size):
    """Chi-square over 40,000 rows, each with a key of its own."""
    logits = mx.random.uniform(-1, 1, (size,), key=mx.random.key(2))
    found = np.zeros(size)
    for keys in mx.random.split(mx.random.key(3), DRAWS).split(10):
        rows = mx.repeat(logits[None], len(keys), axis=0)
        found += np.bincount(np.array(Sampling().draw(rows, key=keys)), minlength=size)

    assert stats.chisquare(found, DRAWS * probabilities(logits)).pvalue > 1e-4


def counts(rule, row):
    logits = mx.broadcast_to(LOGITS[row], (DRAWS, LOGITS.shape[1]))
    return np.bincount(np.array(rule.draw(logits, key=mx.random.key(row))), minlength=LOGITS.shape[1])


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(
    "rule",
    [
        Sampling(top_k=3),
        Sampling(top_k=5, temperature=0.7),
        Sampling(top_p=0.8),
        Sampling(min_p=0.1),
        Sampling(temperature=1.5),
    ],
    ids=str,
)
def test_draws_follow_the_renormalised_distribution(rule, row):
    """Chi-square over 40,000 draws; nothing outside of the support is ever drawn."""
    expected = probabilities(rule.filtered(LOGITS))[row]
    found = counts(rule, row)

    support = expected > 0
    assert found[~support].sum() == 0
    assert stats.chisquare(found[support], expected[support] * DRAWS).pvalue > 1e-4


def test_the_chi_square_test_can_fail():
    """The same test refuses draws of the unfiltered distribution."""
    expected = probabilities(LOGITS)[0]
    skewed = probabilities(np.array(LOGITS) * 1.1)[0]

    assert stats.chisquare(counts(Sampling(), 0), skewed * DRAWS).pvalue < 1e-4
    assert stats.chisquare(counts(Sampling(), 0), expected * DRAWS).pvalue > 1e-4


def test_temperature_zero_takes_the_likeliest():
    assert Sampling(temperature=0.0).draw(LOGITS).tolist() == [0, 2]


@pytest.mark.parametrize(
    "bad",
    [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"repetition_penalty": 0.0}],
)
def test_settings_outside_of_their_range_are_refused(bad):
    with pytest.raises(LmxError, match=next(iter(bad))):
        Sampling(**bad)
