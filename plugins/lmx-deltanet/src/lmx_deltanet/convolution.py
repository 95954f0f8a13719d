"""A look at the last few tokens."""

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.shapes import Float


class ShortConvolution(nn.Module):
    """`y_t = sum over i < W of weight[:, i] * x_(t - W + 1 + i)`: each channel by itself, zeros before the first token."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = mx.random.uniform(-bound, bound, (channels, width))

    def __call__(
        self, x: Float[array, "B L C"], tail: Float[array, "B W C"] | None = None
    ) -> tuple[Float[array, "B L C"], Float[array, "B W C"]]:
        """The sums, and the last W - 1 tokens, which the next call takes as its `tail`."""
        (batch, length, channels), width = x.shape, self.weight.shape[1]
        if tail is None:
            tail = mx.zeros((batch, width - 1, channels), x.dtype)
        window = mx.concatenate([tail, x], axis=1)
        terms = [self.weight[:, i] * window[:, i : i + length] for i in range(width)]
        return sum(terms[1:], start=terms[0]), window[:, length:]
