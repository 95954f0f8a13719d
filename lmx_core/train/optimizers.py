"""Optimisers, built as `Class(config, options)` of a `TrainConfig`: objects with MLX's optimizer interface."""

from typing import Any

import attrs
from attrs import validators
from mlx import optimizers as optim
from mlx.core import array

from lmx_core.train.config import TrainConfig

share: Any = [validators.ge(0), validators.lt(1)]


@attrs.frozen(kw_only=True)
class AdamWOptions:
    """Options of `optimizer="adamw"`."""

    beta1: float = attrs.field(default=0.9, validator=share)
    """Decay of the mean of the gradients."""
    beta2: float = attrs.field(default=0.95, validator=share)
    """Decay of the mean of their squares."""
    eps: float = attrs.field(default=1e-8, validator=validators.gt(0))


class AdamW(optim.AdamW):
    """Adam with bias correction and decoupled weight decay (arXiv:1711.05101), none of it on norms and biases."""

    Options = AdamWOptions

    def __init__(self, config: TrainConfig, options: AdamWOptions) -> None:
        super().__init__(
            learning_rate=config.learning_rate,
            betas=[options.beta1, options.beta2],
            eps=options.eps,
            weight_decay=config.weight_decay,
            bias_correction=True,
        )

    def apply_single(self, gradient: array, parameter: array, state: dict[str, Any]) -> array:
        # A norm's gain or a bias has one axis; to pull it to zero is not to regularise it.
        update = super().apply_single if parameter.ndim > 1 else super(optim.AdamW, self).apply_single
        return update(gradient, parameter, state)
