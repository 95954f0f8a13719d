"""Rotary position."""

from collections.abc import Sequence

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.components.positions import Offset, PositionBase, ends, token_positions
from lmx_core.components.scalings import Rotary
from lmx_core.config import BlockConfig, ComponentSpec, exact_types, slot
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RotaryOptions:
    """Options of `position="rope"`."""

    theta: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """Base of the wavelengths; `rope_theta` unless given. For layers that have one of their own (Gemma 3)."""
    fraction: float = attrs.field(default=1.0, validator=[validators.gt(0), validators.le(1)])
    """Share of each head that is turned, its first numbers."""
    interleaved: bool = False
    """Whether a pair is (2i, 2i + 1), as in GPT-J, and not (i, i + half)."""
    scaling: ComponentSpec = slot("rope_scaling", "default")
    """How the wavelengths are stretched beyond those it was trained with."""


class RotaryPosition(PositionBase):
    """Rotary embedding, arXiv:2104.09864: the pair (i, i + n/2) turns by `position * theta ** (-2i / n)`.

    n is `fraction * head_dim`.
    """

    Options = RotaryOptions

    def __init__(self, config: BlockConfig, options: RotaryOptions | None = None) -> None:
        super().__init__(config)
        options = options or RotaryOptions()
        self.width = int(config.head_dim * options.fraction)
        if self.width % 2 or not self.width:
            raise ConfigError(
                f"position 'rope' turns pairs of numbers, but fraction={options.fraction} of head_dim={config.head_dim} "
                f"is {self.width}"
            )
        self.interleaved = options.interleaved
        theta = config.rope_theta if options.theta is None else options.theta
        rotary = Rotary(width=self.width, head_dim=config.head_dim, theta=theta, max_seq_len=config.max_seq_len)
        self._scaling = build("rope_scaling", options.scaling, rotary)
        self.by_length: bool = self._scaling.by_length
        self.horizon: int | None = self._scaling.horizon
        self._wavelengths = None if self.by_length else self._reciprocal(*self._scaling.frequencies(1))

    def _reciprocal(self, frequencies: list[float], factor: float) -> tuple[array, float]:
        return mx.array([1 / each if each else float("inf") for each in frequencies]), factor

    def rotate(
        self,
        q: Float[array, "B H L E"],
        k: Float[array, "B K L E"],
        offset: Offset = 0,
        length: Sequence[int] | None = None,
    ) -> tuple[Float[array, "B H L E"], Float[array, "B K L E"]]:
        if self._wavelengths is None or (isinstance(offset, array) and offset.ndim == 2):
            angles, factor = self._angles(q.shape[2], offset, length or (0,))
            return self._turned_by(q, angles, factor), self._turned_by(k, angles, factor)
        return self._turn(q, offset), self._turn(k, offset)

    def _turn(self, x: array, offset: Offset) -> array:
        assert self._wavelengths is not None
        wavelengths, factor = self._wavelengths
        width = 2 * wavelengths.shape[0]
        if factor != 1:
            x = mx.concatenate([x[..., :width] * factor, x[..., width:]], axis=-1)
        return mx.fast.rope(
            x, width, traditional=self.interleaved, base=None, scale=1.0, offset=offset, freqs=wavelengths
        )

    def _angles(self, n: int, offset: Offset, lengths: Sequence[int]) -> tuple[array, float]:
        """By how much each pair turns, (1 or B, 1, L, n/2), and the factor of what is turned."""
        now = ends(n, offset)
        rows = max(len(now), len(lengths))
        longest = zip(now * (rows // len(now)), [*lengths] * (rows // len(lengths)), strict=True)
        found = [self._scaling.frequencies(max(each)) for each in longest]
        frequencies = mx.array([each for each, _ in found])[:, None]
        positions = token_positions(n, offset)
        angles = positions[..., None].astype(mx.float32) * frequencies
        return (angles[:, None] if angles.ndim == 3 else angles[None]), found[0][1]

    def _turned_by(self, x: array, angles: array, factor: float) -> array:
        half = angles.shape[-1]
        turned, rest = x[..., : 2 * half].astype(mx.float32), x[..., 2 * half :]
        pairs = turned.reshape(*turned.shape[:-1], half, 2) if self.interleaved else None
        a, b = (pairs[..., 0], pairs[..., 1]) if pairs is not None else (turned[..., :half], turned[..., half:])
        cos, sin = factor * mx.cos(angles), factor * mx.sin(angles)
        parts = [a * cos - b * sin, a * sin + b * cos]
        whole = mx.stack(parts, axis=-1).flatten(-2) if self.interleaved else mx.concatenate(parts, axis=-1)
        return mx.concatenate([whole.astype(x.dtype), rest], axis=-1)
