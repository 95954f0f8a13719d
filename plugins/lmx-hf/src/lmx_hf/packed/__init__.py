"""Checkpoints whose weights have few bits, in the formats of other programs, as MLX's packed weights."""

from lmx_hf.packed.entry import quantisation_entry as quantisation_entry
from lmx_hf.packed.formats import unpacked as unpacked
