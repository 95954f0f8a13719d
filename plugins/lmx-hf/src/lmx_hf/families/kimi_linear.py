"""Kimi Linear."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.delta import by_channel, first_of, layers_of, pattern, unevenly_joined
from lmx_hf.families.llama import FFN, PRE_NORM, WHOLE
from lmx_hf.families.mixture import (
    CORRECTION,
    NUMBERED,
    dense_layers,
    expert_keys,
    leading,
    mixture,
    shared,
    switched,
    width,
)
from lmx_hf.families.mla import AbsorbedFamily, absorbed, has_latent, heads, heads_keys, latent_rules
from lmx_hf.family import layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, Parts, Reversed, Shaped

AT, OURS = "layers.{i}.self_attn", "layers.{i}.attention"
ROUTING = {
    "n_experts": "num_experts",
    "top_k": "num_experts_per_token",
    "n_shared_experts": "num_shared_experts",
    "renormalise": "moe_renormalize",
    "routed_scaling": "routed_scaling_factor",
    "n_groups": "num_expert_group",
    "top_groups": "topk_group",
}
LATENT = ("kv_lora_rank", "q_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim", "attention_bias")
SHARED = ("d_model", "n_heads", "n_layers", "d_ff", "norm_eps")
NAMES = {
    "decay_proj.down": "f_a_proj",
    "decay_proj.up": "f_b_proj",
    "gate_proj.down": "g_a_proj",
    "gate_proj.up": "g_b_proj",
    "beta_proj": "b_proj",
    "out_proj": "o_proj",
    "norm": "o_norm",
}
LINEAR_SIZES = {
    "n_linear_heads": ("num_heads", "linear_num_heads"),
    "linear_head_dim": ("head_dim", "linear_head_dim"),
    "conv_size": ("short_conv_kernel_size", "linear_conv_kernel_dim"),
}
"""In `linear_attn_config`, or else outside of it."""
JOINED = Reversed(Parts(3))


class KimiLinearFamily(AbsorbedFamily):
    """Queries, keys and values of linear attention are one matrix in lmx, and may be packed in several ways."""

    def reading(self, config: ModelConfig, tensors: Mapping[str, mx.array]) -> Sequence[Rule]:
        uneven = unevenly_joined(Described(config), tensors, "self_attn", JOINED)
        return [*uneven, *AbsorbedFamily.reading(self, config, tensors)]


def rules(config: ModelConfig) -> list[Rule]:
    """transformers writes dense layers as it does sparse ones."""
    model = Described(config)
    block = {ours: theirs.replace("mlp", "block_sparse_moe") for ours, theirs in FFN.items()}
    linear = layers_of(model, "linear")
    return [
        *WHOLE,
        *(mixers(model, linear) if linear else ()),
        *(latent_rules(model, layers_of(model, "full")) if has_latent(model) else ()),
        *mixture("block_sparse_moe", NUMBERED),
        *shared("block_sparse_moe.shared_experts"),
        *layered("layers", {**FFN, **PRE_NORM}),
        *layered("layers", block),
    ]


def mixers(model: Described, layers: list[int]) -> list[Rule]:
    """Of Kimi delta attention in these layers."""
    return [
        *layered("layers", {f"attention.{ours}": f"self_attn.{theirs}" for ours, theirs in NAMES.items()}, layers),
        Rule([f"{AT}.{each}_proj.{{p}}" for each in "qkv"], f"{OURS}.qkv_proj.{{p}}", JOINED, layers),
        convolutions("conv1d.weight", by_channel(model)),
        Rule(f"{AT}.A_log", f"{OURS}.A_log", Shaped((1, 1, -1, 1), (-1,))),
        Rule(f"{AT}.dt_bias", f"{OURS}.dt_bias", Shaped((-1,), (-1,))),
    ]


def convolutions(name: str, how: Shaped) -> Rule:
    return Rule([f"{AT}.{each}_{name}" for each in "qkv"], f"{OURS}.convolution.weight", Chain(JOINED, how))


def mlx_rules(config: ModelConfig) -> list[Rule]:
    """The convolutions as (channels, kernel, 1)."""
    model = Described(config)
    return [
        *absorbed(),
        *switched("mlp.switch_mlp"),
        *shared("mlp.shared_experts"),
        *layered("layers", {"ffn.router": "mlp.gate"}),
        Rule("layers.{i}.mlp.e_score_correction_bias", CORRECTION),
        *((convolutions("conv.conv.weight", by_channel(model, last=True)),) if layers_of(model, "linear") else ()),
    ]


def kimi_linear(config: Config) -> dict[str, Any]:
    """The published layout says which layers have which attention, counted from 1; else it is each fourth after the first."""
    linear, n = config.get("linear_attn_config", {}), config["num_hidden_layers"]
    full = linear.get("full_attn_layers", range(5, n + 1, 4))
    implied = ["full" if i + 1 in full else "linear" for i in range(n)]
    ffns = config.data.get("mlp_layer_types")
    dense = config.get("first_k_dense_replace", 1) if ffns is None else ffns.count("dense")
    if ffns is not None and ffns[:dense] != ["dense"] * dense:
        raise ConfigError(f"mlp_layer_types is {ffns}. In lmx's kimi_linear layers without experts come first.")
    config.only("moe_router_activation_func", "sigmoid")
    given = {key: each for key, each in heads(config).items() if key in (*SHARED, *LATENT)}
    sizes = {ours: linear.get(inside) or config[outside] for ours, (inside, outside) in LINEAR_SIZES.items()}
    return {
        **given,
        **config.renamed({"vocab_size": "vocab_size", "max_seq_len": "model_max_length", **ROUTING}),
        **config.renamed({"expert_d_ff": "moe_intermediate_size"}),
        **sizes,
        "pattern": pattern(config) if config.data.get("layer_types") else implied,
        "n_dense_layers": dense,
    }


def kimi_linear_keys(model: Described) -> dict[str, Any]:
    """mlx-lm asks for the base of a rope, which there is none of."""
    keys = heads_keys(model)
    keys["model_max_length"] = keys.pop("max_position_embeddings")
    return {
        **keys,
        **routing_keys(model),
        "linear_attn_config": linear_keys(model),
        "first_k_dense_replace": leading(model),
        "moe_layer_freq": 1,
        "moe_router_activation_func": "sigmoid",
        "use_grouped_topk": True,
        "mla_use_nope": True,
        "head_dim": model.block.head_dim,
        "rope_theta": 10_000.0,
    }


def routing_keys(model: Described) -> dict[str, Any]:
    if len(dense_layers(model)) == model.model.n_layers:
        return {}
    return {**expert_keys(model, ROUTING), "moe_intermediate_size": width(model)}


def linear_keys(model: Described) -> dict[str, Any]:
    block = first_of(model, "linear")
    return {
        "full_attn_layers": [i + 1 for i in layers_of(model, "full")],
        "kda_layers": [i + 1 for i in layers_of(model, "linear")],
        "num_heads": model.option("attention.n_key_heads", block),
        "head_dim": model.option("attention.key_head_dim", block),
        "short_conv_kernel_size": model.option("attention.conv_size", block),
    }


KIMI_LINEAR = KimiLinearFamily(
    model_type="kimi_linear",
    factory="kimi_linear",
    architecture="KimiLinearForCausalLM",
    arguments=kimi_linear,
    keys=kimi_linear_keys,
    rules=rules,
    mlx_rules=mlx_rules,
    ties=False,
)
