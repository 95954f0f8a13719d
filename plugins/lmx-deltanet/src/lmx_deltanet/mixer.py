"""A mixer with a state of fixed size."""

import math
from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx import nn
from mlx.core import array

from lmx_core.components.attention import join_heads, split_heads
from lmx_core.components.masks import Mask
from lmx_core.config import BlockConfig, exact_types
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float
from lmx_deltanet.cache import RecurrentCache
from lmx_deltanet.convolution import ShortConvolution
from lmx_deltanet.rule import gated_delta_rule

L2_EPS = 1e-6
optional_positive = validators.optional(validators.ge(1))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class GatedDeltaNetOptions:
    """Options of `attention="gated_deltanet"`."""

    n_key_heads: int | None = attrs.field(default=None, validator=optional_positive)
    """Heads of queries and keys; `n_heads` unless given."""
    n_value_heads: int | None = attrs.field(default=None, validator=optional_positive)
    """Heads of values and states, a multiple of the key heads, which they share in groups; `n_heads` unless given."""
    key_head_dim: int | None = attrs.field(default=None, validator=optional_positive)
    """Width of a query and of a key; `head_dim` unless given."""
    value_head_dim: int | None = attrs.field(default=None, validator=optional_positive)
    """Width of a value; `head_dim` unless given."""
    conv_size: int = attrs.field(default=4, validator=validators.ge(2))
    """Tokens, the current one included, that the convolution before queries, keys and values looks at."""


class GatedDeltaNet(nn.Module):
    """Linear attention whose state forgets (gate) and overwrites (delta rule), arXiv:2412.06464, as in Qwen3-Next.

        q, k, v = silu(conv(qkv_proj(x)))              q and k scaled to length 1, q also by 1 / sqrt(key_head_dim)
        decay   = -exp(A_log) softplus(decay_proj(x) + dt_bias)            beta = sigmoid(beta_proj(x))
        S       = exp(decay) S;  S = S + k (beta (v - S^T k))^T
        y       = out_proj(rms_norm(S^T q) * silu(gate_proj(x)))

    A layer remembers one S of `key_head_dim * value_head_dim` numbers a value head, and `conv_size - 1` tokens before the
    convolution, however long the sequence: time grows with its length, memory does not. It needs no position. It knows no
    order but the causal one; an array as mask is refused (`ConfigError`).
    """

    Options = GatedDeltaNetOptions
    takes = frozenset[str]()

    def __init__(self, config: BlockConfig, options: GatedDeltaNetOptions) -> None:
        super().__init__()
        self.key_heads = options.n_key_heads or config.n_heads
        self.value_heads = options.n_value_heads or config.n_heads
        if self.value_heads % self.key_heads:
            raise ConfigError(f"n_value_heads={self.value_heads} is not a multiple of n_key_heads={self.key_heads}")
        self.key_dim, self.value_dim = (
            options.key_head_dim or config.head_dim,
            options.value_head_dim or config.head_dim,
        )
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        self.qkv_proj = nn.Linear(config.d_model, 2 * keys + values, bias=config.bias)
        self.convolution = ShortConvolution(2 * keys + values, options.conv_size)
        self.gate_proj = nn.Linear(config.d_model, values, bias=config.bias)
        self.beta_proj = nn.Linear(config.d_model, self.value_heads, bias=config.bias)
        self.decay_proj = nn.Linear(config.d_model, self.value_heads, bias=False)
        self.A_log = mx.log(mx.random.uniform(1, 16, (self.value_heads,)))
        steps = mx.exp(mx.random.uniform(math.log(1e-3), math.log(0.1), (self.value_heads,)))
        self.dt_bias = steps + mx.log(-mx.expm1(-steps))  # softplus of it is the step
        self.norm = nn.RMSNorm(self.value_dim, eps=config.norm_eps)
        self.out_proj = nn.Linear(values, config.d_model, bias=config.bias)

    def make_cache(self) -> RecurrentCache:
        return RecurrentCache()

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        if isinstance(mask, array) and getattr(cache, "padding", None) is None:  # rows of other lengths need none
            raise ConfigError(
                "attention 'gated_deltanet' knows no order but the causal one, and would ignore a mask of its own"
            )
        tail, state = cache.arrays if cache is not None and cache.arrays else (None, self.empty(len(x)))
        mixed, tail = self.convolution(self.qkv_proj(x), tail)
        q, k, v = self.heads(nn.silu(mixed))
        y, state = gated_delta_rule(q, k, v, self.decay(x), mx.sigmoid(self.beta_proj(x)).swapaxes(1, 2), state)
        if cache is not None:
            cache.update(x.shape[1], tail, state)
        gate = split_heads(self.gate_proj(x), self.value_heads)
        return self.out_proj(join_heads(self.norm(y.astype(x.dtype)) * nn.silu(gate))), cache

    def mixing_flops(self, context: int) -> int:
        """FLOPs of a token beside its matrices, however many came before: a state fades, recalls, is written and is asked."""
        return 7 * self.value_heads * self.key_dim * self.value_dim

    def empty(self, batch: int) -> Float[array, "B H E E2"]:
        return mx.zeros((batch, self.value_heads, self.key_dim, self.value_dim))

    def heads(
        self, mixed: Float[array, "B L C"]
    ) -> tuple[Float[array, "B H L E"], Float[array, "B H L E"], Float[array, "B H L E2"]]:
        """Queries, keys and values of the value heads; each key head serves several in a row."""
        keys = self.key_heads * self.key_dim
        q, k, v = mx.split(mixed, [keys, 2 * keys], axis=-1)
        q, k = (unit(split_heads(part, self.key_heads).astype(mx.float32)) for part in (q, k))
        groups = self.value_heads // self.key_heads
        q, k = (mx.repeat(part, groups, axis=1) for part in (q * self.key_dim**-0.5, k))
        return q, k, split_heads(v, self.value_heads)

    def decay(self, x: Float[array, "B L D"]) -> Float[array, "B H L"]:
        """The logarithm of what a token leaves of the state, at most 0. float32: small ones add up over long stretches."""
        step = nn.softplus(self.decay_proj(x).astype(mx.float32) + self.dt_bias.astype(mx.float32))
        return (-mx.exp(self.A_log.astype(mx.float32)) * step).swapaxes(1, 2)


def unit(x: Float[array, "*B E"]) -> Float[array, "*B E"]:
    return x * mx.rsqrt(mx.square(x).sum(axis=-1, keepdims=True) + L2_EPS)
