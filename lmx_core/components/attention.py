"""Softmax attention."""

from typing import Any, ClassVar

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.components.caches import KVCache
from lmx_core.components.masks import Mask, as_boolean
from lmx_core.components.positions import PositionBase
from lmx_core.config import BlockConfig
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float


class AttentionBase(nn.Module):
    """A mixer of positions: `(x, mask, cache) -> (y, cache)`, shapes (B, L, D).

    The block's position comes as the keyword `position` where `__call__` has one; it is also bound to `self._position`,
    for a mixer with three arguments.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"rotate", "bias"})
    """What it can use of a position; a position that provides more is refused when the block is built."""
    silent = False
    """Whether it returns zeros, so that a layout may leave out its norm and the residual sum."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.bind(PositionBase(config))

    def bind(self, position: Any) -> None:
        """Keep the position beside the parameters, not among them: the model owns it, and saves it once."""
        object.__setattr__(self, "_position", position)

    def make_cache(self) -> Any:
        return KVCache()

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x, mask, cache)")


class GroupedQueryAttention(AttentionBase):
    """Attention whose query heads share key/value heads in groups, arXiv:2305.13245.

    `n_kv_heads = n_heads` is multi-head attention, `n_kv_heads = 1` multi-query attention.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        self.scale = config.head_dim**-0.5
        inner, shared = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.d_model, inner, bias=config.bias)
        self.k_proj = nn.Linear(config.d_model, shared, bias=config.bias)
        self.v_proj = nn.Linear(config.d_model, shared, bias=config.bias)
        self.o_proj = nn.Linear(inner, config.d_model, bias=config.bias)

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None, *, position: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        position = self._position if position is None else position
        offset = 0 if cache is None else cache.offset
        q = split_heads(self.q_proj(x), self.n_heads)
        k = split_heads(self.k_proj(x), self.n_kv_heads)
        v = split_heads(self.v_proj(x), self.n_kv_heads)
        q, k = position.rotate(q, k, offset)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        y = attend(q, k, v, self.scale, mask, position.bias(x.shape[1], offset))
        return self.o_proj(join_heads(y)), cache


class MultiHeadAttention(GroupedQueryAttention):
    """Section 3.2 of arXiv:1706.03762: every head has keys and values of its own."""

    def __init__(self, config: BlockConfig) -> None:
        if config.n_kv_heads != config.n_heads:
            raise ConfigError(
                f"attention 'mha' gives each of n_heads={config.n_heads} its own keys; "
                f'n_kv_heads={config.n_kv_heads} needs attention = "gqa"'
            )
        super().__init__(config)


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


def split_heads(x: Float[array, "B L HE"], n_heads: int) -> Float[array, "B H L E"]:
    return x.reshape(*x.shape[:2], n_heads, -1).transpose(0, 2, 1, 3)


def join_heads(x: Float[array, "B H L E"]) -> Float[array, "B L HE"]:
    return x.transpose(0, 2, 1, 3).flatten(2)


def attend(
    q: Float[array, "B H L E"],
    k: Float[array, "B K S E"],
    v: Float[array, "B K S E2"],
    scale: float,
    mask: Mask = None,
    bias: Float[array, "B2 H L S"] | None = None,
) -> Float[array, "B H L E2"]:
    """`softmax(scale * q k^T + bias, where the mask allows) v`."""
    if bias is not None:
        allowed = as_boolean(mask, q.shape[2], k.shape[2])
        mask = bias if allowed is None else mx.where(allowed, bias, -mx.inf)
        mask = mask.astype(q.dtype)
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
