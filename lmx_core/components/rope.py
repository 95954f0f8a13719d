"""Rotary position."""

from collections.abc import Sequence
from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.components.positions import Offset, PositionBase, by_token, document_lengths, ends, token_positions
from lmx_core.components.scalings import Rotary, ScalingBase
from lmx_core.config import BlockConfig, ComponentSpec, exact_types, optional_slot
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
    scaling: ComponentSpec | None = optional_slot("scaling")
    """How the wavelengths are stretched beyond those it was trained with; not at all unless given."""


class RotaryPosition(PositionBase):
    """Rotary embedding, arXiv:2104.09864: the pair (i, i + n/2) turns by `position * theta ** (-2i / n)`.

    n is `fraction * head_dim`.
    """

    Options = RotaryOptions
    _scalings: dict[int, Any]
    _wavelengths: dict[int, tuple[list[float], float]]
    _tables: dict[tuple[int, int], tuple[array, array]]

    def __init__(self, config: BlockConfig, options: RotaryOptions | None = None) -> None:
        super().__init__(config)
        self.options = options = options or RotaryOptions()
        self.theta = config.rope_theta if options.theta is None else options.theta
        self.max_seq_len = config.max_seq_len
        # Beside the parameters: plain objects, which are no part of a module's state.
        object.__setattr__(self, "_scalings", {})
        object.__setattr__(self, "_wavelengths", {})
        object.__setattr__(self, "_tables", {})
        scaling = self._scaling(config.head_dim)
        self.by_length, self.horizon = scaling.by_length, scaling.horizon
        self.score_factor = getattr(scaling, "score_factor", 1.0)

    def _scaling(self, head_dim: int) -> Any:
        """That of heads of this width: a mixer may hand in another than the config's, such as a part of each head."""
        if head_dim not in self._scalings:
            width = int(head_dim * self.options.fraction + 1e-6)  # 30 / 44 of 44 are 30
            if width % 2 or not width:
                turned = f"{self.options.fraction:g} of " if self.options.fraction != 1 else ""
                odd = str(width) if turned else "odd"
                raise ConfigError(f"position 'rope' turns pairs of numbers, but {turned}head_dim={head_dim} is {odd}")
            rotary = Rotary(width=width, head_dim=head_dim, theta=self.theta, max_seq_len=self.max_seq_len)
            chosen = self.options.scaling
            self._scalings[head_dim] = ScalingBase(rotary) if chosen is None else build("scaling", chosen, rotary)
        return self._scalings[head_dim]

    def rotate(
        self,
        q: Float[array, "B H L E"],
        k: Float[array, "B K L E"],
        offset: Offset = 0,
        length: Sequence[int] | None = None,
    ) -> tuple[Float[array, "B H L E"], Float[array, "B K L E"]]:
        if self.by_length or by_token(offset):
            angles, factor = self._angles(q, offset, length or (0,))
            return self._turned_by(q, angles, factor), self._turned_by(k, angles, factor)
        return self._turn(q, offset), self._turn(k, offset)

    def _turn(self, x: array, offset: Offset) -> array:
        if x.shape[-1] not in self._wavelengths:  # every token of every layer asks
            frequencies, factor = self._scaling(x.shape[-1]).frequencies(1)
            self._wavelengths[x.shape[-1]] = [1 / each if each else float("inf") for each in frequencies], factor
        found, factor = self._wavelengths[x.shape[-1]]
        width, pairs = 2 * len(found), self.options.interleaved
        if factor != 1:
            x = mx.concatenate([x[..., :width] * factor, x[..., width:]], axis=-1)
        return mx.fast.rope(x, width, traditional=pairs, base=None, scale=1.0, offset=offset, freqs=mx.array(found))

    def _angles(self, x: array, offset: Offset, lengths: Sequence[int]) -> tuple[array, array]:
        """By how much each pair turns, (1 or B, 1, L, n/2), and the factor of what is turned."""
        scaling, n = self._scaling(x.shape[-1]), x.shape[2]
        if by_token(offset):
            frequencies, factors = self._by_document(scaling, x.shape[-1], offset)
            return (offset[..., None].astype(mx.float32) * frequencies)[:, None], factors
        now = ends(n, offset)
        rows = max(len(now), len(lengths))
        longest = zip(now * (rows // len(now)), [*lengths] * (rows // len(lengths)), strict=True)
        found = [scaling.frequencies(max(each)) for each in longest]
        frequencies = mx.array([each for each, _ in found])[:, None]
        positions = token_positions(n, offset)
        angles = positions[..., None].astype(mx.float32) * frequencies
        factors = mx.array([each for _, each in found])[:, None, None, None]
        return (angles[:, None] if angles.ndim == 3 else angles[None]), factors

    def _by_document(self, scaling: Any, head_dim: int, offset: array) -> tuple[array, array]:
        """The frequencies of each token's document, (B, L, n/2) or (n/2,), and their factors."""
        n = offset.shape[1] if self.by_length else 1
        if (head_dim, n) not in self._tables:
            found = [scaling.frequencies(length) for length in range(1, n + 1)]
            self._tables[head_dim, n] = mx.array([each for each, _ in found]), mx.array([each for _, each in found])
        frequencies, factors = self._tables[head_dim, n]
        if not self.by_length:
            return frequencies[0], factors
        rows = mx.clip(document_lengths(offset), 1, n) - 1
        return frequencies[rows], factors[rows][:, None, :, None]

    def _turned_by(self, x: array, angles: array, factor: array) -> array:
        half = angles.shape[-1]
        turned, rest = x[..., : 2 * half].astype(mx.float32), x[..., 2 * half :]
        pairs = turned.reshape(*turned.shape[:-1], half, 2) if self.options.interleaved else None
        a, b = (pairs[..., 0], pairs[..., 1]) if pairs is not None else (turned[..., :half], turned[..., half:])
        cos, sin = factor * mx.cos(angles), factor * mx.sin(angles)
        parts = [a * cos - b * sin, a * sin + b * cos]
        whole = mx.stack(parts, axis=-1).flatten(-2) if pairs is not None else mx.concatenate(parts, axis=-1)
        return mx.concatenate([whole.astype(x.dtype), rest], axis=-1)
