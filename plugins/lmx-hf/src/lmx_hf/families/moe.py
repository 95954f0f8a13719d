"""Mixtures of experts that differ from LLaMA in little else."""

from collections.abc import Sequence
from typing import Any

from lmx_core.errors import ConfigError
from lmx_hf.config import Config, scaling_spec
from lmx_hf.described import Described, UnfitError
from lmx_hf.families.llama import (
    MULTIPLIERS,
    RULES,
    attending,
    attending_keys,
    gated,
    gated_keys,
    mistral,
    mistral_keys,
    multipliers_keys,
    narrow,
)
from lmx_hf.families.mixture import (
    FURTHER_LAYER,
    NUMBERED,
    choice,
    choice_keys,
    expert_keys,
    leading,
    mixture,
    qwen_ffn_keys,
    qwen_ffns,
    shared,
    switched,
    width,
)
from lmx_hf.family import Family, layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Parts

BLOCK = [*mixture("block_sparse_moe", NUMBERED), *RULES]
MINIMAX = [*mixture("block_sparse_moe", NUMBERED, corrections=("", "gate.")), *RULES]
MLP = [*mixture(), *RULES]
SHARED = [
    *shared("mlp.shared_expert"),
    *layered("layers", {"ffn.shared_gate": "mlp.shared_expert_gate"}),
    *MLP,
]
GRANITE = [
    *(
        Rule(
            f"layers.{{i}}.block_sparse_moe.{theirs}.{{p}}",
            [f"layers.{{i}}.ffn.experts.{each}.{{p}}" for each in ours],
            Parts(len(ours), axis=1),
        )
        for theirs, ours in {"input_linear": ("gate", "up"), "output_linear": ("down",)}.items()
    ),
    *mixture("block_sparse_moe", router="router.layer"),
    *RULES,
]


def small_experts(config: Config) -> dict[str, Any]:
    """Of Qwen's families."""
    return {
        **choice(config),
        "ffns": qwen_ffns(config),
        "expert_d_ff": config["moe_intermediate_size"],
        "renormalise": config["norm_topk_prob"],
    }


def small_experts_keys(model: Described) -> dict[str, Any]:
    return {
        **choice_keys(model, "num_experts"),
        **qwen_ffn_keys(model),
        "moe_intermediate_size": width(model),
        **expert_keys(model, {"renormalise": "norm_topk_prob"}),
    }


def mixtral(config: Config) -> dict[str, Any]:
    return {**mistral(config), **choice(config)}


def mixtral_keys(model: Described) -> dict[str, Any]:
    return {**mistral_keys(model), **choice_keys(model)}


def qwen2_moe(config: Config) -> dict[str, Any]:
    """By default every other one of the first layers has the window, if any has."""
    first = config.get("max_window_layers", 28)
    windows = config.kinds(lambda i: (i + 1) % 2 and i < first) if config["use_sliding_window"] else {"window": None}
    return {
        **gated(config, qkv_bias="qkv_bias"),
        **windows,
        **small_experts(config),
        "shared_d_ff": config["shared_expert_intermediate_size"],
    }


def qwen2_moe_keys(model: Described) -> dict[str, Any]:
    return {
        **gated_keys(model, qkv_bias="attention.qkv_bias"),
        **small_experts_keys(model),
        **expert_keys(model, {"shared_d_ff": "shared_expert_intermediate_size"}),
        "use_sliding_window": model.window is not None,
        "sliding_window": model.window,
        "layer_types": model.layer_types,
    }


def qwen3_moe(config: Config) -> dict[str, Any]:
    window = config.get("sliding_window") if config["use_sliding_window"] else None
    return {**attending(config), "window": window, **small_experts(config)}


def qwen3_moe_keys(model: Described) -> dict[str, Any]:
    return {
        **attending_keys(model),
        **small_experts_keys(model),
        "use_sliding_window": model.window is not None,
        "sliding_window": model.window,
    }


def olmoe(config: Config) -> dict[str, Any]:
    clip = config.get("clip_qkv")
    return {
        **attending(config),
        **choice(config),
        "clip": None if clip is None else float(clip),
        "renormalise": config["norm_topk_prob"],
    }


def olmoe_keys(model: Described) -> dict[str, Any]:
    narrow(model)
    return {
        **attending_keys(model),
        **choice_keys(model, "num_experts"),
        **expert_keys(model, {"renormalise": "norm_topk_prob"}),
        "clip_qkv": model.option("attention.clip"),
    }


def phimoe(config: Config) -> dict[str, Any]:
    """Its LongRoPE states the factor of what is turned for short and for long texts, which are the same.

    Texts longer than `original_max_position_embeddings` have the long factors, like in the published code; transformers 5
    divides by the short ones whatever the length.
    """
    rope = config.rope()
    scaled = rope["rope_type"] != "default"
    if scaled:
        rope["attention_factor"] = rope["short_mscale"]
        if rope["short_mscale"] != rope["long_mscale"]:
            raise ConfigError(
                f"short_mscale is {rope['short_mscale']}, long_mscale {rope['long_mscale']}. lmx's phimoe has one for both."
            )
    config.only("num_experts_per_tok", 2)
    return {
        **mistral(config),
        "rope_scaling": scaling_spec(rope, config.get("original_max_position_embeddings")) if scaled else None,
        "n_experts": config["num_local_experts"],
        **config.renamed({"attention_bias": "attention_bias", "head_bias": "lm_head_bias"}),
        **config.renamed({"router_jitter": "router_jitter_noise"}),
    }


def phimoe_keys(model: Described) -> dict[str, Any]:
    keys = {**mistral_keys(model), **choice_keys(model), **expert_keys(model, {"router_jitter": "router_jitter_noise"})}
    keys |= {"attention_bias": model.bias("attention.qkv_bias"), "lm_head_bias": model.model.head_bias}
    scaling = keys["rope_scaling"]
    if scaling is None:
        return keys
    if "attention_factor" not in scaling:
        raise UnfitError("the rope is scaled without an attention_factor, which a phimoe states")
    factor = scaling.pop("attention_factor")
    original = scaling.get("original_max_position_embeddings", model.block.max_seq_len)
    return {
        **keys,
        "rope_scaling": {**scaling, "short_mscale": factor, "long_mscale": factor},
        "original_max_position_embeddings": original,
    }


def granitemoe(config: Config) -> dict[str, Any]:
    return {
        **attending(config),
        **choice(config),
        **config.renamed(MULTIPLIERS),
        "logit_multiplier": 1 / config["logits_scaling"],
    }


def granitemoe_keys(model: Described) -> dict[str, Any]:
    return {**attending_keys(model), **choice_keys(model), **multipliers_keys(model)}


GLM4 = {
    "expert_d_ff": "moe_intermediate_size",
    "n_shared_experts": "n_shared_experts",
    "n_groups": "n_group",
    "top_groups": "topk_group",
    "renormalise": "norm_topk_prob",
    "routed_scaling": "routed_scaling_factor",
}


def glm4_moe(config: Config) -> dict[str, Any]:
    return {
        **gated(config, qkv_bias="attention_bias"),
        **choice(config),
        **config.renamed({**GLM4, "n_dense_layers": "first_k_dense_replace", "qk_norm": "use_qk_norm"}),
        "rope_fraction": config.rope().get("partial_rotary_factor", 0.5),
    }


def glm4_moe_keys(model: Described) -> dict[str, Any]:
    return {
        **attending_keys(model),
        **choice_keys(model, "n_routed_experts"),
        **expert_keys(model, {ours: theirs for ours, theirs in GLM4.items() if ours != "expert_d_ff"}),
        "moe_intermediate_size": width(model),
        "first_k_dense_replace": leading(model),
        "use_qk_norm": model.option("attention.qk_norm") is not None,
        "partial_rotary_factor": model.option("position.fraction"),
    }


def minimax_m2(config: Config) -> dict[str, Any]:
    """The older layout may state how many numbers of a head are turned."""
    numbers = gated(config)
    fraction = config.rope().get("partial_rotary_factor")
    if fraction is None:
        fraction = config.get("rotary_dim", numbers["head_dim"]) / numbers["head_dim"]
    return {**numbers, **choice(config), "rope_fraction": fraction}


def minimax_m2_keys(model: Described) -> dict[str, Any]:
    fraction = model.option("position.fraction")
    return {
        **gated_keys(model),
        **choice_keys(model),
        "partial_rotary_factor": fraction,
        "rotary_dim": round(fraction * model.block.head_dim),
        "use_qk_norm": True,
        "qk_norm_type": "per_layer",
        "scoring_func": "sigmoid",
        "use_routing_bias": True,
        "shared_intermediate_size": 0,
    }


def family(
    model_type: str, architecture: str, arguments: Any, keys: Any, rules: Sequence[Rule], place: str, **more: Any
) -> Family:
    """Of this kin, with experts in this place: its factory is named like its `model_type`."""
    return Family(
        model_type=model_type,
        factory=model_type,
        architecture=architecture,
        arguments=arguments,
        keys=keys,
        rules=rules,
        mlx_rules=switched(f"{place}.switch_mlp"),
        **more,
    )


MIXTRAL = family("mixtral", "MixtralForCausalLM", mixtral, mixtral_keys, BLOCK, "block_sparse_moe")
QWEN2_MOE = family("qwen2_moe", "Qwen2MoeForCausalLM", qwen2_moe, qwen2_moe_keys, SHARED, "mlp")
QWEN3_MOE = family("qwen3_moe", "Qwen3MoeForCausalLM", qwen3_moe, qwen3_moe_keys, MLP, "mlp")
OLMOE = family("olmoe", "OlmoeForCausalLM", olmoe, olmoe_keys, MLP, "mlp")
PHIMOE = family("phimoe", "PhimoeForCausalLM", phimoe, phimoe_keys, BLOCK, "block_sparse_moe")
GRANITEMOE = family("granitemoe", "GraniteMoeForCausalLM", granitemoe, granitemoe_keys, GRANITE, "block_sparse_moe")
GLM4_MOE = family(
    *("glm4_moe", "Glm4MoeForCausalLM", glm4_moe, glm4_moe_keys),
    [*shared("mlp.shared_experts"), *MLP],
    "mlp",
    ignored=FURTHER_LAYER,
)
MINIMAX_M2 = family("minimax_m2", "MiniMaxM2ForCausalLM", minimax_m2, minimax_m2_keys, MINIMAX, "block_sparse_moe")
