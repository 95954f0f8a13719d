"""Hybrids of linear and softmax attention."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

from ..hf import ACTIVATIONS, Config, Family, Tensors, in_turn, renamed, split, stack_experts
from .llama import LAYER, NAMES, NUMBERS, OUTPUT_NORMS, gated
from .mla import LATENT, expanded_apart, heads
from .moe import SPARSE, qwen_ffns

DELTA = {
    "n_key_heads": "linear_num_key_heads",
    "n_value_heads": "linear_num_value_heads",
    "key_head_dim": "linear_key_head_dim",
    "value_head_dim": "linear_value_head_dim",
    "conv_size": "linear_conv_kernel_dim",
}
EXPERTS = {
    "n_experts": "num_experts",
    "top_k": "num_experts_per_tok",
    "expert_d_ff": "moe_intermediate_size",
    "shared_d_ff": "shared_expert_intermediate_size",
}
KIMI = {
    "vocab_size": "vocab_size",
    "max_seq_len": "model_max_length",
    "n_experts": "num_experts",
    "top_k": "num_experts_per_token",
    "expert_d_ff": "moe_intermediate_size",
    "n_shared_experts": "num_shared_experts",
    "renormalise": "moe_renormalize",
    "routed_scaling": "routed_scaling_factor",
    "n_groups": "num_expert_group",
    "top_groups": "topk_group",
}
LINEAR = {
    LAYER + r"(?:linear_attn|self_attn)\.(A_log|dt_bias)": r"layers.\1.attention.\2",
    LAYER + r"(?:linear_attn|self_attn)\.convolution\.weight": r"layers.\1.attention.convolution.weight",
    LAYER + r"(?:linear_attn|self_attn)\.(qkv|gate|beta|decay|out)_proj\.(.+)": r"layers.\1.attention.\2_proj.\3",
    LAYER + r"(?:linear_attn|self_attn)\.(?:o_)?norm\.weight": r"layers.\1.attention.norm.weight",
}
"""Tensors of the mixers, once their projections and convolutions are one."""
QWEN = {**LINEAR, LAYER + r"self_attn\.gate_proj\.bias": r"layers.\1.attention.gate_proj.bias", **SPARSE}


def layers(config: Config) -> list[str]:
    """Of which kind each is: those of `layer_types`, or else full attention every so often."""
    every = config.get("full_attention_interval", 4)
    rest = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(config["num_hidden_layers"])]
    return ["linear" if each == "linear_attention" else "full" for each in config.data.get("layer_types") or rest]


def qwen3_5(config: Config) -> dict[str, Any]:
    return {
        **gated(config, attention_bias="attention_bias"),
        **config.renamed(DELTA),
        "pattern": layers(config),
        "rope_fraction": config.rope().get("partial_rotary_factor", 0.25),
    }


def qwen3_5_moe(config: Config) -> dict[str, Any]:
    return {**qwen3_5(config), **config.renamed(EXPERTS)}


def qwen3_next(config: Config) -> dict[str, Any]:
    return {**qwen3_5_moe(config), "ffns": qwen_ffns(config), "renormalise": config["norm_topk_prob"]}


def olmo_hybrid(config: Config) -> dict[str, Any]:
    """Without a base there is no rope."""
    assert ACTIVATIONS[config["hidden_act"]] == "silu"
    further = {"negative_eigenvalues": "linear_allow_neg_eigval", "attention_bias": "attention_bias"}
    return {
        **config.renamed({**NUMBERS, **DELTA, **further}),
        "n_kv_heads": config.get("num_key_value_heads", config["num_attention_heads"]),
        "pattern": layers(config),
        "rope_theta": config.rope()["rope_theta"],
    }


def kimi_linear(config: Config) -> dict[str, Any]:
    """The published layout says which layers have which attention, counted from 1."""
    linear, n = config.get("linear_attn_config", {}), config["num_hidden_layers"]
    stated = ["full" if i + 1 in linear.get("full_attn_layers", ()) else "linear" for i in range(n)]
    ffns = config.data.get("mlp_layer_types")
    dense = config["first_k_dense_replace"] if ffns is None else ffns.count("dense")
    assert ffns is None or ffns[:dense] == ["dense"] * dense
    shared = ("d_model", "n_heads", "n_layers", "d_ff", "norm_eps", "attention_bias")
    latent = ("kv_lora_rank", "q_lora_rank", "nope_head_dim", "rope_head_dim", "v_head_dim")
    return {
        **{key: each for key, each in heads(config).items() if key in (*shared, *latent)},
        **config.renamed(KIMI),
        "pattern": stated if linear else layers(config),
        "n_linear_heads": linear.get("num_heads") or config["linear_num_heads"],
        "linear_head_dim": linear.get("head_dim") or config["linear_head_dim"],
        "conv_size": linear.get("short_conv_kernel_size") or config["linear_conv_kernel_dim"],
        "n_dense_layers": dense,
    }


def gates_apart(tensors: Tensors, config: Config) -> Tensors:
    """In attention, per head, rows of the query before rows of its gate."""

    def parts(tensor: mx.array) -> Tensors:
        halves = mx.split(tensor.reshape(config["num_attention_heads"], 2, -1, *tensor.shape[1:]), 2, axis=1)
        q, gate = (half.reshape(-1, *tensor.shape[1:]) for half in halves)
        return {"q_proj": q, "gate_proj": gate}

    return split(tensors, r".*self_attn\.(?P<fused>q_proj)\.\w+", parts)


def by_key_head(names: Mapping[str, int], config: Config) -> Callable[[mx.array], Tensors]:
    """Rows of each key head one after the other, so many of each part; parts that go to one tensor follow each other."""

    def parts(tensor: mx.array) -> Tensors:
        each = tensor.reshape(config["linear_num_key_heads"], -1, tensor.shape[-1])
        pieces = in_turn(*names.values())(each.swapaxes(0, 1))
        apart = [piece.swapaxes(0, 1).reshape(-1, tensor.shape[-1]) for piece in pieces]
        return dict(zip(names, apart, strict=True))

    return parts


def joined(tensors: Tensors, parts: str, whole: str) -> Tensors:
    """Tensors whose names end with `parts.format("q")`, and those of k and v, as one that ends with `whole`."""
    out, first = dict(tensors), parts.format("q")
    for name in tensors:
        if name.endswith(f".{first}"):
            stem = name.removesuffix(first)
            out[stem + whole] = mx.concatenate([out.pop(stem + parts.format(part)) for part in "qkv"])
    return out


def with_parts(name: str, names: Mapping[str, str]) -> str:
    """A name whose beginning is another, if it is one of `names`; those of other tensors stay."""
    return next((ours + name.removeprefix(theirs) for theirs, ours in names.items() if name.startswith(theirs)), name)


def of_qwen3_5(tensors: Tensors, config: Config) -> Tensors:
    """Without the parts that see, and that predict further tokens."""
    text = {name: each for name, each in tensors.items() if not name.startswith(("mtp.", "visual."))}
    linear, full = apart(stack_experts(text), layers(config))
    names = {
        "in_proj_qkv.": "qkv_proj.",
        "in_proj_z.": "gate_proj.",
        "in_proj_b.": "beta_proj.",
        "in_proj_a.": "decay_proj.",
        "conv1d.": "convolution.",
    }
    return renamed({**mixers(linear, names), **gates_apart(full, config)}, QWEN)


def of_qwen3_next(tensors: Tensors, config: Config) -> Tensors:
    groups = config["linear_num_value_heads"] // config["linear_num_key_heads"]
    keys, values = config["linear_key_head_dim"], groups * config["linear_value_head_dim"]
    widths = {"q_proj": keys, "k_proj": keys, "v_proj": values, "in_proj_z": values}
    tensors = split(tensors, r".*\.(?P<fused>in_proj_qkvz)\.weight", by_key_head(widths, config))
    gates = {"in_proj_b": groups, "in_proj_a": groups}
    tensors = split(tensors, r".*\.(?P<fused>in_proj_ba)\.weight", by_key_head(gates, config))
    return of_qwen3_5(tensors, config)


def of_olmo_hybrid(tensors: Tensors, config: Config) -> Tensors:
    """The two kinds of layers have norms in different places, some of one name. transformers writes other names than it
    reads, and parts of convolutions that are no longer those of queries, keys and values, but still their whole.
    """
    names = {"g_proj.": "gate_proj.", "b_proj.": "beta_proj.", "a_proj.": "decay_proj.", "o_proj.": "out_proj."}
    written = {"attention_layer_norm": "input_layernorm", "feedforward_layer_norm": "post_attention_layernorm"}
    for theirs, read in written.items():
        tensors = {name.replace(theirs, read): each for name, each in tensors.items()}
    linear, full = apart(tensors, layers(config))
    return {**renamed(mixers(linear, names), {**LINEAR, **NAMES}), **renamed(full, OUTPUT_NORMS)}


def of_kimi_linear(tensors: Tensors, config: Config) -> Tensors:
    names = {
        "f_a_proj.": "decay_proj.down.",
        "f_b_proj.": "decay_proj.up.",
        "g_a_proj.": "gate_proj.down.",
        "g_b_proj.": "gate_proj.up.",
        "b_proj.": "beta_proj.",
        "o_proj.": "out_proj.",
    }
    linear, full = apart(stack_experts(tensors), kimi_linear(config)["pattern"])
    ours = {**renamed(mixers(linear, names), QWEN), **renamed(expanded_apart(full, config), {**LATENT, **SPARSE})}
    return {name: each.flatten() if name.endswith("A_log") else each for name, each in ours.items()}


def apart(tensors: Tensors, kinds: list[str]) -> tuple[Tensors, Tensors]:
    """Those of layers with linear attention, and the rest."""
    layer = re.compile(r"layers\.(\d+)\.")
    linear = {
        name: each
        for name, each in tensors.items()
        if (match := layer.match(name)) and kinds[int(match[1])] == "linear"
    }
    return linear, {name: each for name, each in tensors.items() if name not in linear}


def mixers(tensors: Tensors, names: Mapping[str, str]) -> Tensors:
    """With queries, keys and values of a mixer in one tensor, and their convolutions, which lose an axis of one; others
    under lmx's `names`.
    """
    attention = re.compile(r"(.*\.(?:linear|self)_attn\.)(.*)")
    out: Tensors = {}
    for name, tensor in tensors.items():
        match = attention.fullmatch(name)
        out[match[1] + with_parts(match[2], names) if match else name] = tensor
    out = joined(joined(out, "{}_proj.weight", "qkv_proj.weight"), "{}_conv1d.weight", "convolution.weight")
    return {name: each[:, 0] if "convolution" in name else each for name, each in out.items()}


OURS = ("lmx-deltanet",)
SPARSELY = ("lmx-deltanet", "lmx-ffn-moe")
FAMILIES = {
    "qwen3_next": Family(factory="qwen3_next", arguments=qwen3_next, weights=of_qwen3_next, needs=SPARSELY),
    "qwen3_5_text": Family(factory="qwen3_5", arguments=qwen3_5, weights=of_qwen3_5, needs=OURS),
    "qwen3_5_moe_text": Family(factory="qwen3_5", arguments=qwen3_5_moe, weights=of_qwen3_5, needs=SPARSELY),
    "olmo_hybrid": Family(factory="olmo_hybrid", arguments=olmo_hybrid, weights=of_olmo_hybrid, needs=OURS),
    "kimi_linear": Family(
        factory="kimi_linear",
        arguments=kimi_linear,
        weights=of_kimi_linear,
        needs=("lmx-deltanet", "lmx-attn-mla", "lmx-ffn-moe"),
    ),
}
