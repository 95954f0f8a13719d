"""Normalisation of the last axis."""

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig, exact_types
from lmx_core.shapes import Float


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RMSNormOptions:
    """Options of `norm="rms_norm"`."""

    weight: bool = True
    """Whether what comes out is weighted."""
    unit_offset: bool = False
    """Whether it is weighted by 1 + weight (Gemma), so that weight decay draws to 1."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LayerNormOptions(RMSNormOptions):
    """Options of `norm="layer_norm"`."""

    bias: bool | None = None
    """Whether a bias is added; the config's `bias` unless given."""


class _Weighted(nn.Module):
    """The part that is learned."""

    def __init__(self, config: BlockConfig, options: RMSNormOptions | None, width: int | None) -> None:
        super().__init__()
        options = options or RMSNormOptions()
        self.eps, self.offset = config.norm_eps, options.unit_offset
        if options.weight:
            self.weight = (mx.zeros if options.unit_offset else mx.ones)((width or config.d_model,))

    def gain(self) -> Float[array, "D"] | None:
        weight = self.get("weight")
        return 1 + weight if self.offset and weight is not None else weight


class LayerNorm(_Weighted):
    """`weight * (x - mean) / sqrt(var + eps) + bias`, arXiv:1607.06450; without the last term where `bias=False`."""

    Options = LayerNormOptions

    def __init__(self, config: BlockConfig, options: LayerNormOptions | None = None, width: int | None = None) -> None:
        super().__init__(config, options, width)
        stated = None if options is None else options.bias
        if config.bias if stated is None else stated:
            self.bias = mx.zeros((width or config.d_model,))

    def __call__(self, x: Float[array, "*B D"]) -> Float[array, "*B D"]:
        return mx.fast.layer_norm(x, self.gain(), self.get("bias"), self.eps)


class RMSNorm(_Weighted):
    """`weight * x / sqrt(mean(x^2) + eps)`, arXiv:1910.07467."""

    Options = RMSNormOptions

    def __init__(self, config: BlockConfig, options: RMSNormOptions | None = None, width: int | None = None) -> None:
        super().__init__(config, options, width)

    def __call__(self, x: Float[array, "*B D"]) -> Float[array, "*B D"]:
        return mx.fast.rms_norm(x, self.gain(), self.eps)


class NoNorm(nn.Module):
    """x, as it is."""

    def __init__(self, config: BlockConfig, width: int | None = None) -> None:
        super().__init__()

    def __call__(self, x: Float[array, "*B D"]) -> Float[array, "*B D"]:
        return x
