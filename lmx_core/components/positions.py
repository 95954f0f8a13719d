"""Where a token stands: added to the embeddings, turned into queries and keys, or added to the scores."""

import math

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float, Int

Offset = int | array
"""The position of the first token, or (B,) of them."""


class PositionBase(nn.Module):
    """No position at all. An encoding overrides the one method that it provides."""

    limit: int | None = None
    """The longest sequence that it can place."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()

    def embed(self, x: Float[array, "B L D"], offset: Offset = 0) -> Float[array, "B L D"]:
        return x

    def rotate(
        self, q: Float[array, "B H L E"], k: Float[array, "B K L E"], offset: Offset = 0
    ) -> tuple[Float[array, "B H L E"], Float[array, "B K L E"]]:
        return q, k

    def bias(self, length: int, offset: Offset = 0) -> Float[array, "B H L S"] | None:
        return None


def provided(position: object) -> set[str]:
    """Which of `embed`, `rotate` and `bias` an encoding overrides."""
    methods = ("embed", "rotate", "bias")
    return {name for name in methods if getattr(type(position), name) is not getattr(PositionBase, name)}


def token_positions(length: int, offset: Offset) -> Int[array, "... L"]:
    """(L,) positions, or (B, L) where rows have offsets of their own."""
    steps = mx.arange(length)
    return offset[:, None] + steps if isinstance(offset, array) and offset.ndim else offset + steps


def last_offset(offset: Offset) -> int:
    """The offset, or the largest of them (which waits for its value)."""
    return offset if isinstance(offset, int) else int(offset.max())


class NoPosition(PositionBase):
    """Order is told by the causal mask alone (NoPE, arXiv:2305.19466)."""


class RotaryPosition(PositionBase):
    """Rotary embedding, arXiv:2104.09864: the pair (i, i + E/2) turns by `position * rope_theta ** (-2i / E)`."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        if config.head_dim % 2:
            raise ConfigError(f"position 'rope' turns pairs of numbers, but head_dim={config.head_dim} is odd")
        self.theta = config.rope_theta

    def rotate(
        self, q: Float[array, "B H L E"], k: Float[array, "B K L E"], offset: Offset = 0
    ) -> tuple[Float[array, "B H L E"], Float[array, "B K L E"]]:
        return self._turn(q, offset), self._turn(k, offset)

    def _turn(self, x: array, offset: Offset) -> array:
        return mx.fast.rope(x, x.shape[-1], traditional=False, base=self.theta, scale=1.0, offset=offset)


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


class LearnedPosition(PositionBase):
    """A trained vector for each of `max_seq_len` positions, as in GPT-2."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self.limit = config.max_seq_len
        self.weight = mx.random.normal((config.max_seq_len, config.d_model), scale=0.02)

    def embed(self, x: Float[array, "B L D"], offset: Offset = 0) -> Float[array, "B L D"]:
        end = last_offset(offset) + x.shape[1]
        if end > len(self.weight):  # MLX would read beyond the table
            raise ConfigError(f"{end} tokens do not fit position 'learned' of max_seq_len={self.limit}")
        return x + self.weight[token_positions(x.shape[1], offset)]


class ALiBi(PositionBase):
    """Attention with linear biases, arXiv:2108.12409: head h adds `-slope_h * distance` to its scores.

    The slopes of n heads are the powers `2 ** (-8 i / n)`; where n is no power of two, those of the next lower one and
    then every other one of the next higher.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        self._slopes = mx.array(alibi_slopes(config.n_heads))

    def bias(self, length: int, offset: Offset = 0) -> Float[array, "B H L S"] | None:
        queries = token_positions(length, offset)[..., None]
        keys = mx.arange(length + last_offset(offset))
        distance = mx.abs(queries - keys)  # (L, S), or (B, L, S)
        return -self._slopes[:, None, None] * (distance[:, None] if distance.ndim == 3 else distance[None, None])


def alibi_slopes(n_heads: int) -> list[float]:
    """The slopes of ALiBi, steepest first."""
    lower = 2 ** math.floor(math.log2(n_heads))
    slopes = [2 ** (-8 * i / lower) for i in range(1, lower + 1)]
    return slopes + [2 ** (-4 * i / lower) for i in range(1, 2 * (n_heads - lower), 2)]
