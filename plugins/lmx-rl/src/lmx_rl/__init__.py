"""Learning from preferences and rewards.

Names are imported when they are first used: `import lmx_rl` alone imports nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmx_rl.rewards import Completion as Completion
    from lmx_rl.rewards import ExactMatch as ExactMatch
    from lmx_rl.rewards import Format as Format
    from lmx_rl.rewards import Judge as Judge
    from lmx_rl.rewards import Length as Length
    from lmx_rl.rewards import Likelihood as Likelihood
    from lmx_rl.rewards import Maths as Maths
    from lmx_rl.rewards import Numeric as Numeric
    from lmx_rl.rewards import Regex as Regex
    from lmx_rl.rewards import Repetition as Repetition
    from lmx_rl.rewards import Reward as Reward
    from lmx_rl.rewards import RewardModel as RewardModel
    from lmx_rl.rewards import RewardSpec as RewardSpec
    from lmx_rl.rewards import Verdict as Verdict
    from lmx_rl.rewards import Verdicts as Verdicts

_HOMES = {
    "rewards": (
        *("Completion", "ExactMatch", "Format", "Judge", "Length", "Likelihood", "Maths", "Numeric", "Regex"),
        *("Repetition", "Reward", "RewardModel", "RewardSpec", "Verdict", "Verdicts"),
    ),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lmx_rl' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lmx_rl.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
