"""Softmax attention."""

from typing import Any, ClassVar, Literal

import attrs
import mlx.core as mx
from attrs import validators
from mlx import nn
from mlx.core import array

from lmx_core.components.caches import KVCache
from lmx_core.components.masks import ALL, Mask, Scope, View
from lmx_core.components.positions import Offset, PositionBase, provided, token_positions
from lmx_core.components.softmax import attend as attend
from lmx_core.config import BlockConfig, ComponentSpec, at_least_one, exact_types, optional_slot
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float

optional_positive = validators.optional(validators.gt(0))


class AttentionBase(nn.Module):
    """A mixer of positions: `(x, mask, cache) -> (y, cache)`, shapes (B, L, D).

    The block's position comes as the keyword `position` where `__call__` has one; it is also bound to `self._position`,
    for a mixer with three arguments.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"rotate", "bias"})
    """What it can use of a position; a position that provides more is refused when the block is built."""
    silent = False
    """Whether it returns zeros, so that a layout may leave out its norm and the residual sum."""
    scope: Scope = ALL
    """How much of the past it looks at."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.bind(PositionBase(config))

    def bind(self, position: Any) -> None:
        """Keep the position beside the parameters, not among them: the model owns it, and saves it once."""
        object.__setattr__(self, "_position", position)

    def make_cache(self) -> Any:
        return KVCache(self.scope)

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x, mask, cache)")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class AttentionOptions:
    """Options of softmax attention, `mha` and `gqa`."""

    qkv_bias: bool | None = None
    """Whether queries, keys and values have a bias; the config's `bias` unless given."""
    o_bias: bool | None = None
    """Whether the output has one; the config's `bias` unless given."""
    scale: float | None = attrs.field(default=None, validator=optional_positive)
    """Factor of the scores; `head_dim ** -0.5` unless given."""
    softcap: float | None = attrs.field(default=None, validator=optional_positive)
    """Scores are bounded to `softcap * tanh(score / softcap)` (Gemma 2)."""
    clip: float | None = attrs.field(default=None, validator=optional_positive)
    """Queries, keys and values are clamped to plus and minus this (MPT, OLMo)."""
    output_gate: bool = False
    """Whether what each head says is multiplied with `sigmoid(gate_proj(x))`, number by number (Qwen3-Next,
    arXiv:2505.06708)."""
    sinks: bool = False
    """Whether each head has a learned score that joins its softmax and weighs nothing (arXiv:2508.10925)."""
    qk_norm: ComponentSpec | None = optional_slot("norm")
    """Norm of queries and keys (arXiv:2302.05442); none unless given."""
    qk_norm_over: Literal["head", "each_head", "all_heads"] = "head"
    """`head`: one norm serves all heads (Qwen 3); `each_head`: a head has weights of its own (Cohere; the norm then brings
    none); `all_heads`: all heads are normalised as one vector (OLMo 2)."""
    qk_norm_after_position: bool = False
    """Whether the norm comes after the rotation (Hunyuan)."""
    query_growth: float = attrs.field(default=0.0, validator=validators.ge(0))
    """Queries far on are made larger, by `1 + query_growth * ln(1 + floor((position + shift) / every))` (Ministral 3)."""
    query_growth_every: int = attrs.field(default=8192, validator=at_least_one)
    """Tokens after which they grow once more."""
    query_growth_shift: int = attrs.field(default=0, validator=validators.in_((0, 1)))
    """What is added to the position there (1 in Llama 4)."""


class HeadNorm(nn.Module):
    """A norm without weights, and then a weight for each number of each head."""

    def __init__(self, norm: nn.Module, n_heads: int, width: int) -> None:
        super().__init__()
        self.norm = norm
        self.weight = mx.ones((n_heads, 1, width))

    def __call__(self, x: Float[array, "B H L E"]) -> Float[array, "B H L E"]:
        return self.norm(x) * self.weight


class GroupedQueryAttention(AttentionBase):
    """Attention whose query heads share key/value heads in groups, arXiv:2305.13245.

    `n_kv_heads = n_heads` is multi-head attention, `n_kv_heads = 1` multi-query attention.
    """

    Options = AttentionOptions

    def __init__(self, config: BlockConfig, options: AttentionOptions | None = None) -> None:
        super().__init__(config)
        self.options = options = options or AttentionOptions()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.scale = config.head_dim**-0.5 if options.scale is None else options.scale
        inner, shared = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        bias = config.bias if options.qkv_bias is None else options.qkv_bias
        self.q_proj = nn.Linear(config.d_model, inner, bias=bias)
        self.k_proj = nn.Linear(config.d_model, shared, bias=bias)
        self.v_proj = nn.Linear(config.d_model, shared, bias=bias)
        o_bias = config.bias if options.o_bias is None else options.o_bias
        self.o_proj = nn.Linear(inner, config.d_model, bias=o_bias)
        if options.qk_norm_after_position and (options.qk_norm is None or options.qk_norm_over == "all_heads"):
            raise ConfigError(
                "qk_norm_after_position norms each head once it is turned: give a qk_norm, and not over all heads; "
                f"got qk_norm={options.qk_norm}, qk_norm_over={options.qk_norm_over!r}"
            )
        if options.qk_norm is not None:
            self.q_norm = self._head_norm(options.qk_norm, config, config.n_heads)
            self.k_norm = self._head_norm(options.qk_norm, config, config.n_kv_heads)
        if options.output_gate:
            self.gate_proj = nn.Linear(config.d_model, inner, bias=bias)
        if options.sinks:
            self.sinks = mx.zeros((config.n_heads,))

    def _head_norm(self, chosen: ComponentSpec, config: BlockConfig, n_heads: int) -> nn.Module:
        over = self.options.qk_norm_over
        norm = build("norm", chosen, config, width=config.head_dim * (n_heads if over == "all_heads" else 1))
        if over != "each_head":
            return norm
        if norm.parameters():
            raise ConfigError(
                f'qk_norm_over="each_head" brings the weights, but qk_norm={chosen} has its own. '
                "Give it weight = false (and bias = false)"
            )
        return HeadNorm(norm, n_heads, config.head_dim)

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None, *, position: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        position = self._position if position is None else position
        offset = 0 if cache is None else cache.offset
        q, k, v = self.heads(x)
        q, k = rotated(position, q, k, cache)
        if self.options.qk_norm_after_position:
            q, k = self.normed(q, k)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        view = View.of(mask, x.shape[1], k.shape[2], cache, self.scope)
        q = self.grown(q, offset)
        bias = position.bias if "bias" in provided(position) else None
        y = attend(q, k, v, self.scale, view, bias, softcap=self.options.softcap, sinks=self.get("sinks"))
        return self.o_proj(self.gated(join_heads(y), x)), cache

    def gated(self, y: Float[array, "B L HE"], x: Float[array, "B L D"]) -> Float[array, "B L HE"]:
        return y * mx.sigmoid(self.gate_proj(x)) if self.options.output_gate else y

    def heads(
        self, x: Float[array, "B L D"]
    ) -> tuple[Float[array, "B H L E"], Float[array, "B K L E"], Float[array, "B K L E"]]:
        """Queries, keys and values, before they are placed."""
        options = self.options
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        if options.qk_norm_over == "all_heads":
            q, k = self.normed(q, k)
        if options.clip is not None:
            q, k, v = (mx.clip(each, -options.clip, options.clip) for each in (q, k, v))
        q, k, v = split_heads(q, self.n_heads), split_heads(k, self.n_kv_heads), split_heads(v, self.n_kv_heads)
        first = options.qk_norm_over != "all_heads" and not options.qk_norm_after_position
        return (*(self.normed(q, k) if first else (q, k)), v)

    def normed(self, q: array, k: array) -> tuple[array, array]:
        return (self.q_norm(q), self.k_norm(k)) if "q_norm" in self else (q, k)

    def grown(self, q: Float[array, "B H L E"], offset: Offset) -> Float[array, "B H L E"]:
        options = self.options
        if not options.query_growth:
            return q
        position = mx.maximum(token_positions(q.shape[2], offset), 0)[..., None, :, None]
        growth = mx.log1p((position + options.query_growth_shift) // options.query_growth_every)
        return q * (1 + options.query_growth * growth).astype(q.dtype)

    def mixing_flops(self, context: int) -> int:
        """FLOPs of the last of so many tokens beside its matrices: a score and a weighted sum for each token that it sees."""
        return 4 * self.n_heads * self.head_dim * self.scope.seen(context)


class MultiHeadAttention(GroupedQueryAttention):
    """Section 3.2 of arXiv:1706.03762: every head has keys and values of its own."""

    def __init__(self, config: BlockConfig, options: AttentionOptions | None = None) -> None:
        if config.n_kv_heads != config.n_heads:
            raise ConfigError(
                f"attention 'mha' gives each of n_heads={config.n_heads} its own keys; "
                f'n_kv_heads={config.n_kv_heads} needs attention = "gqa"'
            )
        super().__init__(config, options)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class SlidingWindowOptions(AttentionOptions):
    """Options of `attention="sliding_window"`: those of `gqa`, and the window."""

    window: int = attrs.field(default=4096, validator=at_least_one)
    """Tokens that a token looks at, itself included."""


class SlidingWindowAttention(GroupedQueryAttention):
    """Each token looks at the last `window` tokens alone (arXiv:1904.10509, arXiv:2310.06825); a cache keeps no others."""

    Options = SlidingWindowOptions

    def __init__(self, config: BlockConfig, options: SlidingWindowOptions) -> None:
        super().__init__(config, options)
        self.scope = Scope(window=options.window)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ChunkedOptions(AttentionOptions):
    """Options of `attention="chunked"`: those of `gqa`, and the size of a chunk."""

    chunk_size: int = attrs.field(default=8192, validator=at_least_one)
    """Tokens of a chunk; the first one begins at position 0."""


class ChunkedAttention(GroupedQueryAttention):
    """Each token looks at those of its own chunk alone, as in the local layers of Llama 4."""

    Options = ChunkedOptions

    def __init__(self, config: BlockConfig, options: ChunkedOptions) -> None:
        super().__init__(config, options)
        self.scope = Scope(chunk=options.chunk_size)


class NoAttention(AttentionBase):
    """Zeros: what a residual stream adds when nothing is mixed."""

    takes = frozenset()
    silent = True

    def make_cache(self) -> None:
        return None

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        return mx.zeros_like(x), cache


def rotated(position: Any, q: array, k: array, cache: Any) -> tuple[array, array]:
    """Queries and keys of new tokens, turned to where they stand after those in the cache."""
    offset = 0 if cache is None else cache.offset
    if not getattr(position, "by_length", False):
        return position.rotate(q, k, offset)
    return position.rotate(q, k, offset, length=getattr(cache, "length", None))


def split_heads(x: Float[array, "B L HE"], n_heads: int) -> Float[array, "B H L E"]:
    return x.reshape(*x.shape[:2], n_heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: Float[array, "B H L E"]) -> Float[array, "B L HE"]:
    return x.transpose(0, 2, 1, 3).flatten(2)
