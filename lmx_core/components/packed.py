"""Linear maps and embeddings whose weights have few bits.

On a CPU, MLX (0.32) sums products with packed weights in the type of the input: in bfloat16 a sum of 4096 is off by a
tenth of its size, and takes 20 times as long as in float32, in float16 50 times. So it is float32 there, and for many
rows the weights are unpacked once and multiplied by BLAS.
"""

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.shapes import Float

MANY = 32
"""Rows from which on unpacking costs less than it saves."""


class PackedLinear(nn.QuantizedLinear):
    """`W x + b`."""

    def __call__(self, x: Float[array, "*B I"]) -> Float[array, "*B O"]:
        y = multiplied(x, self)
        return y + self.bias if "bias" in self else y


class PackedEmbedding(nn.QuantizedEmbedding):
    """A row for each token."""

    def as_linear(self, x: Float[array, "*B D"]) -> Float[array, "*B V"]:
        return multiplied(x, self)


def multiplied(x: Float[array, "*B I"], packed: Any) -> Float[array, "*B O"]:
    """`x W.T` with the weights of a packed module."""
    how = {"group_size": packed.group_size, "bits": packed.bits, "mode": packed.mode}
    weight, scales, biases = packed.weight, packed.scales, packed.get("biases")
    if mx.default_device() != mx.Device(mx.cpu):
        return mx.quantized_matmul(x, weight, scales, biases, transpose=True, **how)
    dtype = x.dtype if biases is None or x.dtype == scales.dtype else mx.float32
    x, scales, biases = x.astype(mx.float32), whole(scales), None if biases is None else whole(biases)
    if x.size // x.shape[-1] < MANY:
        return mx.quantized_matmul(x, weight, scales, biases, transpose=True, **how).astype(dtype)
    return (x @ mx.dequantize(weight, scales, biases, **how).astype(mx.float32).T).astype(dtype)


def whole(scales: array) -> array:
    """In float32, unless they are bytes."""
    return scales if scales.dtype == mx.uint8 else scales.astype(mx.float32)
