"""Schedules give the rates of nanoGPT and transformers, and follow whatever budget is spent further."""

from pathlib import Path

import numpy as np
import pytest

from lmx_core import spec
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.train.config import TrainConfig

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "schedules.npz"
HF = {"warmup_from_zero": True}
TO_ZERO = {**HF, "final_fraction": 0.0}
ALIKE = {
    "constant_warmup": spec("constant", **HF),
    "linear": spec("linear", **TO_ZERO),
    "cosine": spec("cosine", **TO_ZERO),
    "cosine_min0.1": spec("cosine", **HF),
    "inverse_sqrt": spec("inverse_sqrt", **HF),
    "wsd": spec("wsd", **TO_ZERO, decay_fraction=0.25, shape="linear"),
    "nanogpt_cosine_min0.1": spec("cosine"),
}
"""What transformers and nanoGPT call so."""


def schedule(chosen, steps, warmup, peak=1.0):
    return build("schedule", chosen, TrainConfig(max_steps=steps, warmup_steps=warmup, learning_rate=peak))


def rates(chosen, steps, warmup, pace=1.0):
    """Of a run whose budget is spent `pace` times as fast as its steps."""
    made = schedule(chosen, steps, warmup)
    return [made(step, min(pace * step / steps, 1.0)) for step in range(steps)]


@pytest.mark.skipif(not VECTORS.exists(), reason="the reference numbers are not beside the project")
@pytest.mark.parametrize("key", ALIKE)
def test_reference_numbers(key):
    with np.load(VECTORS) as data:
        np.testing.assert_allclose(rates(ALIKE[key], 40, 8), data[f"out.{key}"], 1e-6, 1e-7)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (spec("constant", **HF), [0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1]),
        (spec("linear", **TO_ZERO), [0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        (spec("linear"), [1 / 3, 2 / 3, 1, 0.8875, 0.775, 0.6625, 0.55, 0.4375, 0.325, 0.2125]),
        (spec("cosine", **TO_ZERO), [0, 0.5, 1, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381]),
        (spec("inverse_sqrt", **HF), [0, 0.5, 1, 0.8165, 0.7071, 0.6325, 0.5774, 0.5345, 0.5, 0.4714]),
        (spec("wsd", **TO_ZERO, decay_fraction=0.4, shape="linear"), [0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        (spec("wsd", **TO_ZERO, decay_fraction=0.4), [0, 0.5, 1, 1, 1, 1, 1, 0.5, 0.2929, 0.1340]),
        (spec("wsd", decay_fraction=0.4, shape="cosine"), [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.8682, 0.55, 0.2318]),
    ],
    ids=str,
)
def test_rates_of_ten_steps(chosen, expected):
    """Two of warm-up, then down by the formulas."""
    assert rates(chosen, 10, 2) == pytest.approx(expected, abs=1e-4)


def test_a_long_warm_up_is_followed_by_the_way_down():
    """Where it ends after the stable part should."""
    expected = [*(np.arange(1, 9) / 9), 1.0, 0.5]
    assert rates(spec("wsd", decay_fraction=0.5, final_fraction=0.0, shape="linear"), 10, 8) == pytest.approx(expected)


def test_a_schedule_ends_at_its_final_fraction():
    for name in ("linear", "cosine", "wsd"):
        assert schedule(name, 10, 0, peak=2.0)(10, 1.0) == pytest.approx(0.2)
        assert schedule(name, 10, 0, peak=2.0)(0, 0.0) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_way_down_begins_where_the_warm_up_ends_whatever_ends_the_run(name):
    """A budget that is spent after 25 of 100 steps: the peak is reached after the warm-up, and the end at the end."""
    found = rates(name, 100, 10, pace=4.0)
    assert found[:26] == pytest.approx([*rates(name, 25, 10), 0.1])
    assert max(found) == found[10] == 1.0


@pytest.mark.parametrize("pace", [1.0, 2.0])
def test_joined_schedules_have_their_shares(pace):
    """Each goes as over a run of its own: half of 40 steps, or of the 20 that there is time for."""
    parts = [
        {"schedule": {"name": "cosine", "final_fraction": 0.5}},
        {"schedule": "linear", "peak": 0.5, "warmup_steps": 2},
    ]
    half = int(20 / pace)
    expected = rates(spec("cosine", final_fraction=0.5), half, 4) + [rate / 2 for rate in rates("linear", half, 2)]
    found = rates(spec("joined", parts=parts), 40, 4, pace)[: 2 * half]
    assert found == pytest.approx(expected)


def test_shares_are_in_proportion():
    """Thirds that no step falls on, a plateau on the way, and the end."""
    parts = [{"schedule": "constant", "share": 1}, {"schedule": "constant", "share": 2, "peak": 0.5}]
    assert rates(spec("joined", parts=parts), 10, 0) == [1.0] * 4 + [0.5] * 6
    assert schedule(spec("joined", parts=parts), 10, 0)(10, 1.0) == 0.5


def test_parts_begin_at_their_step_whatever_rounding_says():
    """Three times 0.1 is a little more than 0.3."""
    parts = [{"schedule": "constant", "peak": (i + 1) / 10} for i in range(10)]
    assert rates(spec("joined", parts=parts), 10, 0) == pytest.approx([(i + 1) / 10 for i in range(10)])


def test_parts_are_told_their_own_length():
    """A schedule of another author may read `max_steps`."""

    @registry("schedule").register("told")
    class Told:
        def __init__(self, config):
            self.steps = config.max_steps

        def __call__(self, step, progress):
            return 1.0

    try:
        parts = [{"schedule": "told", "share": share} for share in (1, 3)]
        made = schedule(spec("joined", parts=parts), 40, 0)
    finally:
        registry("schedule").unregister("told")
    assert [part.steps for *_, part in made.parts] == [10, 30]


def test_parts_are_checked():
    for parts, problem in (
        ([], "at least one part"),
        ([{"share": 0.0}], "share"),
        ([{"peak": 1.5}], "peak"),
        ([{"schedul": "linear"}], "did you mean 'schedule'"),
    ):
        with pytest.raises(ConfigError, match=problem):
            schedule(spec("joined", parts=parts), 10, 0)
