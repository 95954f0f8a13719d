"""Integers with a scale and a zero for each group, `w = s (q - z)`, as MLX's `s q + b`."""

import mlx.core as mx
from mlx.core import array

from lmx_hf.transforms import Tensors

GROUPS = (128, 64, 32)
"""Sizes that MLX has, the largest first."""


def codes(packed: array, bits: int) -> array:
    """Integers of packed rows, from the lowest bits of each uint32 on, as float32; a row has a multiple of 32 of them."""
    ones = mx.ones((*packed.shape[:-1], packed.shape[-1] // bits), mx.float32)
    return mx.dequantize(packed, ones, mx.zeros_like(ones), group_size=32, bits=bits)


def triplet(module: str, weight: array, scales: array, zeros: array, bits: int) -> Tensors:
    """Of a module whose integers are packed as MLX's: (out, in) rows; scales and zeros are (groups, out).

    `b = -s z` is rounded once, to the type of the scales: exact where z is a power of two, as it is in symmetric
    checkpoints, and off by up to `2**-11 |s z|` in float16 otherwise. A group of a size that MLX does not have is several
    of the same scale; where that cannot be, the module is dense.
    """
    width, groups = 32 * weight.shape[-1] // bits, scales.shape[0]
    size = next((size for size in GROUPS if width // groups % size == 0), None)
    if size is None:
        return dense(module, weight, scales, zeros, bits, mx.arange(width) // (width // groups))
    biases = (-scales.astype(mx.float32) * zeros).astype(scales.dtype)
    parts = width // groups // size
    return {
        f"{module}.weight": weight,
        f"{module}.scales": mx.contiguous(mx.repeat(scales, parts, axis=0).T),
        f"{module}.biases": mx.contiguous(mx.repeat(biases, parts, axis=0).T),
    }


def dense(module: str, weight: array, scales: array, zeros: array, bits: int, group: array) -> Tensors:
    """The same in the type of the scales, rounded once; `group` (in,) says which group an input is of."""
    wide, zeros = scales.astype(mx.float32).T, zeros.astype(mx.float32).T
    found = wide[:, group] * (codes(weight, bits) - zeros[:, group])
    return {f"{module}.weight": found.astype(scales.dtype)}
