"""What an FFN does to each number between its two maps."""

import math
from collections.abc import Callable
from typing import Literal

import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.components import vectorised

Activation = Literal[
    "gelu", "gelu_tanh", "identity", "mish", "quick_gelu", "relu", "relu2", "sigmoid", "silu", "tanh", "xielu"
]


def identity(x: array) -> array:
    return x


ACTIVATIONS: dict[str, Callable[[array], array]] = {
    "gelu": nn.gelu,
    "gelu_tanh": nn.gelu_approx,
    "identity": identity,
    "mish": nn.mish,
    "quick_gelu": nn.gelu_fast_approx,
    "relu": nn.relu,
    "relu2": nn.relu2,
    "sigmoid": mx.sigmoid,
    "silu": nn.silu,
    "tanh": mx.tanh,
}
"""Those without parameters: `relu2` is relu squared (arXiv:2109.08668), `quick_gelu` `x sigmoid(1.702 x)`."""


class Activate(nn.Module):
    """An activation by its name, which can be copied where a compiled function cannot."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __call__(self, x: array) -> array:
        found = vectorised.ACTIVATIONS if vectorised.active(x) else {}
        return found.get(self.name, ACTIVATIONS[self.name])(x)


BETA, EPS = 0.5, -1e-6


class XIELU(nn.Module):
    """The trained activation of arXiv:2411.13010, with a quadratic for what is positive and an ELU below.

    x > 0:  a x^2 + x / 2            a = softplus(alpha_p)
    else:   b (expm1(min(x, -1e-6)) - x) + x / 2            b = 1 / 2 + softplus(alpha_n)
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha_p = mx.array([math.log(math.expm1(0.8))])
        self.alpha_n = mx.array([math.log(math.expm1(0.8 - BETA))])

    def __call__(self, x: array) -> array:
        above, below = nn.softplus(self.alpha_p), BETA + nn.softplus(self.alpha_n)
        return BETA * x + mx.where(x > 0, above * x * x, below * (mx.expm1(mx.minimum(x, EPS)) - x))


def activation(name: str) -> nn.Module:
    """The activation of a name, with its parameters where it has some."""
    return Activate(name) if name in ACTIVATIONS else XIELU()
