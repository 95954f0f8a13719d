"""OLMo."""

from typing import Any

from ..hf import Config, Family
from .llama import OUTPUT_NORMS, attending, kinds, named, plain


def olmo(config: Config) -> dict[str, Any]:
    return {**attending(config), "clip": config.get("clip_qkv")}


def olmo3(config: Config) -> dict[str, Any]:
    """A published `rope_theta` reaches the layers without a window alone."""
    local = config.rope_arguments("sliding_attention")["rope_theta"]
    return {**attending(config), **kinds(config, lambda i: (i + 1) % 4), "local_rope_theta": local}


FAMILIES = {
    "olmo": Family(factory="olmo", arguments=olmo, weights=plain),
    "olmo2": Family(factory="olmo2", arguments=attending, weights=named(OUTPUT_NORMS)),
    "olmo3": Family(factory="olmo3", arguments=olmo3, weights=named(OUTPUT_NORMS)),
}
