"""How much better a completion is than others of its prompt."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-4
"""Is added to the standard deviation."""
Numbers = NDArray[np.float64]


def group(rewards: Numbers) -> Numbers:
    """`(r - mean) / (std + 1e-4)` of each group (GRPO, arXiv:2402.03300), std with n - 1 in its denominator."""
    return without_std(rewards) / (_std(rewards) + EPSILON)


def without_std(rewards: Numbers) -> Numbers:
    """`r - mean` of each group (Dr. GRPO, arXiv:2503.20783)."""
    return np.where(_level(rewards), rewards * 0, rewards - _mean(rewards))


def batch(rewards: Numbers) -> Numbers:
    """`r - mean` of each group, divided by the standard deviation of all groups' rewards together."""
    return without_std(rewards) / (_std(rewards.reshape(1, -1)) + EPSILON)


def leave_one_out(rewards: Numbers) -> Numbers:
    """`r` less the mean of the others of its group (RLOO, arXiv:2402.14740)."""
    known = (~np.isnan(rewards)).sum(-1, keepdims=True)
    return without_std(rewards) * known / np.maximum(known - 1, 1)


def leave_one_out_scaled(rewards: Numbers) -> Numbers:
    """The same, as standard scores of all groups together."""
    return _scores(leave_one_out(rewards))


ADVANTAGES: Mapping[str, Callable[[Numbers], Numbers]] = {
    "group": group,
    "no_std": without_std,
    "batch": batch,
    "leave_one_out": leave_one_out,
    "leave_one_out_scaled": leave_one_out_scaled,
}
"""Of rewards, (groups, completions), to the same shape. A reward that is NaN stays one, and no other depends on it; where
all others of a group are equal they are exactly 0.
"""


def advantages(rewards: NDArray[Any], how: str = "group") -> Numbers:
    """Of rewards, (groups, completions); 0 where a reward is NaN, which then is in no mean and no deviation."""
    return np.nan_to_num(ADVANTAGES[how](np.asarray(rewards, np.float64)), nan=0.0)


def advantages_of_each(rewards: NDArray[Any], weights: NDArray[Any]) -> Numbers:
    """Of several rewards, (groups, completions, rewards): each one's `group` advantages, weighted and added, then as
    standard scores of all groups together, so that a reward of large numbers does not drown the others (GDPO,
    arXiv:2601.05242). 0 where all rewards of a completion are NaN.
    """
    rewards = np.asarray(rewards, np.float64)
    each = np.stack([group(rewards[..., i]) for i in range(rewards.shape[-1])], axis=-1)
    total = np.where(np.isnan(rewards).all(-1), np.nan, np.nansum(each * np.asarray(weights), axis=-1))
    return np.nan_to_num(_scores(total), nan=0.0)


def has_signal(rewards: NDArray[Any]) -> NDArray[np.bool_]:
    """Which groups, of (groups, completions), have rewards that differ."""
    return ~_level(np.asarray(rewards, np.float64))[:, 0]


def _level(rewards: Numbers) -> NDArray[np.bool_]:
    """Where the known rewards of a group are equal, (groups, 1): less their mean they would be 0 but for rounding."""
    high = np.where(np.isnan(rewards), -np.inf, rewards).max(-1, keepdims=True)
    low = np.where(np.isnan(rewards), np.inf, rewards).min(-1, keepdims=True)
    return high <= low


def _mean(rewards: Numbers) -> Numbers:
    known = np.maximum((~np.isnan(rewards)).sum(-1, keepdims=True), 1)
    return np.nansum(rewards, axis=-1, keepdims=True) / known


def _std(rewards: Numbers) -> Numbers:
    """With n - 1 in the denominator; 0 where only one is known."""
    known = (~np.isnan(rewards)).sum(-1, keepdims=True)
    squares = np.nansum(np.square(rewards - _mean(rewards)), axis=-1, keepdims=True)
    return np.sqrt(squares / np.maximum(known - 1, 1))


def _scores(values: Numbers) -> Numbers:
    flat = values.reshape(1, -1)
    return ((flat - _mean(flat)) / (_std(flat) + EPSILON)).reshape(values.shape)
