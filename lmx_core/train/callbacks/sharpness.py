"""How sharply the loss bends."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from attrs import validators
from mlx.core import array
from mlx.utils import tree_flatten, tree_unflatten

from lmx_core.config import at_least_one, exact_types
from lmx_core.lengths import length
from lmx_core.objective import auxiliary_loss, take_reports
from lmx_core.train.callbacks.measurement import Measurement, MeasurementOptions, some_steps
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer

Vector = list[array]
"""As many numbers as are trained, in arrays of their shapes."""
LACKING = re.compile("implemented|NYI|not support")
"""What MLX says of an operation whose gradient has no gradient."""
REACH = 5e-4
"""How far from the weights, in shares of their length, gradients are compared where none can be differentiated."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SharpnessOptions(MeasurementOptions):
    """Options of `callback="sharpness"`."""

    every: int | None = attrs.field(default=None, validator=some_steps)
    """Steps from one measurement to the next; `train.eval_interval` unless given, since it costs many steps."""
    iterations: int = attrs.field(default=20, validator=at_least_one)
    """Products with the Hessian, at most."""
    tolerance: float = attrs.field(default=1e-3, validator=validators.ge(0))
    """It ends when an eigenvalue is known to be this near, as a share of it."""


class Sharpness(Measurement):
    """The largest eigenvalue of the Hessian of the last batch's loss, by Lanczos from one and the same vector.

    Training with a fixed rate tends to raise it to 2 / rate and to stay there (arXiv:2103.00065). A product with the Hessian
    is the gradient of a gradient or, where a part of the model has none, the difference of two gradients: about two forward
    and two backward passes in float32, not compiled, with twice the memory of one. It is approached from below.
    """

    Options = SharpnessOptions

    def __init__(self, config: TrainConfig, options: SharpnessOptions) -> None:
        super().__init__(config, options)
        self.every = options.every or config.eval_interval
        self.iterations, self.tolerance = options.iterations, options.tolerance

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        product = hessian_of(trainer)
        return {"sharpness": mx.array(largest_eigenvalue(*product, self.iterations, self.tolerance))}


def hessian_of(trainer: Trainer) -> tuple[Callable[[Vector], Vector], Vector]:
    """Products with the Hessian of the loss of the last batch, auxiliary losses included; and what is trained."""
    model, batch = trainer.model, trainer.batches[-1]
    flat: Any = tree_flatten(model.trainable_parameters())
    names, weights = [name for name, _ in flat], [weight.astype(mx.float32) for _, weight in flat]

    def loss(values: Vector) -> array:
        model.update(tree_unflatten(list(zip(names, values, strict=True))))
        total, count, _ = trainer.objective(model, batch)
        return total / mx.maximum(count, 1) + auxiliary_loss(take_reports(model))

    gradients: Callable[[Vector], Vector] = mx.grad(loss)

    def exact(vector: Vector) -> Vector:
        return mx.vjp(lambda *values: gradients([*values]), weights, vector)[1]

    def compared(vector: Vector) -> Vector:
        reach = REACH * length(weights) / length(vector)
        ahead, behind = (
            gradients([weight + side * reach * each for weight, each in zip(weights, vector, strict=True)])
            for side in (1, -1)
        )
        return [(one - other) / (2 * reach) for one, other in zip(ahead, behind, strict=True)]

    try:
        exact(weights)
    except (ValueError, RuntimeError) as error:
        if not LACKING.search(str(error)):
            raise
        return compared, weights
    return exact, weights


def largest_eigenvalue(product: Callable[[Vector], Vector], like: Vector, iterations: int, tolerance: float) -> float:
    """Of a symmetric matrix by its products with vectors; nan where one is not finite.

    Lanczos: the matrix within the span of what it makes of the first vector, of which three vectors at a time are held. Those
    of before are orthogonal but for rounding, which finds the largest value again and no larger one.
    """
    keys = mx.random.split(mx.random.key(0), len(like))
    vector = _divided([mx.random.normal(each.shape, key=key) for each, key in zip(like, keys, strict=True)])
    before, beta, value = [mx.zeros_like(each) for each in like], 0.0, 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(iterations):
        turned = product(vector)
        alpha = sum(((new * old).sum() for new, old in zip(turned, vector, strict=True)), mx.array(0.0))
        rest = [new - alpha * own - beta * old for new, own, old in zip(turned, vector, before, strict=True)]
        left = length(rest)
        mx.eval(alpha, left, rest)
        diagonal.append(_number(alpha))
        beta = _number(left)
        if not (math.isfinite(diagonal[-1]) and math.isfinite(beta)):
            return math.nan
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        value = float(values[-1])
        if beta * abs(vectors[-1, -1]) <= tolerance * abs(value):  # an eigenvalue is no farther away than this
            break
        beside.append(beta)
        before, vector = vector, [each / beta for each in rest]
    return value


def _number(scalar: array) -> float:
    value: Any = scalar.item()
    return value


def _divided(vector: Vector) -> Vector:
    """By its length."""
    size = length(vector)
    return [each / size for each in vector]
