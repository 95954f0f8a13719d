"""Command R."""

import re
from typing import Any

from ..hf import Config, Family, Tensors, renamed
from .llama import LAYER, NAMES, attending, kinds

COHERE = {**NAMES, LAYER + r"input_layernorm\.(\w+)": r"layers.\1.layout.norm.\2"}


def cohere(config: Config) -> dict[str, Any]:
    return {
        **attending(config),
        "norm_eps": config["layer_norm_eps"],
        "logit_multiplier": config["logit_scale"],
        **config.renamed({"qk_norm": "use_qk_norm"}),
    }


def cohere2(config: Config) -> dict[str, Any]:
    every = config.get("sliding_window_pattern", 4)
    return {**cohere(config), **kinds(config, lambda i: (i + 1) % every)}


def of_cohere(tensors: Tensors, config: Config) -> Tensors:
    """Each head has weights of its own, (H, E), which are (H, 1, E) in lmx."""
    of_heads = re.compile(r"self_attn\.[qk]_norm\.weight$")
    shaped = {name: each[:, None] if of_heads.search(name) else each for name, each in tensors.items()}
    return renamed(shaped, COHERE)


FAMILIES = {
    "cohere": Family(factory="cohere", arguments=cohere, weights=of_cohere),
    "cohere2": Family(factory="cohere2", arguments=cohere2, weights=of_cohere),
}
