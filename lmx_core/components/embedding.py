"""Tokens as vectors."""

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.components.packed import PackedEmbedding
from lmx_core.shapes import Float, Int


class Embedding(nn.Embedding):
    """A row for each token. In half precision the rows' gradients are still summed in float32.

    A frequent token gets thousands of them in a batch, most of which a bfloat16 sum would lose.
    """

    def __call__(self, x: Int[array, "B L"]) -> Float[array, "B L D"]:
        if not self.training or self.weight.dtype == mx.float32:
            return super().__call__(x)
        return self.weight.astype(mx.float32)[x].astype(self.weight.dtype)

    def to_quantized(
        self, group_size: Any = None, bits: Any = None, mode: str = "affine", quantize_input: bool = False
    ) -> Any:
        if quantize_input:
            return super().to_quantized(group_size, bits, mode, quantize_input)  # which says that there is none
        return PackedEmbedding.from_embedding(self, group_size, bits, mode)
