"""Gemma."""

from typing import Any

from lmx_hf.config import Config
from lmx_hf.described import Described, UnfitError
from lmx_hf.families.llama import HEADS, NUMBERS, RULES, family, numbers, rules

SANDWICH = rules(
    layout__attention_norm="input_layernorm",
    layout__attention_out_norm="post_attention_layernorm",
    layout__ffn_norm="pre_feedforward_layernorm",
    layout__ffn_out_norm="post_feedforward_layernorm",
)
CAPS = {"softcap": "attn_logit_softcapping", "logit_softcap": "final_logit_softcapping"}


def gemma(config: Config) -> dict[str, Any]:
    """A `hidden_act` of "gelu" means the tanh form; `hidden_activation`, where it is set, wins."""
    config.only("use_bidirectional_attention", False)
    legacy = not config.get("hidden_activation") and config["hidden_act"] == "gelu"
    key = "hidden_activation" if config.get("hidden_activation") else "hidden_act"
    activation = "gelu_tanh" if legacy else config.activation(key)
    return {**numbers(config), **config.renamed({"attention_bias": "attention_bias"}), "activation": activation}


def gemma_keys(model: Described) -> dict[str, Any]:
    """mlx-lm and transformers 5 read one name of the activation each."""
    return {
        **model.numbers({**NUMBERS, **HEADS}),
        **model.rope(),
        "hidden_act": model.activation(),
        "hidden_activation": model.activation(),
        "attention_bias": model.bias("attention.qkv_bias"),
    }


def gemma2(config: Config) -> dict[str, Any]:
    return {
        **gemma(config),
        **{ours: config.get(theirs) for ours, theirs in CAPS.items()},
        "attention_scale": config["query_pre_attn_scalar"] ** -0.5,
        **config.kinds(lambda i: i % 2 == 0),
    }


def gemma2_keys(model: Described) -> dict[str, Any]:
    return {
        **gemma_keys(model),
        "attn_logit_softcapping": model.option("attention.softcap"),
        "final_logit_softcapping": model.model.logit_softcap,
        "query_pre_attn_scalar": query_scalar(model.scale()),
        "sliding_window": model.window,
        "layer_types": model.layer_types,
    }


def query_scalar(scale: float) -> int:
    """The whole number of which the scale is the inverse square root."""
    number = round(scale**-2)
    if number**-0.5 != scale:
        raise UnfitError(f"scores times {scale}, which is no whole number's inverse square root")
    return number


def gemma3(config: Config) -> dict[str, Any]:
    """A cap of the scores in the config is read by nobody."""
    every = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    return {
        **gemma2(config),
        "softcap": None,
        **config.kinds(lambda i: (i + 1) % every),
        "local_rope_theta": config.rope_arguments("sliding_attention")["rope_theta"],
    }


def gemma3_keys(model: Described) -> dict[str, Any]:
    """mlx-lm reads `sliding_window_pattern` alone, which cannot say every order of layers."""
    truncated(model)
    local = model.first("attention.window")
    return {
        **gemma2_keys(model),
        **(model.rope(model.wide) if model.wide else {"rope_scaling": None}),
        "rope_local_base_freq": model.rope(local)["rope_theta"] if local else 10_000.0,
        "sliding_window_pattern": every_wide(model.layer_types),
    }


def truncated(model: Described) -> None:
    """`UnfitError` where a rope's YaRN has bounds that are not whole: for ropes by kind of layer transformers misses that."""
    ropes = [model.rope(block)["rope_scaling"] for block in model.layers if model.turns(block)]
    if any(scaling is not None and scaling.get("truncate") is False for scaling in ropes):
        raise UnfitError("the rope is scaled by yarn with truncate=False, which transformers does not read here")


def every_wide(types: list[str]) -> int | None:
    """`n` where each n-th layer, and no other, has no window; None where they stand otherwise."""
    wide = [i + 1 for i, each in enumerate(types) if each == "full_attention"]
    n = wide[0] if wide else len(types) + 1
    return n if wide == [i + 1 for i in range(len(types)) if not (i + 1) % n] else None


GEMMA = family("gemma", "GemmaForCausalLM", gemma, gemma_keys, RULES)
GEMMA2 = family("gemma2", "Gemma2ForCausalLM", gemma2, gemma2_keys, SANDWICH)
GEMMA3_TEXT = family("gemma3_text", "Gemma3ForCausalLM", gemma3, gemma3_keys, SANDWICH, factory="gemma3")
