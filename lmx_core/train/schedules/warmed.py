"""Learning rates: a linear warm-up to `learning_rate`, then a way down over the rest of the budget.

`progress`, the share of the budget that is spent, says where a run is on its way down. Where the way begins follows from
both: after `warmup_steps` of the `step / progress` steps that the run has in all at the pace it had until now.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
from attrs import validators

from lmx_core.config import at_least_one, exact_types
from lmx_core.train.config import TrainConfig

from_0_to_1: Any = [validators.ge(0), validators.le(1)]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class WarmupOptions:
    """Options of every schedule."""

    warmup_from_zero: bool = False
    """Whether the first step has rate 0 (transformers), and not `1 / (warmup_steps + 1)` of the highest (nanoGPT)."""


class Constant:
    """The learning rate stays, once warmed up."""

    Options = WarmupOptions

    def __init__(self, config: TrainConfig, options: WarmupOptions) -> None:
        self.peak, self.warmup, self.from_zero = config.learning_rate, config.warmup_steps, options.warmup_from_zero

    def __call__(self, step: int, progress: float) -> float:
        return self.peak * self.risen(step) * self.remaining(step, progress)

    def risen(self, step: int) -> float:
        """The share of the peak that the warm-up has come to."""
        if step >= self.warmup:
            return 1.0
        return step / self.warmup if self.from_zero else (step + 1) / (self.warmup + 1)

    def remaining(self, step: int, progress: float) -> float:
        """The share of the peak that is left after so many steps, and this share of the budget."""
        return 1.0


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DecayOptions(WarmupOptions):
    """Options of the schedules that come down."""

    final_fraction: float = attrs.field(default=0.1, validator=from_0_to_1)
    """The share of `learning_rate` at the end."""


CURVES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda gone: 1 - gone,
    "cosine": lambda gone: (1 + math.cos(math.pi * gone)) / 2,
    "1-sqrt": lambda gone: 1 - math.sqrt(gone),
}
"""From 1 to 0 while the share of the way down that is gone rises from 0 to 1."""


class Linear(Constant):
    """Down a straight line to `final_fraction`."""

    Options = DecayOptions
    shape = "linear"

    def __init__(self, config: TrainConfig, options: DecayOptions) -> None:
        super().__init__(config, options)
        self.final = options.final_fraction

    def remaining(self, step: int, progress: float) -> float:
        start = self.start(step, progress)
        gone = (progress - start) / (1 - start) if progress > start else 0.0
        return self.final + (1 - self.final) * CURVES[self.shape](min(gone, 1.0))

    def start(self, step: int, progress: float) -> float:
        """The progress at which the way down begins: that at the end of the warm-up."""
        return min(self.warmup * progress / step, 1.0) if step else 0.0


class Cosine(Linear):
    """Down half a cosine to `final_fraction` (SGDR without restarts, arXiv:1608.03983)."""

    shape = "cosine"


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class WSDOptions(DecayOptions):
    """Options of `schedule="wsd"`."""

    decay_fraction: float = attrs.field(default=0.2, validator=[validators.gt(0), validators.le(1)])
    """The share of the run that the way down takes, at its end."""
    shape: Literal["1-sqrt", "linear", "cosine"] = "1-sqrt"
    """How it goes down; `1-sqrt`, fast at first, is the best of those in arXiv:2405.18392."""


class WSD(Linear):
    """Warm-up, stable, decay (arXiv:2404.06395): the peak is kept, and left in the last part of the run alone.

    A checkpoint from before that part serves runs of any length.
    """

    Options = WSDOptions

    def __init__(self, config: TrainConfig, options: WSDOptions) -> None:
        super().__init__(config, options)
        self.stable, self.shape = 1 - options.decay_fraction, options.shape

    def start(self, step: int, progress: float) -> float:
        return max(self.stable, super().start(step, progress))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class InverseSqrtOptions(WarmupOptions):
    """Options of `schedule="inverse_sqrt"`."""

    timescale: int | None = attrs.field(default=None, validator=validators.optional(validators.and_(*at_least_one)))
    """Steps after the warm-up in which the rate goes down to `1 / sqrt(2)` of the highest;
    `warmup_steps` unless given, or 10,000 without a warm-up."""


class InverseSqrt(Constant):
    """Down as `1 / sqrt(1 + (step - warmup_steps) / timescale)` (arXiv:1706.03762), however long the run is."""

    Options = InverseSqrtOptions

    def __init__(self, config: TrainConfig, options: InverseSqrtOptions) -> None:
        super().__init__(config, options)
        self.timescale = options.timescale or config.warmup_steps or 10_000

    def remaining(self, step: int, progress: float) -> float:
        return 1 / math.sqrt(max(1 + (step - self.warmup) / self.timescale, 1.0))
