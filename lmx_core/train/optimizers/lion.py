"""Lion: the sign of the momentum."""

import attrs
from mlx import optimizers as optim
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.train.config import TrainConfig
from lmx_core.train.optimizers.adam import share
from lmx_core.train.optimizers.decay import DecoupledDecay


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LionOptions:
    """Options of `optimizer="lion"`."""

    beta1: float = attrs.field(default=0.9, validator=share)
    """How much of the momentum is in a step; the rest is the gradient's."""
    beta2: float = attrs.field(default=0.99, validator=share)
    """Decay of the momentum."""


class Lion(DecoupledDecay, optim.Lion):
    """Steps along the sign of momentum and gradient (arXiv:2302.06675); no decay on norms and biases.

    All numbers move by the whole rate: take 3 to 10 times less than for AdamW, and so many times its `weight_decay`.
    """

    Options = LionOptions

    def __init__(self, config: TrainConfig, options: LionOptions) -> None:
        super().__init__(config.learning_rate, [options.beta1, options.beta2])
        self.decay = config.weight_decay

    def mup_rate(self, path: str, weight: array, fan_in: float, fan_out: float) -> float:
        """As Adam's, for the same reason."""
        return 1 / fan_in
