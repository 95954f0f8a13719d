"""What holds for parts that compute each position by itself, and for a mixer's use of its position."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.block import ConfigurableBlock
from lmx_core.components.positions import PositionBase
from lmx_core.construct import build
from lmx_core.testing.subjects import SMALL, Make, Maker, Subject, close, largest, random_key, randomise


def treats_positions_alike(make: Maker) -> None:
    """Each position is computed by itself, in the same way."""
    subject = Subject(make)
    x = subject.inputs(length=9)
    y = subject(x)
    for t in range(9):
        close(subject(x[:, t : t + 1]), y[:, t : t + 1], 1e-5)


def accepts_zeros(make: Maker) -> None:
    """A position that is all zero gives finite numbers and gradients."""
    subject = Subject(make)
    x = mx.zeros((1, 2, subject.width))
    assert mx.isfinite(subject(x)).all().item(), "not finite"
    assert mx.isfinite(mx.grad(lambda x: subject(x).sum())(x)).all().item(), "the gradient is not finite"


def takes_a_width(make: Make) -> None:
    """With `width=16` it normalises the last axis of 16 numbers, whatever comes before it: heads, latents."""
    norm: Any = randomise(make(width=16))
    heads = mx.random.normal((2, 4, 5, 16), key=random_key(1))
    y = norm(heads)
    assert y.shape == heads.shape, f"{heads.shape} became {y.shape}"
    close(norm(heads[:, 2, 3]), y[:, 2, 3], 1e-5)


def position_makes_a_difference(make: Make) -> None:
    """What a block's mixer takes of a position moves its output: none of it is dropped."""
    without = make.changed(position="none")
    x = mx.random.normal((1, 12, make.config.d_model), key=random_key(1))
    one, other = (randomise(each()).eval()(x, "causal")[0] for each in (make, without))
    assert largest(one - other) > 1e-3, "the output is what it is without a position"


class _Further(PositionBase):
    """A position that takes each token to stand `FURTHER` places later."""

    def __init__(self, position: Any) -> None:
        super().__init__(SMALL)
        self.position = position

    def rotate(self, q: array, k: array, offset: Any = 0) -> tuple[array, array]:
        return self.position.rotate(q, k, offset + FURTHER)


FURTHER = 40


def distance_alone_counts(make: Make) -> None:
    """All tokens moved by as many places give the same output: queries and keys are both turned, and nothing else is."""
    config = make.config
    x = mx.random.normal((1, 12, config.d_model), key=random_key(1))
    position = build("position", config.position, config)
    near, far = (
        randomise(ConfigurableBlock(config, each)).eval()(x, "causal")[0] for each in (position, _Further(position))
    )
    close(far, near)
