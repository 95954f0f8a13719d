"""What each position computes on its own."""

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.components.activations import Activation, activation
from lmx_core.config import BlockConfig, exact_types
from lmx_core.shapes import Float


class FFNBase(nn.Module):
    """A feed-forward sublayer: `(B, L, D) -> (B, L, D)`, each position by itself."""

    silent = False
    """Whether it returns zeros, so that a layout may leave out its norm and the residual sum."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x)")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class StandardOptions:
    """Options of `ffn="standard"`."""

    activation: Activation = "gelu"
    """`gelu` is exact, `gelu_tanh` the approximation that GPT-2 was trained with."""
    bias: bool | None = None
    """Of both maps; the config's `bias` unless given."""


class StandardFFN(FFNBase):
    """`down(activation(up(x)))`, section 3.3 of arXiv:1706.03762."""

    Options = StandardOptions

    def __init__(self, config: BlockConfig, options: StandardOptions) -> None:
        super().__init__(config)
        bias = config.bias if options.bias is None else options.bias
        self.activation = activation(options.activation)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=bias)

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        return self.down(self.activation(self.up(x)))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class GatedOptions:
    """Options of `ffn="gated"`."""

    activation: Activation = "silu"
    """`silu` makes it SwiGLU, `gelu_tanh` GeGLU, `relu` ReGLU, `sigmoid` GLU, `identity` the bilinear one."""
    bias: bool | None = None
    """Of all three maps; the config's `bias` unless given."""


class GatedFFN(StandardFFN):
    """`down(activation(gate(x)) * up(x))`, arXiv:2002.05202."""

    Options = GatedOptions

    def __init__(self, config: BlockConfig, options: GatedOptions) -> None:
        super().__init__(config, StandardOptions(activation=options.activation, bias=options.bias))
        self.gate = nn.Linear(config.d_model, config.d_ff, bias="bias" in self.up)

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        return self.down(self.activation(self.gate(x)) * self.up(x))


class NoFFN(FFNBase):
    """Zeros: what a residual stream adds when there is no FFN."""

    silent = True

    def __call__(self, x: Float[array, "B L D"]) -> Float[array, "B L D"]:
        return mx.zeros_like(x)
