"""Which problems come next: harder ones once those of now are mostly solved."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from attrs import validators
from numpy.typing import NDArray

from lmx_core.config import Field, exact_types
from lmx_core.errors import CheckpointError, ConfigError, DataError


def share(instance: object, attribute: Field, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"must be from 0 to 1: {value}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class PassRateOptions:
    """Options of a curriculum that moves with the pass rate."""

    window: int = attrs.field(default=256, validator=validators.ge(1))
    """Completions, of prompts of the present level, over which the rate is taken; none are left over from another level."""
    raise_at: float = attrs.field(default=0.8, validator=share)
    """Rate from which on the next level begins."""
    lower_at: float = attrs.field(default=0.1, validator=share)
    """Rate down to which the level before comes back; 0 is for a window in which nothing passes."""
    start: int = attrs.field(default=0, validator=validators.ge(0))
    """The first level: the difficulties that there are, in order, counted from 0."""
    earlier: float = attrs.field(default=0.2, validator=[validators.ge(0), validators.lt(1)])
    """Share of the prompts that are of levels before the present one."""
    passes: float = 0.5
    """Reward from which on a completion counts as passed."""

    def __attrs_post_init__(self) -> None:
        if self.lower_at >= self.raise_at:
            raise ConfigError(f"lower_at={self.lower_at} must be below raise_at={self.raise_at}")


class PassRate:
    """A level of difficulty that rises and falls with the share of completions that pass.

    `difficulties` are those of the prompts, by whose places they are chosen.
    """

    Options = PassRateOptions

    def __init__(self, difficulties: Sequence[int | float], options: PassRateOptions | None = None) -> None:
        self.options = options or PassRateOptions()
        self.difficulties = np.asarray(difficulties, np.float64)
        if not self.difficulties.size or not np.isfinite(self.difficulties).all():
            raise DataError("a curriculum needs prompts, each with a difficulty that is a number")
        self.levels = np.unique(self.difficulties)
        """The difficulties that there are, rising."""
        if self.options.start >= len(self.levels):
            raise ConfigError(f"start={self.options.start}: the prompts have {len(self.levels)} levels, counted from 0")
        self.level = self.options.start
        self.passed = np.zeros(0, np.bool_)
        """Of the completions in the window, the last one last."""

    @property
    def rate(self) -> float:
        """Share of the window that passed; NaN before the first."""
        return float(self.passed.mean()) if self.passed.size else float("nan")

    def choose(self, count: int, rng: np.random.Generator) -> list[int]:
        """Places of prompts: each once before any twice, those of the present level and of earlier ones apart."""
        here = self.difficulties == self.levels[self.level]
        before = self.difficulties < self.levels[self.level]
        earlier = round(count * self.options.earlier) if before.any() else 0
        chosen = np.concatenate([drawn(before, earlier, rng), drawn(here, count - earlier, rng)])
        return rng.permutation(chosen).tolist()

    def tell(self, indices: Sequence[int], rewards: Sequence[Any] | NDArray[Any]) -> None:
        """What was earned for prompts: (N,), or (N, G) for several completions each. NaN, of which nothing is known, is
        left out."""
        found = np.asarray(rewards, np.float64)
        places = np.asarray(indices, np.int64)
        if found.shape[:1] != places.shape:
            raise ConfigError(f"rewards of shape {found.shape} are not those of {len(places)} prompts")
        of_level = found[self.difficulties[places] == self.levels[self.level]]
        known = of_level[~np.isnan(of_level)]
        self.passed = np.concatenate([self.passed, known >= self.options.passes])[-self.options.window :]
        if self.passed.size == self.options.window:
            self._move(self.rate)

    def _move(self, rate: float) -> None:
        step = int(rate >= self.options.raise_at) - int(rate <= self.options.lower_at)
        level = min(max(self.level + step, 0), len(self.levels) - 1)
        if level != self.level:
            self.level, self.passed = level, np.zeros(0, np.bool_)

    def saved(self) -> dict[str, mx.array]:
        """What `restore` needs."""
        return {"level": mx.array(self.level), "passed": mx.array(self.passed.tolist(), mx.bool_)}

    def restore(self, arrays: Mapping[str, mx.array]) -> None:
        """Go on as what gave `saved()`. `CheckpointError` where it was of other prompts or options."""
        level: Any = arrays["level"].item()
        passed = np.array(arrays["passed"], np.bool_)
        if level >= len(self.levels) or passed.size > self.options.window:
            raise CheckpointError(
                f"the curriculum was at level {level} with a window of {passed.size}; these prompts have "
                f"{len(self.levels)} levels, and window={self.options.window}"
            )
        self.level, self.passed = level, passed


def drawn(allowed: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many of the places that are allowed, in orders drawn one after another."""
    places = np.flatnonzero(allowed)
    rounds = -(-count // len(places)) if count else 0
    return np.concatenate([np.zeros(0, np.int64), *(rng.permutation(places) for _ in range(rounds))])[:count]
