"""What an adapter does to a tensor. `R` is the rank, `E` the number of experts."""

from typing import Protocol, runtime_checkable

import attrs
import mlx.core as mx
from mlx.core import array


class Misfit(Exception):
    """A change that cannot be made, in words."""


@runtime_checkable
class Change(Protocol):
    """Of a weight as `nn.Linear` has it, (out, in), or (E, out, in) of experts; or of a vector."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def stored(self) -> bool | None:
        """Whether it is always, never, or (None) by the shapes laid out the other way round, (in, out)."""
        ...

    def expert(self, number: int) -> "Change": ...
    def rows(self, rows: slice) -> "Change": ...
    def on(self, weight: array, turned: bool) -> array:
        """The new weight, in the old one's type; `turned` where that is stored (in, out)."""
        ...


@attrs.frozen(eq=False)
class LowRank:
    """`W + scale B A` (LoRA, arXiv:2106.09685), and with a magnitude `m (W + scale B A) / |W + scale B A|`, whose norms
    run over the input (DoRA, arXiv:2402.09353). In float32, whatever the types are."""

    a: array
    """(R, in), or (E, R, in)."""
    b: array
    """(out, R), or (E, out, R)."""
    scale: float
    magnitude: array | None = None
    """(out,)"""
    stored: bool | None = None

    def __attrs_post_init__(self) -> None:
        a, b = self.a, self.b
        if not 2 <= a.ndim == b.ndim <= 3 or (*a.shape[:-2], a.shape[-2]) != (*b.shape[:-2], b.shape[-1]):
            raise Misfit(f"shapes {a.shape} and {b.shape} are no (rank, in) and (out, rank)")
        if self.magnitude is not None and (a.ndim, self.magnitude.shape) != (2, b.shape[:1]):
            raise Misfit(f"has a magnitude of shape {self.magnitude.shape} for factors {a.shape} and {b.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.b.shape[:-1], self.a.shape[-1])

    def expert(self, number: int) -> "LowRank":
        return attrs.evolve(self, a=self.a[number], b=self.b[number])

    def rows(self, rows: slice) -> "LowRank":
        return attrs.evolve(self, b=self.b[..., rows, :])

    def on(self, weight: array, turned: bool) -> array:
        wide, a, b = (each.astype(mx.float32) for each in (weight, self.a, self.b))
        left, right = (a.swapaxes(-1, -2), b.swapaxes(-1, -2)) if turned else (b, a)
        new = mx.addmm(wide, left, right, alpha=self.scale)
        if self.magnitude is not None:
            inputs = -2 if turned else -1
            length = mx.linalg.norm(new, axis=inputs, keepdims=True)
            new = new * (mx.expand_dims(self.magnitude.astype(mx.float32), inputs) / length)
        return new.astype(weight.dtype)


@attrs.frozen(eq=False)
class Whole:
    """A tensor trained as a whole, which replaces the checkpoint's."""

    value: array
    stored: bool | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def expert(self, number: int) -> "Whole":
        return attrs.evolve(self, value=self.value[number])

    def rows(self, rows: slice) -> "Whole":
        return attrs.evolve(self, value=self.value[..., rows, :])

    def on(self, weight: array, turned: bool) -> array:
        return (self.value.swapaxes(-1, -2) if turned else self.value).astype(weight.dtype)


@attrs.frozen(eq=False)
class Shift:
    """A vector that is added to a bias."""

    value: array
    scale: float
    stored: bool | None = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def expert(self, number: int) -> "Shift":
        raise Misfit("a bias of an expert is not known")

    def rows(self, rows: slice) -> "Shift":
        raise Misfit("a part of a bias is not known")

    def on(self, weight: array, turned: bool) -> array:
        return (weight.astype(mx.float32) + self.scale * self.value.astype(mx.float32)).astype(weight.dtype)


@attrs.frozen(eq=False)
class Wanted:
    """A change, and where it may belong: to the one name that the checkpoint has and whose shape fits."""

    sources: tuple[str, ...]
    """The adapter's tensors."""
    options: tuple[tuple[str, Change], ...]
    """Names of tensors, as the trainer's model has them."""
    faults: tuple[str, ...] = ()
    """Why it is none of others."""
    base: bool = False
    """It is the base that the rest of the adapter was trained on."""


@attrs.frozen(eq=False)
class Adapter:
    """What a folder asks for."""

    wanted: tuple[Wanted, ...]
    head_follows: bool
    """Whether a tied head is changed with the embedding."""
    squares_turned: bool = False
    """Whether matrices are stored (in, out) where nothing else tells."""
    whole_of_mlx_lm: bool = False
    """Whether it replaces tensors by mlx-lm's, in its layouts."""
    problems: tuple[tuple[str, str], ...] = ()
