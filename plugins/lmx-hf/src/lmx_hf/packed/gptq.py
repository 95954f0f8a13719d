"""GPTQ, arXiv:2210.17323, as AutoGPTQ and GPTQModel write it.

Of a module with `in` inputs and `out` outputs, in groups of inputs, with b bits:

    qweight (in b/32, out) int32    integers of a column, 32/b of them in each number, from its lowest bits on
    qzeros  (groups, out b/32)      zeros of a row, in the same way; each less 1, but for `gptq_v2`
    scales  (groups, out)           float16
    g_idx   (in,)                   the group of each input

so that a column of qweight is a row of MLX's weight, bit by bit, also where 3 bits run from one number into the next.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.core import array

from lmx_core.errors import CheckpointError, LmxWarning
from lmx_hf.packed.affine import codes, dense, triplet
from lmx_hf.transforms import Tensors

ADDED = {"gptq": 1, "gptq_v2": 0}
"""What the zeros of a format lack. They wrap around: with 4 bits, a stored 15 is 0."""
BITS = (2, 3, 4, 8)
PARTS = ("qweight", "qzeros", "scales", "g_idx")


def from_gptq(tensors: Tensors, how: Mapping[str, Any]) -> Tensors:
    """Packed losslessly but for the rounding of `triplet`. Bits and group size are those of the tensors.

    Inputs in the order of their activations (`desc_act`) make a module dense, in the type of its scales: rows of MLX have
    groups of neighbours. A warning says of how many modules that is. `g_idx` is read for it, and nothing else.
    """
    name = how.get("checkpoint_format") or how.get("format") or "gptq"
    if name not in ADDED:
        raise CheckpointError(f"GPTQ checkpoints of format {name!r} are not read. lmx reads {' and '.join(ADDED)}.")
    modules = [key.removesuffix(".qweight") for key in tensors if key.endswith(".qweight")]
    found = {key: tensor for key, tensor in tensors.items() if key.rpartition(".")[2] not in PARTS}
    shuffled = 0
    for module in modules:
        made = _read(module, tensors, ADDED[name])
        shuffled += f"{module}.scales" not in made
        found |= made
    if shuffled:
        warnings.warn(
            f"{shuffled} of {len(modules)} GPTQ modules have groups that are not neighbours (desc_act), or of a size that "
            "MLX does not have. They are read as dense weights, which need more memory.",
            LmxWarning,
            stacklevel=2,
        )
    return found


def _read(module: str, tensors: Tensors, added: int) -> Tensors:
    missing = [part for part in PARTS[:3] if f"{module}.{part}" not in tensors]
    if missing:
        raise CheckpointError(
            f"{module} is no whole GPTQ module: {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        )
    weight, zeros, scales = (tensors[f"{module}.{part}"] for part in PARTS[:3])
    bits = _bits(module, weight, zeros, scales)
    weight = mx.contiguous(weight.T).view(mx.uint32)
    zeros = codes(zeros.view(mx.uint32), bits).astype(mx.int32) + added & 2**bits - 1
    group = tensors.get(f"{module}.g_idx")
    if group is not None and not _in_order(group, scales.shape[0]):
        return dense(module, weight, scales, zeros, bits, group)
    return triplet(module, weight, scales, zeros, bits)


def _bits(module: str, weight: array, zeros: array, scales: array) -> int:
    groups, out = scales.shape
    bits = 32 * zeros.shape[-1] // out
    width = 32 * weight.shape[0] // max(bits, 1)
    shapes = (width * bits // 32, out), (groups, out * bits // 32)
    if bits not in BITS or out % 32 or width % 32 or width % groups or shapes != (weight.shape, zeros.shape):
        raise CheckpointError(
            f"{module} is packed as no GPTQ module of {', '.join(map(str, BITS))} bits is: qweight {weight.shape}, "
            f"qzeros {zeros.shape}, scales {scales.shape}"
        )
    return bits


def _in_order(group: array, groups: int) -> bool:
    index = np.asarray(group)
    return np.array_equal(index, np.arange(len(index)) // (len(index) // groups))
