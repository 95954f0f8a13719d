"""Command R."""

from typing import Any

from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.gemma import every_wide
from lmx_hf.families.llama import HEADS, NUMBERS, attending, family, rules
from lmx_hf.rules import Rule
from lmx_hf.transforms import Reversed, Squeezed

RULES = [
    *(
        Rule(
            f"layers.{{i}}.self_attn.{each}_norm.weight",
            f"layers.{{i}}.attention.{each}_norm.weight",
            Reversed(Squeezed(1)),
        )
        for each in "qk"
    ),
    *rules(layout__norm="input_layernorm"),
]
"""Each head has weights of its own, (H, E), which are (H, 1, E) in lmx."""


def cohere(config: Config) -> dict[str, Any]:
    return {
        **attending(config),
        "norm_eps": config["layer_norm_eps"],
        "logit_multiplier": config["logit_scale"],
        **config.renamed({"qk_norm": "use_qk_norm"}),
    }


def shared_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers({**NUMBERS, **HEADS, "norm_eps": "layer_norm_eps"}),
        "hidden_act": model.activation(),
        "attention_bias": model.bias("attention.qkv_bias"),
        "logit_scale": model.model.logit_multiplier,
    }


def cohere_keys(model: Described) -> dict[str, Any]:
    return {
        **shared_keys(model),
        **model.rope(),
        "use_qk_norm": model.option("attention.qk_norm") is not None,
    }


def cohere2(config: Config) -> dict[str, Any]:
    every = config.get("sliding_window_pattern", 4)
    return {**cohere(config), **config.kinds(lambda i: (i + 1) % every)}


def cohere2_keys(model: Described) -> dict[str, Any]:
    """Layers without a window have no rope."""
    local = model.first("attention.window")
    return {
        **shared_keys(model),
        **(model.rope(local) if local else {"rope_theta": model.block.rope_theta}),
        "sliding_window": model.window,
        "layer_types": model.layer_types,
        "sliding_window_pattern": every_wide(model.layer_types),
    }


COHERE = family("cohere", "CohereForCausalLM", cohere, cohere_keys, RULES)
COHERE2 = family("cohere2", "Cohere2ForCausalLM", cohere2, cohere2_keys, RULES)
