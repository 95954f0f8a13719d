"""A model's config as a config.json is written from it."""

from collections.abc import Mapping
from typing import Any

import attrs

from lmx_core.config import BlockConfig, ModelConfig
from lmx_core.construct import completed
from lmx_core.errors import LmxError
from lmx_core.registry import registry
from lmx_hf.config import ACTIVATIONS

THEIRS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
"""The first name that a config has for each activation."""

SCALING = {"original_max_seq_len": "original_max_position_embeddings", "fraction": "partial_rotary_factor"}
"""Options of a rope's scaling that have another name there."""


class UnfitError(LmxError):
    """A model that a family cannot say."""


@attrs.frozen
class Described:
    """A model, its options filled in and its layers one by one. What it is asked for and does not have is `UnfitError`."""

    model: ModelConfig = attrs.field(converter=completed)

    @property
    def block(self) -> BlockConfig:
        """What the layers share, as far as they do: the first of them."""
        return self.model.get_block_config(0)

    @property
    def layers(self) -> list[BlockConfig]:
        return [self.model.get_block_config(i) for i in range(self.model.n_layers)]

    def numbers(self, names: Mapping[str, str]) -> dict[str, Any]:
        """`{ours: theirs}`, of fields of the model or of its blocks, under their names."""
        return {theirs: self.number(ours) for ours, theirs in names.items()}

    def number(self, name: str) -> Any:
        for holder in (self.model, self.block):
            if hasattr(holder, name):
                return getattr(holder, name)
        raise UnfitError(f"a model has no number {name!r}")

    def option(self, path: str, block: BlockConfig | None = None) -> Any:
        """`"attention.qkv_bias"`: an option of a component of a block, the first one unless given; None where it has none.

        A component without such an option does not fit.
        """
        slot, _, name = path.partition(".")
        chosen = getattr(block or self.block, slot)
        if not self.knows(path, block):
            raise UnfitError(f"{slot} {chosen.name!r} has no option {name!r}")
        return chosen.options.get(name)

    def knows(self, path: str, block: BlockConfig | None = None) -> bool:
        """Whether a block's component has such an option."""
        slot, _, name = path.partition(".")
        options = getattr(registry(slot).get(getattr(block or self.block, slot).name), "Options", None)
        return options is not None and name in {field.alias for field in attrs.fields(options)}

    def has(self, path: str, block: BlockConfig) -> bool:
        """Whether a block's component has a value for this option."""
        slot, _, name = path.partition(".")
        return getattr(block, slot).options.get(name) is not None

    def bias(self, path: str, block: BlockConfig | None = None) -> bool:
        """An option that is the block's `bias` unless given."""
        value = self.option(path, block)
        return (block or self.block).bias if value is None else value

    def activation(self, path: str = "ffn.activation", block: BlockConfig | None = None) -> str:
        """Under their name."""
        chosen = self.option(path, block)
        if isinstance(chosen, Mapping):
            chosen = chosen.get("name")
        if chosen not in THEIRS:
            raise UnfitError(f"activation {chosen!r} has no name in a config.json")
        return THEIRS[chosen]

    def scale(self, block: BlockConfig | None = None) -> float:
        """Of a block's scores."""
        given = self.option("attention.scale", block)
        return (block or self.block).head_dim ** -0.5 if given is None else given

    def first(self, path: str) -> BlockConfig | None:
        """The first layer whose component has a value for this option."""
        return next((block for block in self.layers if self.has(path, block)), None)

    @property
    def window(self) -> int | None:
        """Of the layers that have one."""
        block = self.first("attention.window")
        return None if block is None else self.option("attention.window", block)

    @property
    def wide(self) -> BlockConfig | None:
        """The first layer without a window."""
        return next((block for block in self.layers if not self.has("attention.window", block)), None)

    @property
    def layer_types(self) -> list[str]:
        """By whether a layer has a window."""
        return [
            "sliding_attention" if self.has("attention.window", block) else "full_attention" for block in self.layers
        ]

    def turns(self, block: BlockConfig) -> bool:
        """Whether a block has a rope."""
        return self.knows("position.theta", block)

    @property
    def turned(self) -> BlockConfig | None:
        """The first layer with a rope."""
        return next((block for block in self.layers if self.turns(block)), None)

    def rope(self, block: BlockConfig | None = None) -> dict[str, Any]:
        """`rope_theta` and `rope_scaling` of a block, the first with a rope unless given, in the published layout."""
        block = block or self.turned
        if block is None:
            return {"rope_theta": self.block.rope_theta, "rope_scaling": None}
        theta = self.option("position.theta", block)
        scaling = self.option("position.scaling", block)
        return {
            "rope_theta": float(block.rope_theta if theta is None else theta),
            "rope_scaling": None if scaling is None else _scaling(scaling),
        }


def _scaling(scaling: Any) -> dict[str, Any]:
    """Its kind under the old name, too, which is the one that mlx-lm knows."""
    options = {"name": scaling} if isinstance(scaling, str) else dict(scaling)
    options = {SCALING.get(ours, ours): value for ours, value in options.items()}
    name = options.pop("name")
    return {"rope_type": name, "type": name, **options}
