"""Weights in 8-bit floats (e4m3) with a scale for each block of a matrix, as in DeepSeek-V3 (arXiv:2412.19437).

`X_scale_inv` has one number for each block of `weight_block_size`, the last ones of a row or column cut off, or one for
all. It is what the stored numbers are multiplied with.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.errors import CheckpointError
from lmx_hf.transforms import Tensors

SUFFIX = "_scale_inv"
OF_ACTIVATIONS = ("activation_scale", "input_scale")
BLOCK = (128, 128)


def from_fp8(tensors: Tensors, how: Mapping[str, Any]) -> Tensors:
    """Dense, in bfloat16, rounded once: MLX has no form for blocks of several rows. Scales of activations are left out."""
    block = tuple(how.get("weight_block_size") or BLOCK)
    found = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.endswith(SUFFIX) and key.rpartition(".")[2] not in OF_ACTIVATIONS
    }
    for name in [key.removesuffix(SUFFIX) for key in tensors if key.endswith(SUFFIX)]:
        if name not in tensors or tensors[name].dtype != mx.uint8:
            raise CheckpointError(f"{name}{SUFFIX} is a scale of 8-bit floats, but {name} has none")
        found[name] = _dequantised(name, tensors[name], tensors[name + SUFFIX], block)
    return found


def _dequantised(name: str, weight: array, scales: array, block: tuple[int, ...]) -> array:
    if scales.dtype == mx.uint8:  # e8m0: the exponent of a float32
        scales = (scales.astype(mx.uint32) << 23).view(mx.float32)
    if scales.size > 1:
        rows, columns = weight.shape[-2:]
        if scales.shape != (*weight.shape[:-2], -(-rows // block[0]), -(-columns // block[1])):
            raise CheckpointError(f"{name} {weight.shape} has scales {scales.shape} for blocks of {block}")
        scales = mx.repeat(mx.repeat(scales, block[0], axis=-2)[..., :rows, :], block[1], axis=-1)[..., :columns]
    return (mx.from_fp8(weight, mx.float32) * scales.astype(mx.float32)).astype(mx.bfloat16)
