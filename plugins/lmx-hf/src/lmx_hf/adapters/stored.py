"""One tensor of a checkpoint, dense or packed."""

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_core.quantised import Packing
from lmx_hf.adapters.changes import Misfit
from lmx_hf.transforms import Tensors

SIDES = "scales", "biases"


@attrs.frozen(eq=False)
class Stored:
    """A weight, and what it takes to unpack it."""

    weight: array
    scales: array | None = None
    biases: array | None = None

    @classmethod
    def at(cls, tensors: Tensors, name: str) -> "Stored":
        return cls(tensors[name], *(tensors.get(side) for side in sides(name)))

    def __str__(self) -> str:
        packed = "" if self.scales is None else f" of {self.weight.dtype} with scales {self.scales.shape}"
        return f"{self.weight.shape}{packed}"

    def shape(self, natural: tuple[int, ...]) -> tuple[int, ...]:
        """Of the numbers; where they are packed, with rows as long as a matrix of this shape, or its transpose, has."""
        if self.scales is None:
            return self.weight.shape
        rows, columns = natural[-2:]
        return (*self.weight.shape[:-1], columns if self.weight.shape[-2] == rows else rows)

    def dense(self, width: int) -> array:
        """The numbers, in rows of this length."""
        if self.scales is None:
            return self.weight
        try:
            how = Packing.read(self.weight, self.scales, width)
            return mx.dequantize(self.weight, self.scales, self.biases, **attrs.asdict(how))
        except ValueError as error:
            raise Misfit(f"is packed in a way that MLX does not know: {error}") from None


def sides(name: str) -> tuple[str, ...]:
    """What belongs to a packed weight."""
    return tuple(f"{name.removesuffix('.weight')}.{side}" for side in SIDES)
