"""Packed weights that have to be dense in lmx."""

from collections.abc import Mapping, Sequence

import attrs
import mlx.core as mx

from lmx_core.errors import ConfigError
from lmx_core.quantised import Packing
from lmx_hf.rules import Rule
from lmx_hf.transforms import Arrays, Aside, Chain, Same, Transform

PARTS = ("weight", "scales", "biases")


@attrs.frozen
class Unpacked:
    """Packed rows of so many numbers (their weight, scales and, if they have them, biases) as they are when dense."""

    width: int

    def read(self, arrays: Arrays) -> Arrays:
        weight, scales = arrays[:2]
        biases = arrays[2] if len(arrays) > 2 else None
        how = Packing.read(weight, scales, self.width)
        return [mx.dequantize(weight, scales, biases, **attrs.asdict(how))]

    def write(self, arrays: Arrays) -> Arrays:
        raise ConfigError("weights that have to be dense in lmx are read from packed ones, and never written so")


def unevenly_packed(
    tensors: Mapping[str, mx.array], theirs: Sequence[str], ours: str, width: int, joined: Transform
) -> list[Rule]:
    """A rule for matrices that are one in lmx, where they are packed in several ways: as a dense one.

    `theirs` and `ours` are names of modules, and `joined` makes one of the matrices.
    """
    parts = [[name for part in PARTS if (name := f"{each}.{part}") in tensors] for each in theirs]
    ways = {tuple((tensors[name].dtype, tensors[name].shape[-1]) for name in each) for each in parts}
    if not all(parts) or len(ways) == 1:
        return []
    dense = Aside([(len(each), 1, Unpacked(width) if len(each) > 1 else Same()) for each in parts])
    return [Rule([name for each in parts for name in each], f"{ours}.weight", Chain(dense, joined))]
