"""GPT and what differs from it in little, with positions in a table or in the scores."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from ..hf import ACTIVATIONS, Config, Family, Tensors, renamed, split

NUMBERS = {
    "vocab_size": "vocab_size",
    "d_model": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
    "d_ff": "n_inner",
    "max_seq_len": "n_positions",
    "norm_eps": "layer_norm_epsilon",
}


def table(whole: Mapping[str, str], layers: str, parts: Mapping[str, str]) -> dict[str, str]:
    """Names for `renamed`, from `{ours: theirs}` of the model, and of each of its layers, all without `.weight`."""
    return {
        **{rf"{re.escape(theirs)}\.(\w+)": rf"{ours}.\1" for ours, theirs in whole.items()},
        **{rf"{layers}\.(\d+)\.{re.escape(theirs)}\.(\w+)": rf"layers.\1.{ours}.\2" for ours, theirs in parts.items()},
    }


GPT2 = table(
    {"embed": "wte", "positions.0": "wpe", "norm": "ln_f", "head": "lm_head"},
    "h",
    {
        **{f"attention.{each}_proj": f"attn.{each}_proj" for each in "qkv"},
        "attention.o_proj": "attn.c_proj",
        "ffn.up": "mlp.c_fc",
        "ffn.down": "mlp.c_proj",
        "layout.attention_norm": "ln_1",
        "layout.ffn_norm": "ln_2",
    },
)
GPT1 = {**GPT2, r"tokens_embed\.(\w+)": r"embed.\1", r"positions_embed\.(\w+)": r"positions.0.\1"}
GPT_NEO = {
    **GPT2,
    r"h\.(\d+)\.attn\.attention\.([qkv]_proj)\.(\w+)": r"layers.\1.attention.\2.\3",
    r"h\.(\d+)\.attn\.attention\.out_proj\.(\w+)": r"layers.\1.attention.o_proj.\2",
}
BLOOM = table(
    {"embed": "word_embeddings", "embedding_norm": "word_embeddings_layernorm", "norm": "ln_f", "head": "lm_head"},
    "h",
    {
        **{f"attention.{each}_proj": f"self_attention.{each}_proj" for each in "qkv"},
        "attention.o_proj": "self_attention.dense",
        "ffn.up": "mlp.dense_h_to_4h",
        "ffn.down": "mlp.dense_4h_to_h",
        "layout.attention_norm": "input_layernorm",
        "layout.ffn_norm": "post_attention_layernorm",
    },
)
MPT = table(
    {"embed": "wte", "norm": "norm_f", "head": "lm_head"},
    "blocks",
    {
        **{f"attention.{each}_proj": f"attn.{each}_proj" for each in "qkv"},
        "attention.o_proj": "attn.out_proj",
        "ffn.up": "ffn.up_proj",
        "ffn.down": "ffn.down_proj",
        "layout.attention_norm": "norm_1",
        "layout.ffn_norm": "norm_2",
    },
)
OPT = table(
    {
        "embed": "embed_tokens",
        "positions.0": "embed_positions",
        "norm": "final_layer_norm",
        "head": "lm_head",
        "project_in": "project_in",
        "project_out": "project_out",
    },
    "layers",
    {
        **{f"attention.{each}_proj": f"self_attn.{each}_proj" for each in "qkv"},
        "attention.o_proj": "self_attn.out_proj",
        "ffn.up": "fc1",
        "ffn.down": "fc2",
        "layout.attention_norm": "self_attn_layer_norm",
        "layout.ffn_norm": "final_layer_norm",
    },
)

Rows = Callable[[mx.array], Sequence[mx.array]]


def thirds(tensor: mx.array) -> Sequence[mx.array]:
    """All queries, all keys, all values."""
    return mx.split(tensor, 3)


def grouped(n_kv_heads: int, head_dim: int) -> Rows:
    """For each key/value head the queries that read it, then it, then its values."""

    def rows(tensor: mx.array) -> Sequence[mx.array]:
        groups = tensor.reshape(n_kv_heads, -1, head_dim, *tensor.shape[1:])
        queries = groups.shape[1] - 2
        return [part.flatten(0, 2) for part in mx.split(groups, [queries, queries + 1], axis=1)]

    return rows


def unfused(tensors: Tensors, name: str, rows: Rows) -> Tensors:
    """With queries, keys and values apart, `q_proj`, `k_proj` and `v_proj` where they were `name`."""
    parts = ("q_proj", "k_proj", "v_proj")
    return split(tensors, rf".*\.(?P<fused>{name})\.\w+", lambda tensor: dict(zip(parts, rows(tensor), strict=True)))


def gpt1(config: Config) -> dict[str, Any]:
    activation = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}[config["afn"]]
    return {**config.renamed(NUMBERS), "pre_norm": False, "activation": activation}


def gpt2(config: Config) -> dict[str, Any]:
    return {
        **config.renamed(NUMBERS),
        "activation": ACTIVATIONS[config["activation_function"]],
        "scale_attention": config["scale_attn_weights"],
        "scale_by_layer": config["scale_attn_by_inverse_layer_idx"],
    }


def gpt_bigcode(config: Config) -> dict[str, Any]:
    return {
        **config.renamed(NUMBERS),
        "n_kv_heads": 1 if config["multi_query"] else config["n_head"],
        "activation": ACTIVATIONS[config["activation_function"]],
        "scale_attention": config["scale_attn_weights"],
    }


def gpt_neo(config: Config) -> dict[str, Any]:
    ours = {"global": "full", "local": "sliding"}
    names = {
        "d_model": "hidden_size",
        "n_heads": "num_heads",
        "n_layers": "num_layers",
        "d_ff": "intermediate_size",
        "max_seq_len": "max_position_embeddings",
        "window": "window_size",
    }
    return {
        **config.renamed({**NUMBERS, **names}),
        "activation": ACTIVATIONS[config["activation_function"]],
        "pattern": [ours[kind] for kinds, times in config["attention_types"] for kind in kinds * times],
    }


def bloom(config: Config) -> dict[str, Any]:
    return {
        **config.renamed({"vocab_size": "vocab_size", "norm_eps": "layer_norm_epsilon"}),
        "d_model": config.get("n_embed", config["hidden_size"]),
        "n_heads": config.get("num_attention_heads", config["n_head"]),
        "n_layers": config.get("num_hidden_layers", config["n_layer"]),
        "normed_residual": config["apply_residual_connection_post_layernorm"],
    }


def mpt(config: Config) -> dict[str, Any]:
    same = ("vocab_size", "d_model", "n_heads", "n_layers", "max_seq_len")
    attention = config["attn_config"]
    return {
        **config.renamed({"norm_eps": "layer_norm_epsilon", **{name: name for name in same}}),
        "clip": attention.get("clip_qkv"),
        "attention_scale": attention.get("softmax_scale"),
    }


def opt(config: Config) -> dict[str, Any]:
    assert not config.get("_remove_final_layer_norm")
    names = {
        "vocab_size": "vocab_size",
        "d_model": "hidden_size",
        "d_ff": "ffn_dim",
        "n_heads": "num_attention_heads",
        "n_layers": "num_hidden_layers",
        "max_seq_len": "max_position_embeddings",
        "embedding_dim": "word_embed_proj_dim",
        "pre_norm": "do_layer_norm_before",
        "bias": "enable_bias",
        "norm_weights": "layer_norm_elementwise_affine",
    }
    return {**config.renamed(names), "activation": ACTIVATIONS[config["activation_function"]]}


def of_conv1d(names: Mapping[str, str]) -> Callable[[Tensors, Config], Tensors]:
    """Of layers whose matrices are stored (in, out)."""

    def weights(tensors: Tensors, config: Config) -> Tensors:
        turned = {
            name: tensor.T if name.startswith("h.") and tensor.ndim == 2 else tensor for name, tensor in tensors.items()
        }
        return renamed(unfused(turned, "c_attn", thirds), names)

    return weights


def of_gpt_bigcode(tensors: Tensors, config: Config) -> Tensors:
    heads = config["n_head"]
    rows = grouped(1 if config["multi_query"] else heads, config["n_embd"] // heads)
    return renamed(unfused(tensors, "c_attn", rows), GPT2)


def of_bloom(tensors: Tensors, config: Config) -> Tensors:
    numbers = bloom(config)
    rows = grouped(numbers["n_heads"], numbers["d_model"] // numbers["n_heads"])
    return renamed(unfused(tensors, "query_key_value", rows), BLOOM)


FAMILIES = {
    "openai-gpt": Family(factory="gpt", arguments=gpt1, weights=of_conv1d(GPT1)),
    "gpt2": Family(factory="gpt2", arguments=gpt2, weights=of_conv1d(GPT2)),
    "gpt_bigcode": Family(factory="gpt_bigcode", arguments=gpt_bigcode, weights=of_gpt_bigcode),
    "gpt_neo": Family(factory="gpt_neo", arguments=gpt_neo, weights=lambda tensors, config: renamed(tensors, GPT_NEO)),
    "bloom": Family(factory="bloom", arguments=bloom, weights=of_bloom),
    "mpt": Family(
        factory="mpt",
        arguments=mpt,
        weights=lambda tensors, config: renamed(unfused(tensors, "Wqkv", thirds), MPT),
    ),
    "opt": Family(factory="opt", arguments=opt, weights=lambda tensors, config: renamed(tensors, OPT)),
}
