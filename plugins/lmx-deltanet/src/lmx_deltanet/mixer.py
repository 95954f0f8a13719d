"""Mixers with a state of fixed size. Each says by which rule it forgets and writes, and how it answers."""

import math
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.components.attention import join_heads, split_heads
from lmx_core.components.masks import Mask
from lmx_core.components.segments import Segments
from lmx_core.config import BlockConfig
from lmx_core.errors import ConfigError
from lmx_core.shapes import Bool, Float
from lmx_deltanet import fused
from lmx_deltanet.cache import RecurrentCache
from lmx_deltanet.convolution import ShortConvolution
from lmx_deltanet.options import (
    DeltaNetOptions,
    GatedLinearAttentionOptions,
    KimiDeltaAttentionOptions,
    LinearAttentionOptions,
)
from lmx_deltanet.rule import linear_attention

L2_EPS = 1e-6


class LinearAttention(nn.Module):
    """Attention without a softmax, arXiv:2006.16236: a state takes the place of all keys and values.

        q, k, v = qkv_proj(x)               silu(conv(qkv_proj(x))) with a convolution
        q, k    = elu(q) + 1, elu(k) + 1    q also by 1 / sqrt(key_head_dim)
        S       = S + k v^T
        y       = out_proj(rms_norm(S^T q))

    The norm stands in place of the sum of weights (arXiv:2210.10340). A layer remembers one S of `key_head_dim *
    value_head_dim` numbers a value head, and `conv_size - 1` tokens before the convolution, however long the sequence:
    time grows with its length, memory does not. It needs no position. It knows no order but the causal one; an array as
    mask is refused (`ConfigError`). Where a row holds several documents, S is 0 again at the first token of each.
    """

    Options: type[LinearAttentionOptions] = LinearAttentionOptions
    takes = frozenset[str]()
    full_precision = frozenset({"A_log", "dt_bias"})
    segments = True
    sensitive = True  # a norm makes something of an answer that is nearly nothing
    work = 4
    """FLOPs of a token for each number of the state: it is written to, and asked."""

    def __init__(self, config: BlockConfig, options: Any) -> None:
        super().__init__()
        self.key_heads = options.n_key_heads or config.n_heads
        self.value_heads = options.n_value_heads or config.n_heads
        if self.value_heads % self.key_heads:
            raise ConfigError(f"n_value_heads={self.value_heads} is not a multiple of n_key_heads={self.key_heads}")
        self.key_dim = options.key_head_dim or config.head_dim
        self.value_dim = options.value_head_dim or config.head_dim
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        self.qkv_proj = nn.Linear(config.d_model, 2 * keys + values, bias=config.bias)
        if options.conv_size is not None:
            self.convolution = ShortConvolution(2 * keys + values, options.conv_size)
        self.norm = nn.RMSNorm(self.value_dim, eps=options.norm_eps or config.norm_eps)
        self.out_proj = nn.Linear(values, config.d_model, bias=config.bias)

    def make_cache(self) -> RecurrentCache:
        return RecurrentCache()

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        documents, memory = (cache, None) if isinstance(cache, Segments) else (None, cache)
        known = getattr(memory, "padding", None) is not None if documents is None else mask is documents.mask
        if isinstance(mask, array) and not known:  # one that says no more than the cache
            raise ConfigError(
                f"a {type(self).__name__} knows no order but the causal one, and would ignore a mask of its own"
            )
        qkv = self.qkv_proj(x)
        if memory is not None and (tokens := memory.tokens(x.shape[1])) is not None:
            qkv = mx.where(tokens[..., None], qkv, 0)  # zeros before the first token write nothing, and find nothing
        *tail, state = memory.arrays if memory is not None and memory.arrays else (self.empty(len(x)),)
        if "convolution" in self:
            qkv, *tail = self.convolution(qkv, *tail, places=None if documents is None else documents.offset)
            qkv = nn.silu(qkv)
        q, k, v = self.heads(qkv)
        decay, beta = self.decay(x), self.beta(x)
        if documents is not None:
            y, state = linear_attention(q, k, v, self.anew(decay, documents.starts), beta, state)
        elif not self.training and decay is not None and beta is not None and fused.fits(q, v, decay):
            y, state = fused.gated_delta_rule(q, k, v, decay, beta, state)
        else:
            y, state = linear_attention(q, k, v, decay, beta, state)
        if memory is not None:
            memory.update(x.shape[1], *tail, state)
        return self.out_proj(join_heads(self.gated(self.normed(y).astype(x.dtype), x))), cache

    def anew(self, decay: Float[array, "B H L C"] | None, starts: Bool[array, "B L"]) -> Float[array, "B H L C"]:
        """A decay that leaves nothing where a document starts."""
        kept = mx.zeros((1, self.value_heads, 1, 1)) if decay is None else decay
        return mx.where(starts[:, None, :, None], -mx.inf, kept)

    def heads(
        self, qkv: Float[array, "B L C"]
    ) -> tuple[Float[array, "B K L E"], Float[array, "B K L E"], Float[array, "B H L E2"]]:
        """Queries, keys and values, those two as the rule takes them."""
        keys = self.key_heads * self.key_dim
        q, k, v = mx.split(qkv, [keys, 2 * keys], axis=-1)
        q, k = (self.feature(split_heads(part, self.key_heads).astype(mx.float32)) for part in (q, k))
        return q * self.key_dim**-0.5, k, split_heads(v, self.value_heads)

    def feature(self, x: Float[array, "B K L E"]) -> Float[array, "B K L E"]:
        """A query or a key as the rule takes it, from what was projected."""
        return mx.maximum(x, 0) + mx.exp(mx.minimum(x, 0))  # elu + 1, whose gradient is a number for any x

    def decay(self, x: Float[array, "B L D"]) -> Float[array, "B H L C"] | None:
        """The logarithm of what a token leaves of the state, at most 0; None where nothing is forgotten.

        In float32: small ones add up over long stretches.
        """
        return None

    def beta(self, x: Float[array, "B L D"]) -> Float[array, "B H L"] | None:
        """How far what a key recalls moves towards its value; None where values are added to what is there."""
        return None

    def normed(self, y: Float[array, "B H L E"]) -> Float[array, "B H L E"]:
        """What the state answered, in float32: where nothing fades it grows beyond what float16 can hold."""
        return mx.fast.rms_norm(y, self.norm.weight.astype(mx.float32), self.norm.eps)

    def gated(self, y: Float[array, "B H L E"], x: Float[array, "B L D"]) -> Float[array, "B H L E"]:
        """What was answered, as it goes out."""
        return y

    def mixing_flops(self, context: int) -> int:
        """FLOPs of a token beside its matrices, however many came before."""
        return self.work * self.value_heads * self.key_dim * self.value_dim

    def empty(self, batch: int) -> Float[array, "B H E E2"]:
        return mx.zeros((batch, self.value_heads, self.key_dim, self.value_dim))


class GatedLinearAttention(LinearAttention):
    """Linear attention that forgets, each channel of a key at a pace of its own, arXiv:2312.06635.

    q, k, v = qkv_proj(x)               silu(conv(qkv_proj(x))) with a convolution; q by 1 / sqrt(key_head_dim)
    decay   = log_sigmoid(decay_proj(x)) / temperature
    S       = diag(exp(decay)) S + k v^T
    y       = out_proj(rms_norm(S^T q) * silu(gate_proj(x)))
    """

    Options = GatedLinearAttentionOptions
    work = 5

    def __init__(self, config: BlockConfig, options: GatedLinearAttentionOptions) -> None:
        super().__init__(config, options)
        self.temperature = options.temperature
        self.decay_proj = LowRank(config.d_model, options.decay_rank, self.value_heads * self.key_dim, bias=True)
        self.gate_proj = nn.Linear(config.d_model, self.value_heads * self.value_dim, bias=config.bias)

    def feature(self, x: Float[array, "B K L E"]) -> Float[array, "B K L E"]:
        return x

    def decay(self, x: Float[array, "B L D"]) -> Float[array, "B H L E"]:
        return nn.log_sigmoid(split_heads(self.decay_proj(x).astype(mx.float32), self.value_heads)) / self.temperature

    def gated(self, y: Float[array, "B H L E"], x: Float[array, "B L D"]) -> Float[array, "B H L E"]:
        return y * nn.silu(split_heads(self.gate_proj(x), self.value_heads))


class DeltaNet(LinearAttention):
    """Linear attention that overwrites what a key recalls, arXiv:2406.06484.

    q, k, v = silu(conv(qkv_proj(x)))   q and k scaled to length 1, q also by 1 / sqrt(key_head_dim)
    beta    = sigmoid(beta_proj(x))     twice that with negative eigenvalues
    S       = S + k (beta (v - S^T k))^T
    y       = out_proj(rms_norm(S^T q))
    """

    Options = DeltaNetOptions
    work = 6

    def __init__(self, config: BlockConfig, options: DeltaNetOptions) -> None:
        super().__init__(config, options)
        self.most = 2 if options.negative_eigenvalues else 1
        self.beta_proj = nn.Linear(config.d_model, self.value_heads, bias=config.bias)

    def feature(self, x: Float[array, "B K L E"]) -> Float[array, "B K L E"]:
        return unit(x)

    def beta(self, x: Float[array, "B L D"]) -> Float[array, "B H L"]:
        return self.most * mx.sigmoid(self.beta_proj(x)).swapaxes(1, 2)


class GatedDeltaNet(DeltaNet):
    """The delta rule with a state that fades, arXiv:2412.06464, as in Qwen3-Next.

    q, k, v, beta as in DeltaNet
    decay = -exp(A_log) softplus(decay_proj(x) + dt_bias)               one number a head
    S     = exp(decay) S;  S = S + k (beta (v - S^T k))^T
    y     = out_proj(rms_norm(S^T q) * silu(gate_proj(x)))
    """

    work = 7

    def __init__(self, config: BlockConfig, options: DeltaNetOptions) -> None:
        super().__init__(config, options)
        self.gate_proj = nn.Linear(config.d_model, self.value_heads * self.value_dim, bias=config.bias)
        self.decay_proj = nn.Linear(config.d_model, self.value_heads, bias=False)
        self.A_log, self.dt_bias = paces(self.value_heads)

    def decay(self, x: Float[array, "B L D"]) -> Float[array, "B H L 1"]:
        return fading(self.decay_proj(x), self.dt_bias, self.A_log)

    def gated(self, y: Float[array, "B H L E"], x: Float[array, "B L D"]) -> Float[array, "B H L E"]:
        return y * nn.silu(split_heads(self.gate_proj(x), self.value_heads))


class KimiDeltaAttention(DeltaNet):
    """The delta rule with a state that fades, each channel of a key at a pace of its own, arXiv:2510.26692 (KDA).

    q, k, v, beta as in DeltaNet
    decay = -exp(A_log) softplus(decay_proj(x) + dt_bias)               A_log one number a head
    S     = diag(exp(decay)) S;  S = S + k (beta (v - S^T k))^T
    y     = out_proj(rms_norm(S^T q) * sigmoid(gate_proj(x)))           decay_proj, gate_proj of low rank
    """

    Options = KimiDeltaAttentionOptions
    work = 7

    def __init__(self, config: BlockConfig, options: KimiDeltaAttentionOptions) -> None:
        super().__init__(config, options)
        keys, values = self.value_heads * self.key_dim, self.value_heads * self.value_dim
        self.gate_proj = LowRank(config.d_model, options.gate_rank or self.value_dim, values)
        self.decay_proj = LowRank(config.d_model, options.decay_rank or self.value_dim, keys)
        self.A_log = paces(self.value_heads)[0]
        self.dt_bias = paces(keys)[1]

    def decay(self, x: Float[array, "B L D"]) -> Float[array, "B H L E"]:
        return fading(self.decay_proj(x), self.dt_bias, self.A_log)

    def gated(self, y: Float[array, "B H L E"], x: Float[array, "B L D"]) -> Float[array, "B H L E"]:
        return y * mx.sigmoid(split_heads(self.gate_proj(x), self.value_heads))


class LowRank(nn.Module):
    """`up(down(x))`: a matrix of so small a rank that it takes fewer numbers as two."""

    def __init__(self, width: int, rank: int, out: int, bias: bool = False) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=bias)

    def __call__(self, x: Float[array, "*B D"]) -> Float[array, "*B F"]:
        return self.up(self.down(x))


def fading(step: Float[array, "B L HE"], bias: Float[array, "HE"], rate: Float[array, "H"]) -> Float[array, "B H L E"]:
    """`-exp(rate) softplus(step + bias)`, for one step a head or for several."""
    steps = nn.softplus(step.astype(mx.float32) + bias.astype(mx.float32))
    return -mx.exp(rate.astype(mx.float32))[:, None, None] * split_heads(steps, rate.size)


def paces(n: int) -> tuple[Float[array, "N"], Float[array, "N"]]:
    """A_log and dt_bias of new layers, those of Mamba (arXiv:2312.00752): decays of -0.001 to -1.6 a token."""
    steps = mx.exp(mx.random.uniform(math.log(1e-3), math.log(0.1), (n,)))
    return mx.log(mx.random.uniform(1, 16, (n,))), steps + mx.log(-mx.expm1(-steps))  # softplus of it is the step


def unit(x: Float[array, "*B E"]) -> Float[array, "*B E"]:
    return x * mx.rsqrt(mx.square(x).sum(axis=-1, keepdims=True) + L2_EPS)
