"""Several rewards for many completions at once."""

from collections.abc import Iterable, Sequence
from typing import Any

import attrs
import numpy as np
from attrs import validators
from numpy.typing import NDArray

from lmx_core.config import ComponentSpec, as_spec, exact_types
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_rl.rewards.calls import Calls
from lmx_rl.rewards.found import Failure, Found

Floats = NDArray[np.float64]


@attrs.frozen
class Completion:
    """What is judged."""

    prompt: str
    text: str
    answer: Any = None
    """What the row of data says is right, as it stands there; None where it says nothing."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RewardSpec:
    """One of several rewards."""

    reward: ComponentSpec = attrs.field(converter=as_spec, metadata={"kind": "reward"})
    weight: float = 1.0
    """Its factor in the sum; with 0 it is only logged."""
    name: str | None = attrs.field(default=None, validator=validators.optional(validators.min_len(1)))
    """What it is called in metrics and tables; the component's name unless given."""

    @property
    def title(self) -> str:
        return self.reward.name if self.name is None else self.name


@attrs.frozen(eq=False, kw_only=True)
class Verdicts:
    """Of N completions."""

    total: Floats
    """(N,): weighted sum of the rewards that could judge; NaN where none of those with a weight could, or one failed."""
    each: dict[str, Floats]
    """(N,) of each reward by name, without its weight; NaN where it could not judge."""
    failed: dict[int, str]
    """By number of the completion, what went wrong where a reward raised, or returned what is no finite number."""


class Judge:
    """Rewards, built once, that judge completions together.

    Those that are `async` run in one event loop, up to `concurrency` calls of each at once, each for at most `time_limit`
    seconds; those that say `concurrent = True` in as many threads; all others one call after the other. What is found does
    not depend on which call is done first. `ConfigError` where two rewards have one name, none has a weight, or none a use
    for the time limit.
    """

    def __init__(
        self, rewards: Sequence[RewardSpec], *, concurrency: int = 16, time_limit: float | None = None
    ) -> None:
        self.specs = _distinct(rewards)
        self._rewards = [build("reward", each.reward) for each in self.specs]
        self._calls = Calls(concurrency, time_limit)
        self._calls.check(self._rewards)

    def judge(self, completions: Sequence[Completion]) -> Verdicts:
        """KeyboardInterrupt and SystemExit, also those that a reward raises, go through; all other errors are verdicts."""
        found = self._calls.of(self._rewards, [(each.prompt, each.text, each.answer) for each in completions])
        each = {spec.title: _floats(values) for spec, values in zip(self.specs, found, strict=True)}
        failed = _failures([spec.title for spec in self.specs], found)
        total = weighted(each.values(), [float(spec.weight) for spec in self.specs], len(completions))
        total[[*failed]] = np.nan
        return Verdicts(total=total, each=each, failed=failed)

    def close(self) -> None:
        """End the loop and the threads, and what rewards have started. It may be used again, and then starts them anew."""
        self._calls.close()
        for reward in self._rewards:
            if hasattr(reward, "close"):
                reward.close()


def weighted(values: Iterable[Floats], weights: Sequence[float], count: int) -> Floats:
    """(N,): the sum over what is not NaN, NaN where nothing with a weight is left."""
    total, judged = np.zeros(count), np.zeros(count, np.bool_)
    for each, weight in zip(values, weights, strict=True):
        there = ~np.isnan(each) & (weight != 0)
        total[there] += weight * each[there]
        judged |= there
    return np.where(judged, total, np.nan)


def _distinct(rewards: Sequence[RewardSpec]) -> tuple[RewardSpec, ...]:
    titles = [each.title for each in rewards]
    if twice := [title for title in titles if titles.count(title) > 1]:
        raise ConfigError(f'two rewards are called {twice[0]!r}. Give one of them a name of its own: name = "..."')
    if not any(each.weight for each in rewards):
        weights = ", ".join(f"{each.title} {each.weight:g}" for each in rewards)
        raise ConfigError(f"no reward has a weight, so that nothing is learned ({weights or 'there are no rewards'}).")
    return tuple(rewards)


def _floats(values: Sequence[Found]) -> Floats:
    return np.array([value if isinstance(value, float) else np.nan for value in values], np.float64)


def _failures(titles: Sequence[str], found: Sequence[Sequence[Found]]) -> dict[int, str]:
    messages: dict[int, list[str]] = {}
    for title, values in zip(titles, found, strict=True):
        for i, value in enumerate(values):
            if isinstance(value, Failure):
                messages.setdefault(i, []).append(f"reward {title!r} {value.message}")
    return {i: "; ".join(messages[i]) for i in sorted(messages)}
