"""What holds for schedules of the learning rate."""

import math
import random
from collections.abc import Iterator
from typing import Any

from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import Make

BUDGETS = ({}, {"warmup_steps": 0}, {"warmup_steps": 100}, {"max_steps": 1, "warmup_steps": 0}, {"warmup_steps": 500})
"""Changes of the config: no warm-up, one that fills the run, one that does not end, a run of one step."""


def _runs(schedule: Candidate) -> Iterator[tuple[Make, list[tuple[int, float]]]]:
    """Each budget with the moments of a run in it, as (step, progress), one after the end among them."""
    for budget in BUDGETS:
        make = schedule.bare().changed(**budget)
        last = make.config.max_steps
        yield make, [(step, step / last) for step in range(last + 1)]


def rates_are_between_0_and_the_peak(schedule: Candidate) -> None:
    """At every moment of any run the rate is a finite number from 0 to `learning_rate`."""
    for make, moments in _runs(schedule):
        made, peak = make(), make.config.learning_rate
        for step, progress in moments:
            rate: Any = made(step, progress)
            assert isinstance(rate, float | int), f"the rate at step {step} is a {type(rate).__name__}"
            assert math.isfinite(rate), f"the rate at step {step} is {rate}"
            assert 0 <= rate <= peak * (1 + 1e-6), f"the rate at step {step} is {rate:.4g}, learning_rate {peak:.4g}"


def the_peak_is_reached(schedule: Candidate) -> None:
    """`learning_rate` is what the rate comes to, within 5 %, when the warm-up leaves room for it."""
    make = schedule.bare()
    made = make()
    highest = max(made(step, step / make.config.max_steps) for step in range(make.config.max_steps))
    peak = make.config.learning_rate
    assert highest >= 0.95 * peak, f"the highest rate is {highest:.4g}, learning_rate {peak:.4g}"


def rates_depend_on_the_moment_alone(schedule: Candidate) -> None:
    """Whatever was asked before: a resumed run goes on with the rate that the first would have had."""
    for make, moments in _runs(schedule):
        made = make()
        first = {moment: made(*moment) for moment in moments}
        shuffled = random.Random(0).sample(moments, len(moments))
        anew = make()
        for moment in shuffled:
            assert made(*moment) == anew(*moment) == first[moment], f"the rate at step {moment[0]} has changed"
