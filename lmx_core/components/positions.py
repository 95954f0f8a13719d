"""Where a token stands: added to the embeddings, turned into queries and keys, or added to the scores."""

import math
from typing import TypeGuard

import attrs
import mlx.core as mx
from attrs import validators
from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig, exact_types
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float, Int

Offset = int | array
"""The position of the first token, (B,) of them, or (B, L): that of every token, where a row holds several documents."""


class PositionBase(nn.Module):
    """No position at all. An encoding overrides the one method that it provides."""

    limit: int | None = None
    """The longest sequence that it can place."""
    by_length: bool = False
    """Whether a rotation depends on how long the sequence is: `rotate` then takes a `length`, of each row, for sequences
    that are read in parts."""
    horizon: int | None = None
    """Beyond this length, where there is one, all that came before is placed in another way."""
    score_factor: float = 1.0
    """Of whole scores, for a mixer that lets a part of each head be turned."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()

    def embed(self, x: Float[array, "B L D"], offset: Offset = 0) -> Float[array, "B L D"]:
        return x

    def rotate(
        self, q: Float[array, "B H L E"], k: Float[array, "B K L E"], offset: Offset = 0
    ) -> tuple[Float[array, "B H L E"], Float[array, "B K L E"]]:
        return q, k

    def bias(self, queries: Int[array, "... L"], keys: Int[array, "... S"]) -> Float[array, "B H L S"] | None:
        return None


def provided(position: object) -> set[str]:
    """Which of `embed`, `rotate` and `bias` an encoding overrides."""
    none = {name: getattr(PositionBase, name) for name in ("embed", "rotate", "bias")}
    return {name for name, method in none.items() if getattr(type(position), name, method) is not method}


def token_positions(length: int, offset: Offset) -> Int[array, "... L"]:
    """(L,) positions, or (B, L) where rows have offsets of their own. Those of padding are below 0."""
    if by_token(offset):
        return offset
    steps = mx.arange(length)
    return offset[:, None] + steps if isinstance(offset, array) and offset.ndim else offset + steps


def by_token(offset: Offset) -> TypeGuard[array]:
    """Whether it says where every token stands."""
    return isinstance(offset, array) and offset.ndim == 2


def ends(length: int, offset: Offset) -> list[int]:
    """How long each row is with these tokens, one number where rows do not differ. Waits for an offset's value."""
    if isinstance(offset, int):
        return [offset + length]
    found: list[int] = offset.reshape(-1).tolist()  # pyright: ignore[reportAssignmentType]
    return [each + length for each in found]


def document_lengths(offset: Int[array, "B L"]) -> Int[array, "B L"]:
    """How long the document of each token is, by where all of them stand. Computed where it stands: nothing waits."""
    n = offset.shape[1]
    ends = mx.concatenate([offset[:, 1:] != offset[:, :-1] + 1, mx.ones((len(offset), 1), mx.bool_)], axis=1)
    last = mx.cummin(mx.where(ends, mx.arange(n), n), axis=1, reverse=True)
    return offset + last - mx.arange(n) + 1


class NoPosition(PositionBase):
    """Order is told by the causal mask alone (NoPE, arXiv:2305.19466)."""


class SinusoidalPosition(PositionBase):
    """Section 3.5 of arXiv:1706.03762: sines at even, cosines at odd channels, of wavelengths 2 pi to 20000 pi."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        if config.d_model % 2:
            raise ConfigError(f"position 'sinusoidal' fills pairs of channels, but d_model={config.d_model} is odd")

    def embed(self, x: Float[array, "B L D"], offset: Offset = 0) -> Float[array, "B L D"]:
        width = x.shape[-1]
        frequencies = mx.exp(mx.arange(0, width, 2) * (-math.log(10_000.0) / width))
        angles = token_positions(x.shape[1], offset)[..., None] * frequencies
        table = mx.stack([mx.sin(angles), mx.cos(angles)], axis=-1).flatten(-2)
        return x + table.astype(x.dtype)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LearnedOptions:
    """Options of `position="learned"`."""

    skip: int = attrs.field(default=0, validator=validators.ge(0))
    """Rows of the table before that of the first position, which no token uses (2 in OPT)."""


class LearnedPosition(PositionBase):
    """A trained vector for each of `max_seq_len` positions, as in GPT-2."""

    Options = LearnedOptions

    def __init__(self, config: BlockConfig, options: LearnedOptions | None = None) -> None:
        super().__init__(config)
        self.limit, self.skip = config.max_seq_len, (options or LearnedOptions()).skip
        self.weight = mx.random.normal((config.max_seq_len + self.skip, config.d_model), scale=0.02)

    def embed(self, x: Float[array, "B L D"], offset: Offset = 0) -> Float[array, "B L D"]:
        rows = token_positions(x.shape[1], offset) + self.skip
        if by_token(offset):  # whose values may not be known yet
            fits = (rows < len(self.weight))[..., None]
            return x + mx.where(fits, self.weight[mx.clip(rows, 0, len(self.weight) - 1)], mx.nan)
        end = max(ends(x.shape[1], offset))
        if end + self.skip > len(self.weight):  # MLX would read beyond the table
            raise ConfigError(f"{end} tokens do not fit position 'learned' of max_seq_len={self.limit}")
        return x + self.weight[mx.maximum(rows, 0)]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ALiBiOptions:
    """Options of `position="alibi"`."""

    scale: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Factor of all slopes (`head_dim ** -0.5` in Falcon, which scales the sum of score and bias)."""
    from_above: bool = False
    """Whether heads that are no power of two take the slopes of the next higher one, every other first (MPT)."""
    in_bfloat16: bool = False
    """Whether slopes, and their products with the keys' positions, are rounded to bfloat16 (Falcon)."""


class ALiBi(PositionBase):
    """Attention with linear biases, arXiv:2108.12409: head h adds `-slope_h * distance` to its scores.

    The slopes of n heads are the powers `2 ** (-8 i / n)`; where n is no power of two, those of the next lower one and
    then every other one of the next higher.
    """

    Options = ALiBiOptions

    def __init__(self, config: BlockConfig, options: ALiBiOptions | None = None) -> None:
        super().__init__(config)
        options = options or ALiBiOptions()
        slopes = (slopes_from_above if options.from_above else alibi_slopes)(config.n_heads)
        self._slopes, self._scale, self._rounds = mx.array(slopes), options.scale, options.in_bfloat16

    def bias(self, queries: Int[array, "... L"], keys: Int[array, "... S"]) -> Float[array, "B H L S"] | None:
        slopes = self._slopes[:, None, None]
        if self._rounds:  # by the position of the key, as it was trained: a row of scores may be moved as a whole
            added = (slopes.astype(mx.bfloat16) * _rows(keys[..., None, :]).astype(mx.bfloat16)).astype(mx.float32)
            return self._scale * mx.broadcast_to(added, (*added.shape[:2], queries.shape[-1], added.shape[-1]))
        return -self._scale * slopes * _rows(mx.abs(queries[..., :, None] - keys[..., None, :]))


def _rows(x: array) -> array:
    """(L, S) as (1, 1, L, S), and (B, L, S) as (B, 1, L, S)."""
    return x[:, None] if x.ndim == 3 else x[None, None]


def alibi_slopes(n_heads: int) -> list[float]:
    """The slopes of ALiBi, steepest first."""
    lower = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * i / lower) for i in range(1, lower + 1)]
    return slopes + [2 ** (-4 * i / lower) for i in range(1, 2 * (n_heads - lower), 2)]


def slopes_from_above(n_heads: int) -> list[float]:
    """Of the next power of two: the second, fourth, ... slope, then the others, so many as there are heads."""
    slopes = alibi_slopes(2 ** math.ceil(math.log2(n_heads)))
    return slopes[:n_heads] if len(slopes) == n_heads else [*slopes[1::2], *slopes[::2]][:n_heads]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RelativeOptions:
    """Options of `position="t5"`."""

    n_buckets: int = attrs.field(default=32, validator=validators.ge(2))
    """Distances that are told apart: half of them each their own, the others in steps that grow."""
    max_distance: int = attrs.field(default=128, validator=validators.ge(2))
    """From here on all distances are one."""


class RelativePosition(PositionBase):
    """The relative bias of T5's decoder, section 2.1 of arXiv:1910.10683: a trained number a head and bucket of distances."""

    Options = RelativeOptions

    def __init__(self, config: BlockConfig, options: RelativeOptions | None = None) -> None:
        super().__init__(config)
        options = options or RelativeOptions()
        self.n_buckets, self.max_distance = options.n_buckets, options.max_distance
        if options.max_distance <= options.n_buckets // 2:
            raise ConfigError(
                f"max_distance={options.max_distance} is not beyond the {options.n_buckets // 2} distances that have a "
                f"bucket of their own (n_buckets={options.n_buckets})"
            )
        self.weight = mx.random.normal((options.n_buckets, config.n_heads), scale=0.02)

    def bias(self, queries: Int[array, "... L"], keys: Int[array, "... S"]) -> Float[array, "B H L S"] | None:
        distance = mx.maximum(queries[..., :, None] - keys[..., None, :], 0)
        found = self.weight[self.buckets(distance)]  # (..., L, S, H)
        return (found if found.ndim == 4 else found[None]).transpose(0, 3, 1, 2)

    def buckets(self, distance: Int[array, "*N"]) -> Int[array, "*N"]:
        exact = self.n_buckets // 2
        growth = (self.n_buckets - exact) / math.log(self.max_distance / exact)
        far = exact + (mx.log(mx.maximum(distance, 1).astype(mx.float32) / exact) * growth).astype(mx.int32)
        return mx.where(distance < exact, distance, mx.minimum(far, self.n_buckets - 1))
