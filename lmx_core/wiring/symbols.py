"""Vectors that remember where they come from."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array

TIMES = "\N{MULTIPLICATION SIGN}"


@attrs.frozen
class Box:
    """Something that a vector goes through."""

    text: str
    part: str
    """`attention`, `ffn`, `norm` (whatever else the layout or the model owns), `factor`, `table` (a row for each token of
    the vocabulary), or `block` for all at once."""


class Unclear(Exception):
    """A layout that does more than to call modules, to scale and to add."""


class Symbol(array):
    """A vector that a layout computes: its input, a box of another one, or a sum of two. Its numbers mean nothing."""

    def __init__(self, width: int, inputs: Sequence["Symbol"] = (), box: Box | None = None) -> None:
        super().__init__(mx.zeros((1, 1, width)))
        self.width, self.inputs, self.box = width, inputs, box

    def through(self, box: Box) -> "Symbol":
        return Symbol(self.width, (self,), box)

    def __add__(self, other: Any) -> "Symbol":
        if not isinstance(other, Symbol):
            raise Unclear
        return Symbol(self.width, (self, other))

    def __mul__(self, other: Any) -> "Symbol":
        if isinstance(other, Factor):
            return self.through(Box(f"{TIMES} {other.name}", "factor"))
        if isinstance(other, array):
            raise Unclear
        return self if other == 1 else self.through(Box(f"{TIMES} {other:g}", "factor"))

    __radd__, __rmul__ = __add__, __mul__


class Factor(array):
    """A tensor that the layout owns."""

    def __init__(self, name: str, tensor: array) -> None:
        super().__init__(tensor)
        self.name = name

    def __mul__(self, other: Any) -> array:
        return other * self if isinstance(other, Symbol) else super().__mul__(other)


def calling(box: Box) -> Callable[[Symbol], Symbol]:
    return lambda x: x.through(box)
