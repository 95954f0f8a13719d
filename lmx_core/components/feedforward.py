"""What each position computes on its own."""

from collections.abc import Callable
from typing import Literal

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig
from lmx_core.shapes import Float

ACTIVATIONS: dict[str, Callable[[array], array]] = {
    "gelu": nn.gelu,
    "gelu_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
}
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]


class FFNBase(nn.Module):
    """A feed-forward sublayer: `(B, L, D) -> (B, L, D)`, each position by itself."""

    silent = False
    """Whether it returns zeros, so that a layout may leave out its norm and the residual sum."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x)")


@attrs.frozen(kw_only=True)
class StandardOptions:
    """Options of `ffn="standard"`."""

    activation: Activation = "gelu"
    """`gelu` is exact, `gelu_tanh` the approximation that GPT-2 was trained with."""


class StandardFFN(FFNBase):
    """`down(activation(up(x)))`, section 3.3 of arXiv:1706.03762."""

    Options = StandardOptions

    def __init__(self, config: BlockConfig, options: StandardOptions) -> None:
        super().__init__(config)
        self.activation = options.activation  # its name: a compiled function cannot be copied
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


@attrs.frozen(kw_only=True)
class GatedOptions:
    """Options of `ffn="gated"`."""

    activation: Activation = "silu"
    """`silu` makes it SwiGLU, `gelu_tanh` GeGLU."""


class GatedFFN(FFNBase):
    """`down(activation(gate(x)) * up(x))`, arXiv:2002.05202."""

    Options = GatedOptions

    def __init__(self, config: BlockConfig, options: GatedOptions) -> None:
        super().__init__(config)
        self.activation = options.activation  # its name: a compiled function cannot be copied
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        return self.down(ACTIVATIONS[self.activation](self.gate(x)) * self.up(x))


class NoFFN(FFNBase):
    """Zeros: what a residual stream adds when there is no FFN."""

    silent = True

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        return mx.zeros_like(x)
