"""Learning rates: a linear warm-up to `learning_rate`, then a way down over the rest of the budget."""

import math

import attrs
from attrs import validators

from lmx_core.train.config import TrainConfig


class Constant:
    """The learning rate stays, once warmed up."""

    def __init__(self, config: TrainConfig) -> None:
        self.peak, self.warmup = config.learning_rate, config.warmup_steps

    def __call__(self, step: int, progress: float) -> float:
        return self.peak * min((step + 1) / (self.warmup + 1), 1.0) * self.remaining(progress)

    def remaining(self, progress: float) -> float:
        """The share of the peak that is left, when `progress` of the budget is spent."""
        return 1.0


@attrs.frozen(kw_only=True)
class DecayOptions:
    """Options of the schedules that come down."""

    final_fraction: float = attrs.field(default=0.1, validator=[validators.ge(0), validators.le(1)])
    """The share of `learning_rate` at the end."""


class Linear(Constant):
    """Down a straight line to `final_fraction`."""

    Options = DecayOptions

    def __init__(self, config: TrainConfig, options: DecayOptions) -> None:
        super().__init__(config)
        self.final = options.final_fraction
        self.warm = min(config.warmup_steps / config.max_steps, 1.0)

    def remaining(self, progress: float) -> float:
        gone = (progress - self.warm) / (1 - self.warm) if progress > self.warm else 0.0
        return self.final + (1 - self.final) * self.curve(min(gone, 1.0))

    def curve(self, gone: float) -> float:
        return 1 - gone


class Cosine(Linear):
    """Down half a cosine to `final_fraction` (SGDR without restarts, arXiv:1608.03983)."""

    def curve(self, gone: float) -> float:
        return (1 + math.cos(math.pi * gone)) / 2
