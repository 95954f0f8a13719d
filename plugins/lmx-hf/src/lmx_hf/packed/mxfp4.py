"""MXFP4 of the OCP microscaling formats, as gpt-oss stores its experts.

    X_blocks (experts, out, in/32, 16) uint8    two numbers in each byte, the first in its low half
    X_scales (experts, out, in/32) uint8        the exponent that 32 numbers share, plus 127

The codes are 0, .5, 1, 1.5, 2, 3, 4, 6 and a sign bit: what MLX packs, byte by byte.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from lmx_core.errors import CheckpointError
from lmx_hf.transforms import Tensors


def from_mxfp4(tensors: Tensors, how: Mapping[str, Any]) -> Tensors:
    """`X.weight` and `X.scales` in place of `X_blocks` and `X_scales`, as (experts, out, in): dense gpt-oss checkpoints
    have `X` without `.weight`, as (experts, in, out). Rows of gate and up still take turns. Nothing is rounded."""
    names = [key.removesuffix("_blocks") for key in tensors if key.endswith("_blocks")]
    parts = {f"{name}_{part}" for name in names for part in ("blocks", "scales")}
    found = {key: tensor for key, tensor in tensors.items() if key not in parts}
    for name in names:
        blocks, scales = tensors[f"{name}_blocks"], tensors.get(f"{name}_scales")
        if (
            scales is None
            or blocks.shape != (*scales.shape, 16)
            or blocks.dtype != mx.uint8
            or scales.dtype != mx.uint8
        ):
            raise CheckpointError(
                f"{name} is packed as no mxfp4 is: blocks {blocks.dtype} {blocks.shape}, scales "
                + ("missing" if scales is None else f"{scales.dtype} {scales.shape}")
            )
        found[f"{name}.weight"] = blocks.flatten(-2).view(mx.uint32)
        found[f"{name}.scales"] = scales
    return found
