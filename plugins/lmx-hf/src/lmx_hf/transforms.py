"""What becomes of tensors between a checkpoint and lmx, each in both directions."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs
import mlx.core as mx

Tensors = dict[str, mx.array]
Arrays = Sequence[mx.array]


@runtime_checkable
class Transform(Protocol):
    """Arrays under names of the checkpoint as arrays under names of lmx, and back; in the order of the rule's names."""

    def read(self, arrays: Arrays) -> Arrays: ...

    def write(self, arrays: Arrays) -> Arrays: ...


@attrs.frozen
class Same:
    """As they are."""

    def read(self, arrays: Arrays) -> Arrays:
        return arrays

    def write(self, arrays: Arrays) -> Arrays:
        return arrays


@attrs.frozen
class Parts:
    """One tensor of theirs is several of lmx, one after the other along an axis: of these sizes, or so many of one size."""

    sizes: Sequence[int] | int
    axis: int = 0

    def read(self, arrays: Arrays) -> Arrays:
        (whole,) = arrays
        if isinstance(self.sizes, int):
            return list(mx.split(whole, self.sizes, axis=self.axis))
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        if whole.shape[self.axis] != sum(self.sizes):
            raise ValueError(f"has {whole.shape[self.axis]} rows, the config asks for {sum(self.sizes)}")
        return list(mx.split(whole, ends, axis=self.axis))

    def write(self, arrays: Arrays) -> Arrays:
        return [mx.concatenate(list(arrays), axis=self.axis)]


@attrs.frozen
class InTurn:
    """Rows of one tensor of theirs take turns: so many of the first of lmx, so many of the second, ..., over and over.

    Falcon's queries, keys and values: for each key/value head the queries that read it, then it, then its values.
    """

    sizes: Sequence[int]
    axis: int = 0

    def read(self, arrays: Arrays) -> Arrays:
        (whole,) = arrays
        turns = whole.shape[self.axis] // sum(self.sizes)
        apart = mx.unflatten(whole, self.axis, (turns, sum(self.sizes)))
        return [part.flatten(self.axis, self.axis + 1) for part in Parts(self.sizes, self.axis + 1).read([apart])]

    def write(self, arrays: Arrays) -> Arrays:
        apart = [mx.unflatten(each, self.axis, (-1, size)) for each, size in zip(arrays, self.sizes, strict=True)]
        return [mx.concatenate(apart, axis=self.axis + 1).flatten(self.axis, self.axis + 1)]


@attrs.frozen
class Turned:
    """Matrices stored (in, out); vectors are as they are."""

    def read(self, arrays: Arrays) -> Arrays:
        return [mx.contiguous(each) for each in self.write(arrays)]  # a turned view is multiplied more slowly

    def write(self, arrays: Arrays) -> Arrays:
        return [each.swapaxes(-1, -2) if each.ndim > 1 else each for each in arrays]


@attrs.frozen
class Stacked:
    """Several tensors of theirs are one of lmx, along a new first axis."""

    def read(self, arrays: Arrays) -> Arrays:
        return [mx.stack(list(arrays))]

    def write(self, arrays: Arrays) -> Arrays:
        return [each.squeeze(0) for each in mx.split(arrays[0], arrays[0].shape[0])]


@attrs.frozen
class Squeezed:
    """Without an axis of length 1."""

    axis: int

    def read(self, arrays: Arrays) -> Arrays:
        return [each.squeeze(self.axis) for each in arrays]

    def write(self, arrays: Arrays) -> Arrays:
        return [mx.expand_dims(each, self.axis) for each in arrays]


@attrs.frozen
class Beside:
    """The last tensors of theirs are no parameters of lmx, and always have these values."""

    values: Sequence[float]

    def read(self, arrays: Arrays) -> Arrays:
        return arrays[: -len(self.values)]

    def write(self, arrays: Arrays) -> Arrays:
        return [*arrays, *(mx.array(value, arrays[0].dtype) for value in self.values)]


@attrs.frozen
class Shaped:
    """Of another shape in lmx."""

    theirs: Sequence[int]
    ours: Sequence[int]

    def read(self, arrays: Arrays) -> Arrays:
        return [each.reshape(self.ours) for each in arrays]

    def write(self, arrays: Arrays) -> Arrays:
        return [each.reshape(self.theirs) for each in arrays]


@attrs.frozen
class Raised:
    """Larger by this in the checkpoint: norms whose weight is meant as it is, where lmx has `1 + weight`."""

    by: float

    def read(self, arrays: Arrays) -> Arrays:
        return [each - self.by for each in arrays]

    def write(self, arrays: Arrays) -> Arrays:
        return [each + self.by for each in arrays]


@attrs.frozen
class Aside:
    """Transforms side by side: each with how many tensors it has in the checkpoint, and how many in lmx."""

    parts: Sequence[tuple[int, int, Transform]]

    def read(self, arrays: Arrays) -> Arrays:
        rest = iter(arrays)
        return [one for theirs, _, how in self.parts for one in how.read([next(rest) for _ in range(theirs)])]

    def write(self, arrays: Arrays) -> Arrays:
        rest = iter(arrays)
        return [one for _, ours, how in self.parts for one in how.write([next(rest) for _ in range(ours)])]


@attrs.frozen
class Reversed:
    """A transform the other way round."""

    transform: Transform

    def read(self, arrays: Arrays) -> Arrays:
        return self.transform.write(arrays)

    def write(self, arrays: Arrays) -> Arrays:
        return self.transform.read(arrays)


@attrs.frozen(init=False)
class Chain:
    """One transform after the other, as they are read."""

    steps: tuple[Transform, ...]

    def __init__(self, *steps: Transform) -> None:
        self.__attrs_init__(steps)  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, arrays: Arrays) -> Arrays:
        for step in self.steps:
            arrays = step.read(arrays)
        return arrays

    def write(self, arrays: Arrays) -> Arrays:
        for step in reversed(self.steps):
            arrays = step.write(arrays)
        return arrays
