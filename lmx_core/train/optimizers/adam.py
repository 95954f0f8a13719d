"""Adam, with and without weight decay."""

from typing import Any

import attrs
from attrs import validators
from mlx import optimizers as optim
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.train.config import TrainConfig
from lmx_core.train.optimizers.decay import DecoupledDecay

share: Any = [validators.ge(0), validators.lt(1)]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class AdamOptions:
    """Options of `optimizer="adam"`."""

    beta1: float = attrs.field(default=0.9, validator=share)
    """Decay of the mean of the gradients."""
    beta2: float = attrs.field(default=0.999, validator=share)
    """Decay of the mean of their squares."""
    eps: float = attrs.field(default=1e-8, validator=validators.gt(0))


class Adam(optim.Adam):
    """Adam with bias correction (arXiv:1412.6980). It has no weight decay: `train.weight_decay` is left aside."""

    Options = AdamOptions
    decays = False

    def __init__(self, config: TrainConfig, options: AdamOptions) -> None:
        super().__init__(
            learning_rate=config.learning_rate,
            betas=[options.beta1, options.beta2],
            eps=options.eps,
            bias_correction=True,
        )

    def mup_rate(self, path: str, weight: array, fan_in: float, fan_out: float) -> float:
        """Table 8 of arXiv:2203.03466: every number moves by about the rate, whatever the gradient, so that a sum over the
        inputs moves by as much at each width if the rate goes down as they grow."""
        return 1 / fan_in


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class AdamWOptions(AdamOptions):
    """Options of `optimizer="adamw"`."""

    beta2: float = attrs.field(default=0.95, validator=share)
    """Decay of the mean of their squares."""


class AdamW(DecoupledDecay, Adam):
    """Adam with bias correction and decoupled weight decay (arXiv:1711.05101), none of it on norms and biases."""

    Options = AdamWOptions
    decays = True

    def __init__(self, config: TrainConfig, options: AdamOptions) -> None:
        super().__init__(config, options)
        self.decay = config.weight_decay
