"""Gemma."""

from typing import Any

from ..hf import ACTIVATIONS, Config, Family
from .llama import kinds, named, norms, numbers, plain

SANDWICH = norms(
    attention_out_norm="post_attention_layernorm",
    ffn_norm="pre_feedforward_layernorm",
    ffn_out_norm="post_feedforward_layernorm",
)


def gemma(config: Config) -> dict[str, Any]:
    """A `hidden_act` of "gelu" means the tanh form; `hidden_activation`, where it is set, wins."""
    stated = config.get("hidden_activation")
    activation = ACTIVATIONS[stated] if stated else {**ACTIVATIONS, "gelu": "gelu_tanh"}[config["hidden_act"]]
    return {**numbers(config), **config.renamed({"attention_bias": "attention_bias"}), "activation": activation}


def gemma2(config: Config) -> dict[str, Any]:
    caps = {"softcap": "attn_logit_softcapping", "logit_softcap": "final_logit_softcapping"}
    return {
        **gemma(config),
        **{ours: config.get(theirs) for ours, theirs in caps.items()},
        "attention_scale": config["query_pre_attn_scalar"] ** -0.5,
        **kinds(config, lambda i: i % 2 == 0),
    }


def gemma3(config: Config) -> dict[str, Any]:
    """A cap of the scores in the config is read by nobody."""
    every = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    return {
        **gemma2(config),
        "softcap": None,
        **kinds(config, lambda i: (i + 1) % every),
        "local_rope_theta": config.rope_arguments("sliding_attention")["rope_theta"],
    }


FAMILIES = {
    "gemma": Family(factory="gemma", arguments=gemma, weights=plain),
    "gemma2": Family(factory="gemma2", arguments=gemma2, weights=named(SANDWICH)),
    "gemma3_text": Family(factory="gemma3", arguments=gemma3, weights=named(SANDWICH)),
}
