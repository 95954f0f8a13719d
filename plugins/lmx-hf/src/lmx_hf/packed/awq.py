"""AWQ, arXiv:2306.00978, as AutoAWQ writes it for its GEMM kernel.

    qweight (in, out/8) int32    integers of 4 bits of a row; qzeros (groups, out/8) likewise; scales (groups, out) float16

A number holds eight neighbours, from its lowest bits on those of places 0, 2, 4, 6, 1, 3, 5, 7.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.errors import CheckpointError
from lmx_hf.packed.affine import triplet
from lmx_hf.transforms import Tensors

HELD_AT = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble holds each of eight neighbours."""
SYMMETRIC = 8
"""The zero of checkpoints that store none."""


def from_awq(tensors: Tensors, how: Mapping[str, Any]) -> Tensors:
    """Packed losslessly but for the rounding of `triplet`: (out, in) rows, in the order of MLX. Group sizes are those of
    the tensors."""
    name = str(how.get("version") or how.get("format") or "gemm").lower()
    if name != "gemm":
        raise CheckpointError(f"AWQ checkpoints for kernel {name!r} are not read. lmx reads those for gemm.")
    modules = [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]
    parts = {f"{module}.{part}" for module in modules for part in ("qweight", "qzeros", "scales")}
    found = {key: tensor for key, tensor in tensors.items() if key not in parts}
    for module in modules:
        found |= _read(module, tensors)
    return found


def _read(module: str, tensors: Tensors) -> Tensors:
    weight, scales, zeros = (tensors.get(f"{module}.{part}") for part in ("qweight", "scales", "qzeros"))
    if weight is None or scales is None:
        raise CheckpointError(f"{module} is no whole AWQ module: it has no scales")
    (width, packed), (groups, out) = weight.shape, scales.shape
    if 8 * packed != out or width % 8 or width % groups or (zeros is not None and zeros.shape != (groups, packed)):
        raise CheckpointError(
            f"{module} is packed as no AWQ module of 4 bits is: qweight {weight.shape}, scales {scales.shape}"
            + (f", qzeros {zeros.shape}" if zeros is not None else "")
        )
    pairs = mx.contiguous(nibbles(weight).T).reshape(out, width // 2, 2)
    rows = (pairs[..., 0] | pairs[..., 1] << 4).view(mx.uint32)
    centre = mx.full(scales.shape, SYMMETRIC, mx.uint8) if zeros is None else nibbles(zeros)
    return triplet(module, rows, scales, centre, bits=4)


def nibbles(packed: array) -> array:
    """(rows, n/8) int32 as (rows, n) uint8."""
    eighths = packed.view(mx.uint8).reshape(*packed.shape, 4)
    held = mx.stack([eighths & 15, eighths >> 4], axis=-1).flatten(-2)
    return held[..., mx.array(HELD_AT)].flatten(-2)
