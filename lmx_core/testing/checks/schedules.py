"""What holds for schedules of the learning rate."""

import math
import random
from collections.abc import Iterator
from numbers import Real
from typing import Any

from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import Make

BUDGETS = ({}, {"warmup_steps": 0}, {"warmup_steps": 100}, {"max_steps": 1, "warmup_steps": 0}, {"warmup_steps": 500})
"""Changes of the config: no warm-up, one that fills the run, one that does not end, a run of one step."""


def _runs(schedule: Candidate) -> Iterator[tuple[Make, list[tuple[int, float]]]]:
    """Each budget with the moments of a run in it, as (step, progress), one after the end among them; also of a run whose
    time is spent twice as fast as its steps.
    """
    for budget in BUDGETS:
        make = schedule.bare().changed(**budget)
        last = make.config.max_steps
        yield make, [(step, min(pace * step / last, 1.0)) for pace in (1, 2) for step in range(last + 1)]


def rates_are_between_0_and_the_peak(schedule: Candidate) -> None:
    """At every moment of any run the rate is a finite number from 0 to `learning_rate`."""
    for make, moments in _runs(schedule):
        made, peak = make(), make.config.learning_rate
        for step, progress in moments:
            found: Any = made(step, progress)
            assert isinstance(found, Real), f"the rate at step {step} is a {type(found).__name__}"
            rate = float(found)
            assert math.isfinite(rate), f"the rate at step {step} is {rate}"
            assert 0 <= rate <= peak * (1 + 1e-6), f"the rate at step {step} is {rate:.4g}, learning_rate {peak:.4g}"


def the_peak_is_reached(schedule: Candidate) -> None:
    """`learning_rate` is what the rate comes to, within 5 %, in a run that the warm-up leaves room for it."""
    make = schedule.bare()
    steps = max(make.config.max_steps, 2 * make.config.warmup_steps)
    make = make.changed(max_steps=steps)
    made = make()
    highest = max(made(step, step / steps) for step in range(steps))
    peak = make.config.learning_rate
    assert highest >= 0.95 * peak, f"the highest rate is {highest:.4g}, learning_rate {peak:.4g}"


def warm_up_starts_low(schedule: Candidate) -> None:
    """With 10 `warmup_steps`, the first has at most half of `learning_rate`, and less than the last of them."""
    make = schedule.bare().changed(max_steps=100, warmup_steps=10)
    made, peak = make(), make.config.learning_rate
    first, last = made(0, 0.0), made(9, 0.09)
    assert first <= 0.5 * peak, f"the rate at step 0 is {first:.4g}, learning_rate {peak:.4g}"
    assert first < last or not peak, f"the rate at step 0 is {first:.4g}, at step 9 {last:.4g}"


def progress_is_followed(schedule: Candidate) -> None:
    """A schedule for which the length of the run matters takes it from `progress`, which a budget of time drives too: the
    same step has another rate when more is spent.
    """
    short, long = (schedule.bare().changed(max_steps=steps, warmup_steps=10)() for steps in (100, 200))
    if all(short(step, step / 100) == long(step, step / 200) for step in range(100)):
        return
    rates = [short(40, progress) for progress in (0.4, 0.6, 0.8, 0.9, 1.0)]
    assert len(set(rates)) > 1, f"the rate at step 40 of 100 is {rates[0]:.4g} whatever the progress"


def rates_depend_on_the_moment_alone(schedule: Candidate) -> None:
    """Whatever was asked before: a resumed run goes on with the rate that the first would have had."""
    for make, moments in _runs(schedule):
        made = make()
        first = {moment: made(*moment) for moment in moments}
        shuffled = random.Random(0).sample(moments, len(moments))
        anew = make()
        for moment in shuffled:
            assert made(*moment) == anew(*moment) == first[moment], f"the rate at step {moment[0]} has changed"
