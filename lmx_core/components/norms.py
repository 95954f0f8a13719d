"""Normalisation of the last axis."""

from mlx import nn
from mlx.core import array

from lmx_core.config import BlockConfig
from lmx_core.shapes import Float


class LayerNorm(nn.LayerNorm):
    """`weight * (x - mean) / sqrt(var + eps) + bias`, arXiv:1607.06450; without the last term where `bias=False`."""

    def __init__(self, config: BlockConfig, width: int | None = None) -> None:
        super().__init__(width or config.d_model, eps=config.norm_eps, bias=config.bias)


class RMSNorm(nn.RMSNorm):
    """`weight * x / sqrt(mean(x^2) + eps)`, arXiv:1910.07467."""

    def __init__(self, config: BlockConfig, width: int | None = None) -> None:
        super().__init__(width or config.d_model, eps=config.norm_eps)


class NoNorm(nn.Module):
    """x, as it is."""

    def __init__(self, config: BlockConfig, width: int | None = None) -> None:
        super().__init__()

    def __call__(self, x: Float[array, "*B D"]) -> Float[array, "*B D"]:
        return x
