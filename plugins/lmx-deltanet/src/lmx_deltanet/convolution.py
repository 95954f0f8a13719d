"""A look at the last few tokens."""

from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.shapes import Float, Int


class ShortConvolution(nn.Module):
    """`y_t = sum over i < W of weight[:, i] * x_(t - W + 1 + i)`: each channel by itself, zeros before the first token."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = mx.random.uniform(-bound, bound, (channels, width))

    def __call__(
        self,
        x: Float[array, "B L C"],
        tail: Float[array, "B W C"] | None = None,
        places: Int[array, "B L"] | None = None,
    ) -> tuple[Float[array, "B L C"], Float[array, "B W C"]]:
        """The sums, and the last W - 1 tokens, which the next call takes as its `tail`.

        `places` says where each token stands in its document, for rows that hold several: zeros before each one's first.
        """
        (batch, length, channels), width = x.shape, self.weight.shape[1]
        if tail is None:
            tail = mx.zeros((batch, width - 1, channels), x.dtype)
        window = mx.concatenate([tail, x], axis=1)
        if places is not None:
            return within(window, self.weight, places), window[:, length:]
        return convolved(window, self.weight), window[:, length:]


def taps(x: Float[array, "B S C"], weight: Float[array, "C W"]) -> Float[array, "B L C"]:
    """`sum over i of weight[:, i] * x_(t + i)`, for the S - W + 1 tokens t that have them all."""
    width = weight.shape[1]
    length = x.shape[1] - width + 1
    terms = [weight[:, i] * x[:, i : i + length] for i in range(width)]
    return sum(terms[1:], start=terms[0])


def within(x: Float[array, "B S C"], weight: Float[array, "C W"], places: Int[array, "B L"]) -> Float[array, "B L C"]:
    """`taps`, without what stands before a token's document."""
    width, length = weight.shape[1], places.shape[1]
    terms = [
        weight[:, i] * mx.where((places >= width - 1 - i)[..., None], x[:, i : i + length], 0) for i in range(width)
    ]
    return sum(terms[1:], start=terms[0])


convolved: Any = mx.custom_function(taps)


@convolved.vjp
def convolved_backwards(inputs: Any, cotangent: array, output: array) -> tuple[array, array]:
    """The same with the weights turned round; MLX's own would fill up each term to the whole of x."""
    x, weight = inputs
    width, length = weight.shape[1], cotangent.shape[1]
    around = mx.pad(cotangent, [(0, 0), (width - 1, width - 1), (0, 0)])
    sums = [(cotangent * x[:, i : i + length]).sum(axis=(0, 1)) for i in range(width)]
    return taps(around, weight[:, ::-1]), mx.stack(sums, axis=1)
