"""Attention over one latent for all heads.

Besides core's axis letters: `R` numbers of the latent, `N` of a head's key without position, `P` with it, `V` of its value.
"""

from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx import nn
from mlx.core import array

from lmx_core.components.attention import AttentionBase, attend, join_heads, optional_positive, rotated, split_heads
from lmx_core.components.masks import Mask, View
from lmx_core.config import BlockConfig, ComponentSpec, Field, exact_types, slot
from lmx_core.construct import build
from lmx_core.shapes import Float

positive = validators.ge(1)


def even(instance: object, attribute: Field, value: int) -> None:
    if value % 2:
        raise ValueError(f"'{attribute.name}' must be even, since rotation turns pairs of numbers: {value}")


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MLAOptions:
    """Options of `attention="mla"`."""

    kv_lora_rank: int = attrs.field(default=512, validator=positive)
    """Numbers cached a token for keys and values together."""
    q_lora_rank: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Width of a latent for the queries; none makes them from the input at once."""
    rope_head_dim: int = attrs.field(default=64, validator=validators.and_(positive, even))
    """Numbers of each query that carry the position; one key of this width, cached beside the latent, serves all heads.
    With `position = "none"` they are there, and are not turned (Kimi Linear)."""
    nope_head_dim: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Numbers of each query and key that do not; `head_dim` unless given."""
    v_head_dim: int | None = attrs.field(default=None, validator=validators.optional(positive))
    """Width of a head's values; `head_dim` unless given."""
    latent_bias: bool | None = None
    """Whether the maps to the latents have a bias; the config's `bias` unless given. Those to the heads have none."""
    o_bias: bool | None = None
    """Whether the output has one; the config's `bias` unless given."""
    latent_norm: ComponentSpec = slot("norm", "rms_norm")
    """Norm of the latents of keys and values, and of queries."""
    latent_norm_eps: float = attrs.field(default=1e-6, validator=validators.gt(0))
    """Its epsilon, whatever `norm_eps` the other norms have."""
    scale: float | None = attrs.field(default=None, validator=optional_positive)
    """Factor of the scores; `(nope_head_dim + rope_head_dim) ** -0.5` unless given. The factor that a position has for
    whole scores (yarn's `mscale_all_dim`) comes on top."""


class HeadLinear(nn.Module):
    """A linear map for each head, without bias."""

    def __init__(self, n_heads: int, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = d_in**-0.5
        self.weight = mx.random.uniform(-bound, bound, (n_heads, d_out, d_in))

    def __call__(self, x: Float[array, "B H2 L E"]) -> Float[array, "B H L E2"]:
        return x @ self.weight.swapaxes(-1, -2)


class MLA(AttentionBase):
    """Multi-head latent attention, section 2.1 of arXiv:2405.04434 (DeepSeek-V2).

    Keys and values of all heads are linear maps of one latent (c^KV there), which is all that is cached, with one rotated
    key that the heads share: `kv_lora_rank + rope_head_dim` numbers a token, however many heads there are.

        latent        = rms_norm(kv_down(x))                    score = (q_nope . k_nope + q_rope . k_rope) / sqrt(N + P)
        k_nope, v     = k_up(latent), v_up(latent)              y     = o_proj(softmax(score) v)

    Whole sequences are computed like this. For few new tokens after many the maps are absorbed: queries go through `k_up`
    backwards and sums of latents through `v_up`, which gives the same numbers and never expands the past.

    `n_kv_heads` has no meaning here. A position is built for heads of `head_dim`: where its scaling counts their pairs
    (longrope), give `head_dim = rope_head_dim`, and the other widths as options.
    """

    Options = MLAOptions
    takes = frozenset({"rotate"})

    def __init__(self, config: BlockConfig, options: MLAOptions) -> None:
        super().__init__(config)
        self.n_heads, self.kv_lora_rank = config.n_heads, options.kv_lora_rank
        self.nope_head_dim = options.nope_head_dim or config.head_dim
        self.v_head_dim = options.v_head_dim or config.head_dim
        self.rope_head_dim = options.rope_head_dim
        query_dim = self.nope_head_dim + options.rope_head_dim
        self.scale = query_dim**-0.5 if options.scale is None else options.scale
        bias = config.bias if options.latent_bias is None else options.latent_bias
        o_bias = config.bias if options.o_bias is None else options.o_bias
        normed = attrs.evolve(config, norm_eps=options.latent_norm_eps)
        if options.q_lora_rank is None:
            self.q_proj = nn.Linear(config.d_model, config.n_heads * query_dim, bias=False)
        else:
            self.q_down = nn.Linear(config.d_model, options.q_lora_rank, bias=bias)
            self.q_norm = build("norm", options.latent_norm, normed, width=options.q_lora_rank)
            self.q_up = nn.Linear(options.q_lora_rank, config.n_heads * query_dim, bias=False)
        self.kv_down = nn.Linear(config.d_model, options.kv_lora_rank + options.rope_head_dim, bias=bias)
        self.kv_norm = build("norm", options.latent_norm, normed, width=options.kv_lora_rank)
        self.k_up = HeadLinear(config.n_heads, options.kv_lora_rank, self.nope_head_dim)
        self.v_up = HeadLinear(config.n_heads, options.kv_lora_rank, self.v_head_dim)
        self.o_proj = nn.Linear(config.n_heads * self.v_head_dim, config.d_model, bias=o_bias)

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None, *, position: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        position = self._position if position is None else position
        q_nope, q_rope = mx.split(split_heads(self.queries(x), self.n_heads), [self.nope_head_dim], axis=-1)
        latent, k_rope = mx.split(self.kv_down(x)[:, None], [self.kv_lora_rank], axis=-1)
        q_rope, k_rope = rotated(position, q_rope, k_rope, cache)
        latent = self.kv_norm(latent)
        if cache is not None:  # a head of latents stands for the keys, one of rotated keys for the values
            latent, k_rope = cache.update_and_fetch(latent, k_rope)
        seen = View.of(mask, x.shape[1], latent.shape[2], cache)
        form = self.absorbed if self.absorbs(x.shape[1], latent.shape[2]) else self.expanded
        scale = self.scale * getattr(position, "score_factor", 1.0)
        return self.o_proj(join_heads(form(q_nope, q_rope, latent, k_rope, scale, seen))), cache

    def queries(self, x: Float[array, "B L D"]) -> Float[array, "B L HE"]:
        return self.q_proj(x) if "q_proj" in self else self.q_up(self.q_norm(self.q_down(x)))

    def mixing_flops(self, context: int) -> int:
        """FLOPs of the last of so many tokens beside its matrices, in the expanded form."""
        width = self.nope_head_dim + self.rope_head_dim + self.v_head_dim
        return 2 * self.n_heads * width * context

    def absorbs(self, new: int, total: int) -> bool:
        """Whether the absorbed form takes fewer multiplications for `new` of `total` tokens (counted for one head)."""
        rank, width = self.kv_lora_rank, self.nope_head_dim + self.v_head_dim
        return new * rank * width + new * total * 2 * rank < total * rank * width + new * total * width

    def expanded(
        self,
        q_nope: Float[array, "B H L N"],
        q_rope: Float[array, "B H L P"],
        latent: Float[array, "B 1 S R"],
        k_rope: Float[array, "B 1 S P"],
        scale: float,
        mask: Mask | View = None,
    ) -> Float[array, "B H L V"]:
        """Keys and values of every head, then attention: `S R (N + V)` multiplications a head for the maps."""
        k_nope = self.k_up(latent)
        k = mx.concatenate([k_nope, mx.broadcast_to(k_rope, (*k_nope.shape[:-1], k_rope.shape[-1]))], axis=-1)
        return attend(mx.concatenate([q_nope, q_rope], axis=-1), k, self.v_up(latent), scale, mask)

    def absorbed(
        self,
        q_nope: Float[array, "B H L N"],
        q_rope: Float[array, "B H L P"],
        latent: Float[array, "B 1 S R"],
        k_rope: Float[array, "B 1 S P"],
        scale: float,
        mask: Mask | View = None,
    ) -> Float[array, "B H L V"]:
        """Attention over the latents themselves: `L R (N + V)` multiplications a head for the maps."""
        q = q_nope @ self.k_up.weight
        if q.shape[2] == 1:
            return self.v_up(attend_once(q, q_rope, latent, k_rope, scale, mask))
        k = mx.concatenate([latent, k_rope], axis=-1)
        return self.v_up(attend(mx.concatenate([q, q_rope], axis=-1), k, latent, scale, mask))


def attend_once(
    q: Float[array, "B H 1 R"],
    q_rope: Float[array, "B H 1 P"],
    latent: Float[array, "B 1 S R"],
    k_rope: Float[array, "B 1 S P"],
    scale: float,
    mask: Mask | View = None,
) -> Float[array, "B H 1 R"]:
    """What one token's heads find among the latents.

    The heads stand where queries do, since all have the same keys: one product reads the past once for all of them, and
    no key is put together of its two parts.
    """
    view = mask if isinstance(mask, View) else View(mask=mask, length=1, columns=latent.shape[2])
    begin, last = view.span(0, 1)
    latent, k_rope, allowed = latent[:, :, begin:last], k_rope[:, :, begin:last], view.allowed(0, 1)
    by_position = scale * q_rope.swapaxes(1, 2) @ k_rope.swapaxes(-1, -2)  # (B, 1, H, S)
    if isinstance(allowed, str):  # the last token sees all before it
        allowed = None
    elif allowed is not None and allowed.ndim > 2:
        allowed = allowed.swapaxes(-3, -2)
    if allowed is not None and allowed.dtype != mx.bool_:  # added to scores, as MLX's own attention takes it too
        allowed, by_position = None, by_position + allowed
    return attend(q.swapaxes(1, 2), latent, latent, scale, allowed, by_position).swapaxes(1, 2)
