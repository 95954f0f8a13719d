"""Muon: orthogonal updates of matrices."""

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import attrs
import mlx.core as mx
from attrs import validators
from mlx import optimizers as optim
from mlx.core import array

from lmx_core.config import as_tuple, at_least_one, exact_types
from lmx_core.shapes import Float
from lmx_core.train.config import TrainConfig
from lmx_core.train.optimizers.adam import AdamW, AdamWOptions, share
from lmx_core.train.optimizers.decay import DecoupledDecay
from lmx_core.train.optimizers.parted import Parted

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NOT_HIDDEN = {"embed", "positions", "head"}
"""Parts of a model whose matrices are tables, or end at the vocabulary."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MuonOptions(AdamWOptions):
    """Options of `optimizer="muon"`; `beta1`, `beta2` and `eps` are those of its AdamW."""

    momentum: float = attrs.field(default=0.95, validator=share)
    nesterov: bool = True
    """Whether a step looks ahead along the momentum."""
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """`match_rms_adamw`: updates are `0.2 * sqrt(max(out, in))` times orthogonal, as large as AdamW's, so that its rates
    suit (arXiv:2502.16982); `original`: `sqrt(max(1, out / in))`, for rates about 0.02."""
    iterations: int = attrs.field(default=5, validator=at_least_one)
    """Newton-Schulz steps."""
    adamw_learning_rate: float | None = attrs.field(default=None, validator=validators.optional(validators.ge(0)))
    """The highest rate of its AdamW, which follows the schedule too; `train.learning_rate` unless given."""
    adamw_for: Sequence[str] = attrs.field(default=("*conv*",), converter=as_tuple)
    """Patterns of parameter paths that are AdamW's besides embeddings, positions, the head, norms and biases."""


class Muon(Parted):
    """Orthogonal updates of hidden matrices (kellerjordan.github.io/posts/muon), AdamW for everything else.

    Embeddings, positions, the head and what has one axis are AdamW's. A stack of matrices, as experts have, is
    orthogonalised matrix by matrix. Decay is decoupled, and none of it on norms and biases.
    """

    Options = MuonOptions

    def __init__(self, config: TrainConfig, options: MuonOptions) -> None:
        self.options = options
        peak, rate = config.learning_rate, options.adamw_learning_rate
        ratio = 1.0 if rate is None or not peak else rate / peak
        parts = [Orthogonal(config, options), AdamW(config, options)]
        super().__init__(parts, lambda *each: 0 if self.is_hidden(*each) else 1, [1.0, ratio], peak)

    def is_hidden(self, path: str, weight: array) -> bool:
        """Whether a parameter is a matrix inside the model."""
        *parts, name = path.split(".")
        if weight.ndim < 2 or name == "bias" or min(weight.shape[-2:]) == 1 or NOT_HIDDEN & set(parts):
            return False
        return not any(fnmatchcase(path, pattern) for pattern in self.options.adamw_for)

    def mup_rate(self, path: str, weight: array, fan_in: float, fan_out: float) -> float:
        """What keeps the spectral norm of an update at `sqrt(out / in)`, condition 1 of arXiv:2310.17813; else AdamW's."""
        if not self.is_hidden(path, weight):
            return self.optimizers[1].mup_rate(path, weight, fan_in, fan_out)
        rows, columns = weight.shape[-2:]
        norm, scale = self.options.scale, math.sqrt(fan_out / fan_in)
        return scale * size(norm, rows / fan_out, columns / fan_in) / size(norm, rows, columns)


class Orthogonal(DecoupledDecay, optim.Optimizer):
    """Muon's own part: momentum, whose singular values all become about 1."""

    def __init__(self, config: TrainConfig, options: MuonOptions) -> None:
        super().__init__()
        self.options, self.decay = options, config.weight_decay
        self.learning_rate = config.learning_rate

    def init_single(self, parameter: array, state: dict[str, Any]) -> None:
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: array, parameter: array, state: dict[str, Any]) -> array:
        options = self.options
        state["v"] = v = options.momentum * state["v"] + gradient
        update = orthogonal(gradient + options.momentum * v if options.nesterov else v, options.iterations)
        rate = self.learning_rate * size(options.scale, *parameter.shape[-2:])
        return parameter - (rate * update).astype(parameter.dtype)


def size(scale: str, rows: float, columns: float) -> float:
    """The factor of an orthogonal update of a matrix with so many rows and columns."""
    return math.sqrt(max(1, rows / columns)) if scale == "original" else 0.2 * math.sqrt(max(rows, columns))


def orthogonal(x: Float[array, "*N R C"], iterations: int = 5) -> Float[array, "*N R C"]:
    """`U V^T` of `x = U S V^T`, nearly: singular values come to lie between about 0.7 and 1.2.

    Newton-Schulz with a quintic polynomial, in float32.
    """
    a, b, c = COEFFICIENTS
    y = x.astype(mx.float32)
    tall = y.shape[-2] > y.shape[-1]
    y = y.swapaxes(-1, -2) if tall else y
    y = y / mx.maximum(mx.linalg.norm(mx.linalg.norm(y, axis=-1, keepdims=True), axis=-2, keepdims=True), 1e-7)
    for _ in range(iterations):
        gram = y @ y.swapaxes(-1, -2)
        y = a * y + (b * gram + c * gram @ gram) @ y
    return y.swapaxes(-1, -2) if tall else y
