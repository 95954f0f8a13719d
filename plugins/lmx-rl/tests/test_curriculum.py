"""What a curriculum that follows the pass rate promises."""

import mlx.core as mx
import numpy as np
import pytest

from lmx_core.errors import CheckpointError, ConfigError, DataError
from lmx_rl.problems import PassRate, PassRateOptions

pytestmark = pytest.mark.once

DIFFICULTIES = [3, 1, 2, 1, 3, 2, 1, 1, 5, 2]
ONES = [1, 3, 6, 7]


def made(**options):
    return PassRate(DIFFICULTIES, PassRateOptions(window=10, **options))


def drawn(curriculum, count, seed=0):
    return curriculum.choose(count, np.random.default_rng(seed))


def test_it_begins_with_the_easiest_and_each_comes_once_before_any_twice():
    for count in (1, 3, 4):
        found = drawn(made(), count)
        assert len(found) == len({*found}) == count
        assert {*found} <= {*ONES}
    assert {drawn(made(), 10).count(i) for i in ONES} == {2, 3}
    assert all(type(i) is int for i in drawn(made(), 4))


def test_the_level_rises_with_the_pass_rate_and_falls_again():
    """A window is needed, and is begun anew; at the ends the level stays."""
    curriculum = made(raise_at=0.8, lower_at=0.2)
    curriculum.tell(ONES, np.ones((4, 2)))
    assert curriculum.level == 0
    assert curriculum.rate == 1
    curriculum.tell([1, 3], [0, 0])
    assert curriculum.level == 1
    assert curriculum.passed.size == 0
    assert np.isnan(curriculum.rate)
    for level in (2, 3, 3):
        of_level = int(np.flatnonzero(curriculum.difficulties == curriculum.levels[curriculum.level])[0])
        curriculum.tell([of_level], np.ones((1, 10)))
        assert curriculum.level == level
    for level in (2, 1, 0, 0):
        of_level = int(np.flatnonzero(curriculum.difficulties == curriculum.levels[curriculum.level])[0])
        curriculum.tell([of_level], [[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]])
        assert curriculum.level == level


def test_between_the_two_rates_it_stays():
    curriculum = made(raise_at=0.8, lower_at=0.2)
    for passed in (3, 5, 7):
        curriculum.tell([1], [[1] * passed + [0] * (10 - passed)])
        assert curriculum.level == 0
        assert curriculum.rate == passed / 10


def test_other_levels_and_what_is_not_known_do_not_count():
    curriculum = made(start=1)
    curriculum.tell([0, 1, 2], [[1.0] * 20, [1.0] * 20, [float("nan")] * 20])
    assert curriculum.level == 1
    assert curriculum.passed.size == 0
    curriculum.tell([2, 5], [[1.0, float("nan")], [0.4, 0.5]])
    assert curriculum.passed.tolist() == [True, False, True]


def test_a_share_of_earlier_levels_stays():
    found = drawn(made(start=2, earlier=0.25), 20)
    of = [DIFFICULTIES[i] for i in found]
    assert of.count(3) == 15
    assert of.count(1) + of.count(2) == 5
    assert of[:15] != [3] * 15
    assert of[5:] != [3] * 15
    assert {DIFFICULTIES[i] for i in drawn(made(start=2, earlier=0), 20)} == {3}
    assert {DIFFICULTIES[i] for i in drawn(made(earlier=0.5), 20)} == {1}


def test_it_goes_on_bit_for_bit():
    """A curriculum that was saved and restored chooses and moves as one that was never stopped."""

    def steps(curriculum, rng, first, last):
        chosen = []
        for step in range(first, last):
            indices = curriculum.choose(4, rng)
            chosen.append(indices)
            solved = np.random.default_rng(step).random((4, 3)) < 0.9
            curriculum.tell(indices, np.where(solved, 1.0, 0.0))
        return chosen

    one, rng = made(), np.random.default_rng(7)
    whole = steps(one, rng, 0, 40)
    first, rng = made(), np.random.default_rng(7)
    begun = steps(first, rng, 0, 4)
    saved = first.saved()
    assert 0 < first.level < 3
    assert 0 < first.passed.size < 10
    assert all(isinstance(each, mx.array) for each in saved.values())
    second = made()
    second.restore(saved)
    assert begun + steps(second, rng, 4, 40) == whole
    assert second.level == one.level > 0
    assert second.passed.tolist() == one.passed.tolist()


def test_an_empty_window_is_saved_too():
    again = made()
    again.restore(made(start=2).saved())
    assert again.level == 2
    assert again.passed.dtype == bool
    assert again.passed.size == 0


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"start=4: the prompts have 4 levels, counted from 0"):
        made(start=4)
    with pytest.raises(ConfigError, match=r"lower_at=0.9 must be below raise_at=0.8"):
        made(lower_at=0.9)
    with pytest.raises(ConfigError, match=r"raise_at: must be from 0 to 1, got 1.5"):
        made(raise_at=1.5)
    with pytest.raises(DataError, match=r"each with a difficulty"):
        PassRate([])
    with pytest.raises(DataError, match=r"each with a difficulty"):
        PassRate([1.0, float("nan")])
    with pytest.raises(ConfigError, match=r"rewards of shape \(3,\) are not those of 2 prompts"):
        made().tell([1, 3], [1, 1, 1])
    with pytest.raises(CheckpointError, match=r"was at level 3 with a window of 0; these prompts have 1 levels"):
        PassRate([1.0]).restore(made(start=3).saved())
