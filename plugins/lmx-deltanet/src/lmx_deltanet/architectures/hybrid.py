"""What models of two kinds of layers have in common."""

from collections.abc import Sequence
from typing import Literal

import attrs

from lmx_core.config import ComponentSpec, ModelConfig
from lmx_core.errors import ConfigError
from lmx_core.factories import patterned

Mixer = Literal["linear", "full"]
"""Of a layer, by its attention."""
FFN = Literal["sparse", "dense"]
"""Of a layer, by whether its FFN is a mixture."""
THREE_TO_ONE: tuple[Mixer, ...] = ("linear", "linear", "linear", "full")
ONE_TO_ONE: tuple[Mixer, ...] = ("linear", "full")
"""Of a tiny model, which has two layers."""


def hybrid(
    config: ModelConfig,
    pattern: Sequence[Mixer],
    linear: ComponentSpec,
    ffns: Sequence[FFN] = ("dense",),
    moe: ComponentSpec | None = None,
    layout: str | None = None,
) -> ModelConfig:
    """The model with linear attention in the layers that `pattern` calls so, over and over, which then need no position;
    they may have a layout of their own. With a mixture, those have it that `ffns` calls sparse.
    """
    if not (pattern and ffns):
        raise ConfigError("pattern and ffns say of at least one layer what it is; one of them is empty")
    full = config.block
    mixers = {
        "linear": attrs.evolve(full, attention=linear, position="none", layout=layout or full.layout),
        "full": full,
    }
    if moe is None:
        return patterned(config, pattern, **mixers)
    blocks = {f"{name}_dense": block for name, block in mixers.items()}
    blocks |= {f"{name}_sparse": attrs.evolve(block, ffn=moe) for name, block in mixers.items()}
    order = [f"{pattern[i % len(pattern)]}_{ffns[i % len(ffns)]}" for i in range(config.n_layers)]
    return patterned(config, order, **blocks)
