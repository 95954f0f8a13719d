"""GPT with a rope, and what differs from LLaMA in its norms and its FFN."""

import re
from typing import Any

import mlx.core as mx

from ..hf import ACTIVATIONS, Config, Family, Tensors, renamed
from . import llama
from .gpt import BLOOM, GPT2, grouped, table, unfused
from .gpt import NUMBERS as GPT_NUMBERS

NUMBERS = {**llama.NUMBERS, "norm_eps": "layer_norm_eps"}
GPT_NEOX = table(
    {"embed": "embed_in", "norm": "final_layer_norm", "head": "embed_out"},
    "layers",
    {
        **{f"attention.{each}_proj": f"attention.{each}_proj" for each in "qkv"},
        "attention.o_proj": "attention.dense",
        "ffn.up": "mlp.dense_h_to_4h",
        "ffn.down": "mlp.dense_4h_to_h",
        "layout.attention_norm": "input_layernorm",
        "layout.ffn_norm": "post_attention_layernorm",
    },
)
GPTJ = {
    **table({}, "h", {"layout.norm": "ln_1", "attention.o_proj": "attn.out_proj"}),
    **table({}, "h", {"ffn.up": "mlp.fc_in", "ffn.down": "mlp.fc_out"}),
    **{pattern: ours for pattern, ours in GPT2.items() if "ln_1" not in pattern},
}
ONE_NORM = table({}, "(?:h|layers)", {"layout.norm": "input_layernorm"})
TWO_NORMS = table({}, "h", {"layout.attention_norm": "ln_attn", "layout.ffn_norm": "ln_mlp"})
PHI = {
    **ONE_NORM,
    **table({"norm": "final_layernorm"}, "layers", {"ffn.up": "mlp.fc1", "ffn.down": "mlp.fc2"}),
    **table({}, "layers", {f"attention.{each}_norm": f"self_attn.{each}_layernorm" for each in "qk"}),
    **table({}, "layers", {"attention.o_proj": "self_attn.dense"}),
    **llama.NAMES,
}
STARCODER2 = {**table({}, "layers", {"ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"}), **llama.NAMES}


def rope(config: Config) -> dict[str, Any]:
    """With the share of each head that is turned."""
    fraction = {**config.defaults["rope_parameters"], **config.rope()}["partial_rotary_factor"]
    return {**config.rope_arguments(), "rope_fraction": fraction}


def gpt_neox(config: Config) -> dict[str, Any]:
    return {
        **config.renamed({**NUMBERS, "parallel": "use_parallel_residual", "attention_bias": "attention_bias"}),
        "activation": ACTIVATIONS[config["hidden_act"]],
        **rope(config),
    }


def gptj(config: Config) -> dict[str, Any]:
    return {
        **config.renamed(GPT_NUMBERS),
        "activation": ACTIVATIONS[config["activation_function"]],
        "rope_fraction": config["rotary_dim"] / (config["n_embd"] // config["n_head"]),
    }


def kv_heads(config: Config) -> int:
    """Of Falcon; the number in the config counts for the newer architecture alone."""
    heads: int = config["num_attention_heads"]
    if config["new_decoder_architecture"]:
        return config.data.get("num_kv_heads") or heads
    return 1 if config["multi_query"] else heads


def falcon(config: Config) -> dict[str, Any]:
    names = {
        **NUMBERS,
        "norm_eps": "layer_norm_epsilon",
        "parallel": "parallel_attn",
        "alibi": "alibi",
        "bias": "bias",
    }
    return {
        **config.renamed(names),
        "d_ff": config.data.get("ffn_hidden_size"),
        "n_kv_heads": kv_heads(config),
        "norms": config.get("num_ln_in_parallel_attn", 2) if config["new_decoder_architecture"] else 1,
        "activation": ACTIVATIONS[config["activation"]],
        **config.rope_arguments(),
    }


def phi(config: Config) -> dict[str, Any]:
    return {
        **config.renamed({**NUMBERS, "n_kv_heads": "num_key_value_heads", "qk_norm": "qk_layernorm"}),
        "activation": ACTIVATIONS[config["hidden_act"]],
        **rope(config),
    }


def stablelm(config: Config) -> dict[str, Any]:
    assert ACTIVATIONS[config["hidden_act"]] == "silu"
    names = {"n_kv_heads": "num_key_value_heads", "qkv_bias": "use_qkv_bias", "qk_norm": "qk_layernorm"}
    return {**config.renamed({**NUMBERS, **names, "parallel": "use_parallel_residual"}), **rope(config)}


def nemotron(config: Config) -> dict[str, Any]:
    biases = {"attention_bias": "attention_bias", "ffn_bias": "mlp_bias"}
    return {
        **llama.numbers(config),
        **config.renamed({"norm_eps": "norm_eps", **biases}),
        "activation": ACTIVATIONS[config["hidden_act"]],
        **rope(config),
    }


def starcoder2(config: Config) -> dict[str, Any]:
    return {
        **llama.numbers(config),
        **config.renamed({"norm_eps": "norm_epsilon", "bias": "use_bias"}),
        "activation": ACTIVATIONS[config["hidden_act"]],
        "window": config.get("sliding_window"),
    }


def of_gpt_neox(tensors: Tensors, config: Config) -> Tensors:
    heads = config["num_attention_heads"]
    return renamed(unfused(tensors, "query_key_value", grouped(heads, config["hidden_size"] // heads)), GPT_NEOX)


def of_falcon(tensors: Tensors, config: Config) -> Tensors:
    rows = grouped(kv_heads(config), config["hidden_size"] // config["num_attention_heads"])
    norms = {**TWO_NORMS, **ONE_NORM} if config["parallel_attn"] else {}
    return renamed(unfused(tensors, "query_key_value", rows), {**norms, **BLOOM})


def of_stablelm(tensors: Tensors, config: Config) -> Tensors:
    """A norm of queries and keys is stored head by head."""
    of_heads = re.compile(r"(layers\.\d+\.self_attn\.[qk])_layernorm\.norms\.(\d+)\.weight")
    found = {name: match for name in tensors if (match := of_heads.fullmatch(name))}
    out = {name: tensor for name, tensor in tensors.items() if name not in found}
    for stem in {match[1] for match in found.values()}:
        heads = sorted((int(match[2]), name) for name, match in found.items() if match[1] == stem)
        out[f"{stem}_norm.weight"] = mx.stack([tensors[name] for _, name in heads])[:, None]
    return renamed(out, {**(ONE_NORM if config["use_parallel_residual"] else {}), **llama.NAMES})


FAMILIES = {
    "gpt_neox": Family(factory="gpt_neox", arguments=gpt_neox, weights=of_gpt_neox),
    "gptj": Family(factory="gptj", arguments=gptj, weights=lambda tensors, config: renamed(tensors, GPTJ)),
    "falcon": Family(factory="falcon", arguments=falcon, weights=of_falcon),
    "phi": Family(factory="phi", arguments=phi, weights=lambda tensors, config: renamed(tensors, PHI)),
    "stablelm": Family(factory="stablelm", arguments=stablelm, weights=of_stablelm),
    "nemotron": Family(factory="nemotron", arguments=nemotron, weights=llama.plain),
    "starcoder2": Family(
        factory="starcoder2", arguments=starcoder2, weights=lambda tensors, config: renamed(tensors, STARCODER2)
    ),
}
