"""Mixtures of experts."""

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from ..hf import Config, Family, Tensors, in_turn, renamed, scaling_spec, split, stack_experts
from .llama import LAYER, NAMES, gated, granite, kinds, llama, mistral, parts

Weights = Callable[[Tensors, Config], Tensors]
MIXTURE = LAYER + r"(?:mlp|block_sparse_moe|feed_forward)\."
SPARSE = {
    **NAMES,
    MIXTURE + r"experts\.(gate|up|down)_proj\.(\w+)": r"layers.\1.ffn.experts.\2.\3",
    MIXTURE + r"shared_experts?\.(gate|up|down)_proj\.(\w+)": r"layers.\1.ffn.shared.\2.\3",
    MIXTURE + r"shared_expert_gate\.(\w+)": r"layers.\1.ffn.shared_gate.\2",
    MIXTURE + r"(?:gate|router)\.(?:layer\.)?(weight|bias)": r"layers.\1.ffn.router.\2",
    MIXTURE + r"(?:gate\.)?e_score_correction_bias": r"layers.\1.ffn.router.correction",
    MIXTURE + r"(gate|up|down)_proj\.(\w+)": r"layers.\1.ffn.\2.\3",
    LAYER + r"self_attn\.sinks": r"layers.\1.attention.sinks",
}
"""Tensors of LLaMA with an FFN that may be sparse, once its experts are stacked."""
DBRX = {
    r"wte\.weight": "embed.weight",
    r"norm_f\.weight": "norm.weight",
    r"lm_head\.weight": "head.weight",
    r"blocks\.(\d+)\.norm_attn_norm\.norm_1\.weight": r"layers.\1.layout.attention_norm.weight",
    r"blocks\.(\d+)\.norm_attn_norm\.norm_2\.weight": r"layers.\1.layout.ffn_norm.weight",
    r"blocks\.(\d+)\.norm_attn_norm\.attn\.([qkv]_proj)\.weight": r"layers.\1.attention.\2.weight",
    r"blocks\.(\d+)\.norm_attn_norm\.attn\.out_proj\.weight": r"layers.\1.attention.o_proj.weight",
    r"blocks\.(\d+)\.ffn\.router\.layer\.weight": r"layers.\1.ffn.router.weight",
    r"blocks\.(\d+)\.ffn\.experts\.mlp\.w1": r"layers.\1.ffn.experts.gate.weight",
    r"blocks\.(\d+)\.ffn\.experts\.mlp\.v1": r"layers.\1.ffn.experts.up.weight",
    r"blocks\.(\d+)\.ffn\.experts\.mlp\.w2": r"layers.\1.ffn.experts.down.weight",
}


def choice(config: Config) -> dict[str, Any]:
    """How many experts there are, and how many a token takes."""
    return {
        "n_experts": config.under("num_local_experts", "num_experts", "n_routed_experts"),
        "top_k": config["num_experts_per_tok"],
    }


def qwen_ffns(config: Config) -> list[str]:
    """Layers are sparse every so often, but for some."""
    every, dense = config["decoder_sparse_step"], config.get("mlp_only_layers", [])
    layers = range(config["num_hidden_layers"])
    return ["dense" if i in dense or (i + 1) % every else "sparse" for i in layers]


def small_experts(config: Config) -> dict[str, Any]:
    """Of Qwen's families."""
    return {
        **choice(config),
        "ffns": qwen_ffns(config),
        "expert_d_ff": config["moe_intermediate_size"],
        "renormalise": config["norm_topk_prob"],
    }


def mixtral(config: Config) -> dict[str, Any]:
    return {**mistral(config), **choice(config)}


def qwen2_moe(config: Config) -> dict[str, Any]:
    """By default every other one of the first layers has the window, if any has."""
    first = config.get("max_window_layers", 28)
    windows = kinds(config, lambda i: (i + 1) % 2 and i < first) if config["use_sliding_window"] else {"window": None}
    return {
        **gated(config, qkv_bias="qkv_bias"),
        **windows,
        **small_experts(config),
        "shared_d_ff": config["shared_expert_intermediate_size"],
    }


def qwen3_moe(config: Config) -> dict[str, Any]:
    window = config.get("sliding_window") if config["use_sliding_window"] else None
    return {**gated(config, attention_bias="attention_bias"), "window": window, **small_experts(config)}


def olmoe(config: Config) -> dict[str, Any]:
    return {
        **gated(config, attention_bias="attention_bias"),
        **choice(config),
        "clip": config.get("clip_qkv"),
        "renormalise": config["norm_topk_prob"],
    }


def phimoe(config: Config) -> dict[str, Any]:
    """Its LongRoPE states the factor of what is turned for short and for long texts, which are the same."""
    rope = config.rope()
    scaled = rope["rope_type"] != "default"
    if scaled:
        assert rope["short_mscale"] == rope["long_mscale"]
        rope["attention_factor"] = rope["short_mscale"]
    assert config["num_experts_per_tok"] == 2
    return {
        **mistral(config),
        "rope_scaling": scaling_spec(rope) if scaled else None,
        "n_experts": config["num_local_experts"],
        **config.renamed({"attention_bias": "attention_bias", "head_bias": "lm_head_bias"}),
        **config.renamed({"router_jitter": "router_jitter_noise"}),
    }


def granitemoe(config: Config) -> dict[str, Any]:
    return {**granite(config), **choice(config)}


def gpt_oss(config: Config) -> dict[str, Any]:
    assert config.get("swiglu_alpha", 1.702) == 1.702
    return {
        **gated(config, attention_bias="attention_bias"),
        **kinds(config, lambda i: i % 2 == 0),
        **choice(config),
        "clamp": config["swiglu_limit"],
    }


def llama4(config: Config) -> dict[str, Any]:
    """Layers with a rope are those that see a chunk."""
    layers = range(config["num_hidden_layers"])
    every, step = config.get("no_rope_layer_interval", 4), config.get("interleave_moe_layer_step", 1)
    turned = config.data.get("no_rope_layers") or [(i + 1) % every for i in layers]
    sparse = config.data.get("moe_layers", [i for i in layers if (i + 1) % step == 0])
    types = config.data.get("layer_types") or ["chunked_attention" if turned[i] else "full_attention" for i in layers]
    assert all(bool(turned[i]) == (types[i] == "chunked_attention") for i in layers)
    return {
        **llama(config),
        "chunk_size": config["attention_chunk_size"],
        "pattern": ["rope" if turned[i] else "nope" for i in layers],
        "qk_norm": config["use_qk_norm"],
        "query_growth": config["attn_scale"] if config["attn_temperature_tuning"] else 0.0,
        "query_growth_every": config["floor_scale"],
        "ffns": ["sparse" if i in sparse else "dense" for i in layers],
        **choice(config),
        "d_ff": config["intermediate_size_mlp"],
        "expert_d_ff": config["intermediate_size"],
    }


def glm4_moe(config: Config) -> dict[str, Any]:
    routing = {
        "n_dense_layers": "first_k_dense_replace",
        "expert_d_ff": "moe_intermediate_size",
        "n_shared_experts": "n_shared_experts",
        "n_groups": "n_group",
        "top_groups": "topk_group",
        "renormalise": "norm_topk_prob",
        "routed_scaling": "routed_scaling_factor",
        "qk_norm": "use_qk_norm",
    }
    return {
        **gated(config, qkv_bias="attention_bias"),
        **choice(config),
        **config.renamed(routing),
        "rope_fraction": config.rope().get("partial_rotary_factor", 0.5),
    }


def minimax_m2(config: Config) -> dict[str, Any]:
    """The older layout may state how many numbers of a head are turned."""
    numbers = gated(config)
    fraction = config.rope().get("partial_rotary_factor", 1.0)
    if "rope_parameters" not in config.data and "rotary_dim" in config.data:
        fraction = config["rotary_dim"] / numbers["head_dim"]
    return {**numbers, **choice(config), "rope_fraction": fraction}


def dbrx(config: Config) -> dict[str, Any]:
    """The base of its rope is that of `attn_config`, which transformers 5 does not read."""
    attention, ffn = config["attn_config"], config["ffn_config"]
    assert (ffn.get("ffn_act_fn") or {"name": "silu"})["name"] == "silu"
    assert ffn.get("moe_normalize_expert_weights", 1.0) in (None, 1.0)
    return {
        **{key: config[key] for key in ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size")},
        "n_kv_heads": attention.get("kv_n_heads", 1),
        "clip": attention.get("clip_qkv"),
        "rope_theta": float(attention["rope_theta"]),
        "d_ff": ffn["ffn_hidden_size"],
        "n_experts": ffn["moe_num_experts"],
        "top_k": ffn["moe_top_k"],
        "renormalise": ffn.get("moe_normalize_expert_weights", 1.0) is not None,
    }


def sparse(tensors: Tensors, config: Config) -> Tensors:
    return renamed(stack_experts(tensors), SPARSE)


def of_granitemoe(tensors: Tensors, config: Config) -> Tensors:
    ours = {"input_linear.weight": "experts.gate_up_proj", "output_linear.weight": "experts.down_proj"}
    stacked = re.compile("|".join(map(re.escape, ours)))
    return sparse({stacked.sub(lambda m: ours[m[0]], name): tensor for name, tensor in tensors.items()}, config)


def turned(tensors: Tensors) -> Tensors:
    """Experts' matrices as (experts, out, in), where they are (experts, in, out)."""
    matrix = re.compile(r".*\bexperts\.\w+_proj")
    return {name: each.swapaxes(1, 2) if matrix.fullmatch(name) else each for name, each in tensors.items()}


def of_llama4(tensors: Tensors, config: Config) -> Tensors:
    return sparse(turned(tensors), config)


def of_gpt_oss(tensors: Tensors, config: Config) -> Tensors:
    """Rows of the gate and of up take turns."""

    def one_after_the_other(rows: mx.array) -> mx.array:
        return mx.concatenate([rows[:, ::2], rows[:, 1::2]], axis=1)

    mingled = re.compile(r".*\bexperts\.gate_up_proj(_bias)?")
    apart = {
        name: one_after_the_other(each) if mingled.fullmatch(name) else each for name, each in turned(tensors).items()
    }
    return sparse(apart, config)


def of_dbrx(tensors: Tensors, config: Config) -> Tensors:
    """Experts' matrices lie on each other, (experts * F, D), down as well."""
    given = dbrx(config)
    shared = given["n_kv_heads"] * given["d_model"] // given["n_heads"]
    rows = parts("qkv", in_turn(given["d_model"], shared, shared))
    apart = renamed(split(tensors, r".*\.(?P<fused>Wqkv)\.weight", rows), DBRX)
    for name, each in apart.items():
        if ".experts." in name:
            stacked = each.reshape(given["n_experts"], given["d_ff"], given["d_model"])
            apart[name] = stacked.swapaxes(1, 2) if ".down." in name else stacked
    return apart


def family(factory: str, arguments: Callable[[Config], dict[str, Any]], weights: Weights = sparse) -> Family:
    return Family(factory=factory, arguments=arguments, weights=weights, needs=("lmx-ffn-moe",))


FAMILIES = {
    "mixtral": family("mixtral", mixtral),
    "qwen2_moe": family("qwen2_moe", qwen2_moe),
    "qwen3_moe": family("qwen3_moe", qwen3_moe),
    "olmoe": family("olmoe", olmoe),
    "phimoe": family("phimoe", phimoe),
    "granitemoe": family("granitemoe", granitemoe, of_granitemoe),
    "gpt_oss": family("gpt_oss", gpt_oss, of_gpt_oss),
    "llama4_text": family("llama4", llama4, of_llama4),
    "glm4_moe": family("glm4_moe", glm4_moe),
    "minimax_m2": family("minimax_m2", minimax_m2),
    "dbrx": family("dbrx", dbrx, of_dbrx),
}
