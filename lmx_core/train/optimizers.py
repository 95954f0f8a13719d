"""Optimisers, built as `Class(config, options)` of a `TrainConfig`: objects with MLX's optimizer interface."""

from typing import Any

import attrs
from attrs import validators
from mlx import optimizers as optim
from mlx.core import array
from mlx.utils import tree_map_with_path

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


class AdamW(optim.Adam):
    """Adam with bias correction and decoupled weight decay (arXiv:1711.05101), none of it on norms and biases."""

    Options = AdamWOptions

    def __init__(self, config: TrainConfig, options: AdamWOptions) -> None:
        super().__init__(
            learning_rate=config.learning_rate,
            betas=[options.beta1, options.beta2],
            eps=options.eps,
            bias_correction=True,
        )
        self.weight_decay = config.weight_decay

    def apply_gradients(self, gradients: Any, parameters: Any) -> Any:
        faded = tree_map_with_path(lambda path, _, weight: self._faded(path, weight), gradients, parameters)
        return super().apply_gradients(gradients, faded)

    def _faded(self, path: str, weight: array) -> array:
        # A norm's gain has one axis, a bias too, or one for each of many experts; to pull it to zero is not to regularise it.
        if weight.ndim < 2 or path.rpartition(".")[2] == "bias":
            return weight
        return weight * (1 - self.learning_rate * self.weight_decay).astype(weight.dtype)
