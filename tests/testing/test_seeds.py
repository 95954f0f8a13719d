"""The kit raises no false alarm: over a hundred seeds, mixers that work keep every promise.

Each seed runs one case in 25, so that each case has four seeds; `LMX_ALL_SEEDS=1` runs all of them with all.
"""

import os

import pytest

from lmx_core import build
from lmx_core.testing import SMALL, cases, randomise, seeded

SEEDS = 100
APART = 1 if os.environ.get("LMX_ALL_SEEDS") else 25
MIXERS = {"gqa": {}, "mha": {"n_kv_heads": 4}}
WITHOUT_PARAMETERS = ("unknown_options_are_refused", "options_round_trip", "import_is_light")


@pytest.mark.parametrize("name", MIXERS)
def test_no_seed_gives_a_false_alarm(name):
    suite = [case for case in cases(f"attention.{name}", config=MIXERS[name]) if case.name not in WITHOUT_PARAMETERS]
    alarms, runs = [], 0
    for seed in range(SEEDS):
        for case in suite[seed % APART :: APART]:
            runs += 1
            try:
                with seeded(seed):
                    case.run()
            except Exception as error:
                alarms.append(f"seed {seed}: {case.name}: {error}")
    assert alarms == []
    assert runs > 60 * SEEDS / APART - SEEDS


def test_a_seed_changes_what_is_drawn():
    """And is forgotten afterwards."""

    def drawn():
        return randomise(build("ffn", "gated", SMALL)).up.weight.sum().item()

    usual = drawn()
    with seeded(3):
        assert drawn() != usual
    assert drawn() == usual
