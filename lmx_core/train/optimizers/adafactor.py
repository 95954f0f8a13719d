"""Adafactor: second moments by rows and columns."""

from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx import optimizers as optim
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.lengths import sum_of_squares
from lmx_core.train.config import TrainConfig
from lmx_core.train.optimizers.decay import DecoupledDecay


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class AdafactorOptions:
    """Options of `optimizer="adafactor"`."""

    beta2_decay: float = attrs.field(default=-0.8, validator=validators.lt(0))
    """The squares of step t weigh `t ** beta2_decay` in their mean."""
    eps: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """What means of squares are at least; that of the parameter's precision unless given."""
    smallest: float = attrs.field(default=1e-3, validator=validators.gt(0))
    """What the size of a parameter counts as at least."""
    clip: float = attrs.field(default=1.0, validator=validators.gt(0))
    """How large, as a root mean square, an update can be before it is scaled by the rate and the parameter's size."""


class Adafactor(DecoupledDecay, optim.Optimizer):
    """Adam's second moments of a matrix as a column times a row (arXiv:1804.04235), in the form of torch's `Adafactor`.

    The rate is relative, to the root mean square of each parameter, and never above `1 / sqrt(step)`. Decay is decoupled,
    and none of it on norms and biases.
    """

    Options = AdafactorOptions

    def __init__(self, config: TrainConfig, options: AdafactorOptions) -> None:
        super().__init__()
        self.options, self.decay = options, config.weight_decay
        self.learning_rate = config.learning_rate

    def init_single(self, parameter: array, state: dict[str, Any]) -> None:
        shape, dtype = parameter.shape, parameter.dtype
        if parameter.ndim < 2:
            state["squares"] = mx.zeros(shape, dtype)
            return
        state["rows"] = mx.zeros((*shape[:-1], 1), dtype)
        state["columns"] = mx.zeros((*shape[:-2], 1, shape[-1]), dtype)

    def apply_single(self, gradient: array, parameter: array, state: dict[str, Any]) -> array:
        options = self.options
        eps = mx.finfo(parameter.dtype).eps if options.eps is None else options.eps
        step = self.step.astype(mx.float32)
        rate = mx.minimum(self.learning_rate, mx.rsqrt(step)) * mx.maximum(_size(parameter), options.smallest)
        squares = self._squares(mx.square(gradient), state, step**options.beta2_decay, eps)
        update = gradient * mx.rsqrt(mx.maximum(squares, eps * eps))
        rate = rate / mx.maximum(1, _size(update) / options.clip)
        return parameter - (rate * update).astype(parameter.dtype)

    def _squares(self, new: array, state: dict[str, Any], share: array, eps: float) -> array:
        """The mean of the squares, to which new ones add a share."""

        def joined(name: str, value: array) -> array:
            state[name] = (state[name] + share * (value - state[name])).astype(value.dtype)
            return state[name]

        if new.ndim < 2:
            return joined("squares", new)
        rows = joined("rows", new.mean(axis=-1, keepdims=True))
        columns = joined("columns", new.mean(axis=-2, keepdims=True))
        return rows * columns / mx.maximum(rows.mean(axis=-2, keepdims=True), eps)


def _size(x: array) -> array:
    """Root mean square, of a stack too."""
    return mx.sqrt(sum_of_squares(x) / x.size)
