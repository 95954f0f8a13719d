"""Layers that are wired alike, and what is before and after all of them."""

from collections.abc import Container, Sequence

import attrs

from lmx_core.block import ConfigurableBlock
from lmx_core.census import Layers
from lmx_core.config import ModelConfig
from lmx_core.wiring.steps import Step, provided_by, wiring
from lmx_core.wiring.symbols import TIMES, Box

NAMED = "blocks."


@attrs.frozen
class Group:
    """Layers that are wired alike, of parts with the same names."""

    steps: Sequence[Step]
    members: Sequence[Layers]
    """By distinct blocks, which may differ in numbers."""

    @property
    def name(self) -> str:
        """That of a named block, or nothing."""
        return ", ".join(each.name.removeprefix(NAMED) for each in self.members if each.name.startswith(NAMED))

    @property
    def layers(self) -> Sequence[int]:
        return sorted(layer for each in self.members for layer in each.layers)

    def sum(self, of: str) -> int:
        """Of all its layers together: `sum("parameters")`."""
        return sum(len(each.layers) * getattr(each, of) for each in self.members)

    def each(self, of: str) -> str:
        """Of one layer, `from-to` where they differ: `each("cache_bytes_per_token")`, or `each("d_ff")` of its block."""
        found = {getattr(each if hasattr(each, of) else each.block, of) for each in self.members}
        return f"{min(found):,}" if len(found) == 1 else f"{min(found):,}-{max(found):,}"


def groups(layers: Sequence[Layers]) -> list[Group]:
    """The layers of a model by how they are wired, in the order in which they first come."""
    found: list[tuple[Sequence[Step], list[Layers]]] = []
    for each in layers:
        steps = wiring(ConfigurableBlock(each.block))
        alike = [members for other, members in found if other == steps]
        if alike:
            alike[0].append(each)
        else:
            found.append((steps, [each]))
    return [Group(steps, members) for steps, members in found]


def around(config: ModelConfig, parts: Container[str]) -> tuple[list[Box], list[Box]]:
    """What a token goes through before the first layer and after the last one, in a model that has these parts."""
    blocks = dict.fromkeys(config.get_block_config(i) for i in range(config.n_layers))
    placed = dict.fromkeys(block.position.name for block in blocks if "embed" in provided_by(block))
    before = [
        Box("embed", "table"),
        *([Box("project_in", "norm")] if "project_in" in parts else []),
        *_times(config.embedding_multiplier),
        *([Box(config.embedding_norm.name, "norm")] if config.embedding_norm else []),
        *(Box(f"+ {name}", "norm") for name in placed),
    ]
    after = [
        *([Box((config.final_norm or config.block.norm).name, "norm")] if "norm" in parts else []),
        *([Box("project_out", "norm")] if "project_out" in parts else []),
        Box("head" if "head" in parts else "head, tied to embed", "table"),
        *_times(config.logit_multiplier),
        *([Box(f"softcap {config.logit_softcap:g}", "factor")] if config.logit_softcap is not None else []),
    ]
    return before, after


def _times(factor: float) -> list[Box]:
    return [] if factor == 1 else [Box(f"{TIMES} {factor:g}", "factor")]
