"""Gradient descent with momentum."""

import attrs
from mlx import optimizers as optim
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.errors import ConfigError
from lmx_core.train.config import TrainConfig
from lmx_core.train.optimizers.adam import share
from lmx_core.train.optimizers.decay import DecoupledDecay


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SGDOptions:
    """Options of `optimizer="sgd"`."""

    momentum: float = attrs.field(default=0.9, validator=share)
    nesterov: bool = False
    """Whether a step looks ahead along the momentum."""

    def __attrs_post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ConfigError("nesterov = true looks ahead along the momentum, and momentum = 0. Give it one.")


class SGD(DecoupledDecay, optim.SGD):
    """`v = momentum * v + g`, and a step along v, or with `nesterov` along `g + momentum * v`; decay is decoupled, and none
    of it on norms and biases."""

    Options = SGDOptions

    def __init__(self, config: TrainConfig, options: SGDOptions) -> None:
        super().__init__(config.learning_rate, options.momentum, nesterov=options.nesterov)
        self.decay = config.weight_decay

    def mup_rate(self, path: str, weight: array, fan_in: float, fan_out: float) -> float:
        """Table 8 of arXiv:2203.03466: gradients of what has wide outputs alone become smaller as these grow."""
        return fan_out / fan_in
