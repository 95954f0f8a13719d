"""LLaMA and what differs from it in little."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import mlx.core as mx

from ..hf import ACTIVATIONS, Config, Family, Tensors, in_turn, renamed, scaling_spec, split

NUMBERS = {
    "vocab_size": "vocab_size",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
}
LAYER = r"layers\.(\d+)\."
NAMES = {
    r"embed_tokens\.weight": "embed.weight",
    r"norm\.(\w+)": r"norm.\1",
    r"lm_head\.(\w+)": r"head.\1",
    LAYER + r"self_attn\.([qkvo]_(?:proj|norm)\.\w+)": r"layers.\1.attention.\2",
    LAYER + r"mlp\.(gate|up|down)_proj\.(\w+)": r"layers.\1.ffn.\2.\3",
    LAYER + r"input_layernorm\.(\w+)": r"layers.\1.layout.attention_norm.\2",
    LAYER + r"post_attention_layernorm\.(\w+)": r"layers.\1.layout.ffn_norm.\2",
}


def norms(**theirs: str) -> dict[str, str]:
    """The names of LLaMA with other norms: `ours="theirs"`, those of a layout."""
    named = {rf"{LAYER}{name}\.(\w+)": rf"layers.\1.layout.{ours}.\2" for ours, name in theirs.items()}
    return {**NAMES, **named}


OUTPUT_NORMS = norms(attention_norm="post_attention_layernorm", ffn_norm="post_feedforward_layernorm")
GLM4 = norms(
    attention_out_norm="post_self_attn_layernorm",
    ffn_norm="post_attention_layernorm",
    ffn_out_norm="post_mlp_layernorm",
)
APERTUS = {
    LAYER + r"mlp\.act_fn\.(\w+)": r"layers.\1.ffn.activation.\2",
    **norms(attention_norm="attention_layernorm", ffn_norm="feedforward_layernorm"),
}
HUNYUAN = {
    LAYER + r"self_attn\.query_layernorm\.weight": r"layers.\1.attention.q_norm.weight",
    LAYER + r"self_attn\.key_layernorm\.weight": r"layers.\1.attention.k_norm.weight",
    **NAMES,
}


def numbers(config: Config) -> dict[str, Any]:
    """What all of them have; heads as the config's class fills them in."""
    heads = config["num_attention_heads"]
    return {
        **config.renamed(NUMBERS),
        "n_kv_heads": config.get("num_key_value_heads", heads),
        "head_dim": config.get("head_dim", config["hidden_size"] // heads),
        "rope_scaling": None,
        **config.rope_arguments("full_attention"),
    }


def gated(config: Config, **biases: str) -> dict[str, Any]:
    """Of families whose FFN is gated with SiLU, with keys that say which biases there are, as `ours="theirs"`."""
    assert ACTIVATIONS[config.get("hidden_act", "silu")] == "silu"
    return {**numbers(config), **config.renamed(biases)}


def attending(config: Config) -> dict[str, Any]:
    """Of those that have biases in attention alone, if any."""
    return gated(config, attention_bias="attention_bias")


def llama(config: Config) -> dict[str, Any]:
    return gated(config, attention_bias="attention_bias", ffn_bias="mlp_bias")


def kinds(config: Config, sliding: Callable[[int], Any]) -> dict[str, Any]:
    """The window, and which layers have it: those of `layer_types`, or else those that `sliding` says."""
    layers = range(config["num_hidden_layers"])
    stated = config.data.get("layer_types") or ["sliding_attention" if sliding(i) else "full_attention" for i in layers]
    pattern = ["sliding" if stated[i] == "sliding_attention" else "full" for i in layers]
    return {"window": config.get("sliding_window"), "pattern": pattern}


def mistral(config: Config) -> dict[str, Any]:
    return {**gated(config), "window": config.get("sliding_window")}


def ministral(config: Config) -> dict[str, Any]:
    return {**gated(config), **kinds(config, lambda i: True)}


def ministral3(config: Config) -> dict[str, Any]:
    rope = config.rope()
    return {
        **mistral(config),
        "query_growth": rope["llama_4_scaling_beta"],
        "query_growth_every": rope["original_max_position_embeddings"],
    }


def phi3(config: Config) -> dict[str, Any]:
    rope = config.rope()
    if rope["rope_type"] in ("su", "yarn"):
        rope["rope_type"] = "longrope"
    scaling = scaling_spec(rope, config["original_max_position_embeddings"])
    return {
        **mistral(config),
        "rope_scaling": scaling,
        "rope_fraction": rope.get("partial_rotary_factor", 1.0),
    }


def qwen2(config: Config) -> dict[str, Any]:
    first = config.get("max_window_layers", 28)
    windows = kinds(config, lambda i: i >= first) if config.get("use_sliding_window") else {"window": None}
    return {**gated(config), **windows}


def qwen3(config: Config) -> dict[str, Any]:
    return {**qwen2(config), **attending(config)}


def seed_oss(config: Config) -> dict[str, Any]:
    return gated(config, qkv_bias="attention_bias", o_bias="attention_out_bias", ffn_bias="mlp_bias")


def granite(config: Config) -> dict[str, Any]:
    multipliers = {
        "embedding_multiplier": "embedding_multiplier",
        "residual_multiplier": "residual_multiplier",
        "attention_scale": "attention_multiplier",
    }
    return {**llama(config), **config.renamed(multipliers), "logit_multiplier": 1 / config["logits_scaling"]}


def smollm3(config: Config) -> dict[str, Any]:
    layers, every = range(config["num_hidden_layers"]), config["no_rope_layer_interval"]
    turned = config.data.get("no_rope_layers") or [(i + 1) % every for i in layers]
    pattern = ["rope" if turned[i] else "nope" for i in layers]
    windowed = kinds(config, lambda i: not turned[i])["pattern"] if config["use_sliding_window"] else []
    assert all(kind == "nope" for kind, window in zip(pattern, windowed, strict=False) if window == "sliding")
    return {**llama(config), "pattern": pattern, "window": config.get("sliding_window") if windowed else None}


def glm(config: Config) -> dict[str, Any]:
    fraction = config.rope().get("partial_rotary_factor", 0.5)
    return {**gated(config, qkv_bias="attention_bias"), "rope_fraction": fraction}


def apertus(config: Config) -> dict[str, Any]:
    """With a null `rope_scaling` the class's own, whatever `rope_theta` says."""
    biases = config.renamed({"attention_bias": "attention_bias"})
    return {**numbers(config), **biases, "activation": ACTIVATIONS[config.get("hidden_act", "xielu")]}


def exaone4(config: Config) -> dict[str, Any]:
    every = config.get("sliding_window_pattern", 4)
    letters = every if isinstance(every, str) else "L" * (every - 1) + "G"
    return {**gated(config), **kinds(config, lambda i: letters[i % len(letters)] == "L")}


def helium(config: Config) -> dict[str, Any]:
    return gated(config, qkv_bias="attention_bias", ffn_bias="mlp_bias")


def plain(tensors: Tensors, config: Config) -> Tensors:
    return renamed(tensors, NAMES)


def named(names: Mapping[str, str]) -> Callable[[Tensors, Config], Tensors]:
    """Tensors that need no more than other names."""
    return lambda tensors, config: renamed(tensors, names)


def parts(names: Iterable[str], rows: Callable[[mx.array], list[mx.array]]) -> Callable[[mx.array], Tensors]:
    """A fused tensor as its parts, in the place of their projections."""
    return lambda tensor: {f"{name}_proj": part for name, part in zip(names, rows(tensor), strict=True)}


def unfused(names: Mapping[str, str]) -> Callable[[Tensors, Config], Tensors]:
    """Gate and up apart, and queries, keys and values where they are one tensor."""

    def weights(tensors: Tensors, config: Config) -> Tensors:
        given = numbers(config)
        queries, shared = (given[heads] * given["head_dim"] for heads in ("n_heads", "n_kv_heads"))
        apart = split(tensors, r".*\.(?P<fused>qkv_proj)\.\w+", parts("qkv", in_turn(queries, shared, shared)))
        halves = in_turn(given["d_ff"], given["d_ff"])
        return renamed(split(apart, r".*\.(?P<fused>gate_up_proj)\.\w+", parts(("gate", "up"), halves)), names)

    return weights


FAMILIES = {
    "llama": Family(factory="llama", arguments=llama, weights=plain),
    "mistral": Family(factory="mistral", arguments=mistral, weights=plain),
    "ministral": Family(factory="ministral", arguments=ministral, weights=plain),
    "ministral3": Family(factory="ministral3", arguments=ministral3, weights=plain),
    "phi3": Family(factory="phi3", arguments=phi3, weights=unfused(NAMES)),
    "qwen2": Family(factory="qwen2", arguments=qwen2, weights=plain),
    "qwen3": Family(factory="qwen3", arguments=qwen3, weights=plain),
    "seed_oss": Family(factory="seed_oss", arguments=seed_oss, weights=plain),
    "granite": Family(factory="granite", arguments=granite, weights=plain),
    "smollm3": Family(factory="smollm3", arguments=smollm3, weights=plain),
    "glm": Family(factory="glm", arguments=glm, weights=unfused(NAMES)),
    "glm4": Family(factory="glm4", arguments=glm, weights=unfused(GLM4)),
    "apertus": Family(factory="apertus", arguments=apertus, weights=named(APERTUS)),
    "hunyuan_v1_dense": Family(factory="hunyuan_v1_dense", arguments=attending, weights=named(HUNYUAN)),
    "exaone4": Family(factory="exaone4", arguments=exaone4, weights=named(OUTPUT_NORMS)),
    "helium": Family(factory="helium", arguments=helium, weights=plain),
}
