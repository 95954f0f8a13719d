"""The conformance kit: the promises of every component, as checks that a plugin's tests run.

@pytest.mark.parametrize("check", checks.MIXER, ids=lambda check: check.__name__)
def test_mine_is_a_mixer(check):
    check(lambda: MyMixer(SMALL))
"""

from lmx_core.testing import checks
from lmx_core.testing.subjects import SMALL, randomise

__all__ = ["SMALL", "checks", "randomise"]
