"""DeepSeek, and what else has its latent attention."""

from typing import Any

from ..hf import Config, Family, Tensors, renamed, split, stack_experts
from .llama import LAYER, NAMES, gated
from .moe import SPARSE

HEADS = {
    "kv_lora_rank": "kv_lora_rank",
    "nope_head_dim": "qk_nope_head_dim",
    "rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
}
EXPERTS = {
    "n_dense_layers": "first_k_dense_replace",
    "n_experts": "n_routed_experts",
    "top_k": "num_experts_per_tok",
    "expert_d_ff": "moe_intermediate_size",
    "n_shared_experts": "n_shared_experts",
    "routed_scaling": "routed_scaling_factor",
}
GROUPS = {"n_groups": "n_group", "top_groups": "topk_group"}
LATENT = {
    LAYER + r"self_attn\.(q|kv)_a_proj(?:_with_mqa)?\.(\w+)": r"layers.\1.attention.\2_down.\3",
    LAYER + r"self_attn\.(q|kv)_a_layernorm\.(\w+)": r"layers.\1.attention.\2_norm.\3",
    LAYER + r"self_attn\.q_b_proj\.(\w+)": r"layers.\1.attention.q_up.\2",
    LAYER + r"self_attn\.([kv]_up\.\w+)": r"layers.\1.attention.\2",
}
"""Tensors of latent attention, once its keys and values are apart."""


def heads(config: Config) -> dict[str, Any]:
    """What all of them have."""
    given = gated(config, attention_bias="attention_bias")
    llama = {key: value for key, value in given.items() if key not in ("n_kv_heads", "head_dim")}
    return {**llama, **config.renamed(HEADS), "q_lora_rank": config.get("q_lora_rank")}


def deepseek_v2(config: Config) -> dict[str, Any]:
    assert not config.get("mlp_bias")
    limited = config.get("topk_method") == "group_limited_greedy"
    groups = config.renamed(GROUPS) if limited else dict.fromkeys(GROUPS, 1)
    return {**heads(config), **config.renamed(EXPERTS), **groups}


def deepseek_v3(config: Config) -> dict[str, Any]:
    further = {"renormalise": "norm_topk_prob", "rope_interleaved": "rope_interleave"}
    return {**heads(config), **config.renamed({**EXPERTS, **GROUPS, **further})}


def minicpm3(config: Config) -> dict[str, Any]:
    return {
        "v_head_dim": config["hidden_size"] // config["num_attention_heads"],
        **heads(config),
        **config.renamed({"ffn_bias": "mlp_bias", "embedding_multiplier": "scale_emb"}),
        "depth_scale": config.get("scale_depth", config["num_hidden_layers"] ** 0.5),
        "base_width": config.get("dim_model_base", config["hidden_size"]),
    }


def expanded_apart(tensors: Tensors, config: Config) -> Tensors:
    """Keys without position and values, each a matrix a head: (heads, out, latent)."""
    n_heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]

    def parts(tensor: Any) -> Tensors:
        each = tensor.reshape(n_heads, -1, tensor.shape[-1])
        return {"k_up": each[:, :nope], "v_up": each[:, nope:]}

    return split(tensors, r".*\.(?P<fused>kv_b_proj)\.weight", parts)


def weights(tensors: Tensors, config: Config) -> Tensors:
    return renamed(expanded_apart(stack_experts(tensors), config), {**LATENT, **SPARSE, **NAMES})


OURS = ("lmx-attn-mla", "lmx-ffn-moe")
FAMILIES = {
    "deepseek_v2": Family(factory="deepseek", arguments=deepseek_v2, weights=weights, needs=OURS),
    "deepseek_v3": Family(factory="deepseek_v3", arguments=deepseek_v3, weights=weights, needs=OURS),
    "minicpm3": Family(factory="minicpm3", arguments=minicpm3, weights=weights, needs=("lmx-attn-mla",)),
}
