"""LLaMA and what differs from it in little."""

from typing import Any

from ..hf import ACTIVATIONS, Config, Family, Tensors, renamed

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


def numbers(config: Config) -> dict[str, Any]:
    """What all of them have; heads as the config's class fills them in."""
    heads = config["num_attention_heads"]
    return {
        **config.renamed(NUMBERS),
        "n_kv_heads": config.get("num_key_value_heads", heads),
        "head_dim": config.get("head_dim", config["hidden_size"] // heads),
        **config.rope_arguments(),
    }


def llama(config: Config) -> dict[str, Any]:
    biases = {"attention_bias": "attention_bias", "ffn_bias": "mlp_bias"}
    assert ACTIVATIONS[config["hidden_act"]] == "silu"
    return {**numbers(config), **config.renamed(biases)}


def mistral(config: Config) -> dict[str, Any]:
    return {**numbers(config), "window": config.get("sliding_window")}


def plain(tensors: Tensors, config: Config) -> Tensors:
    return renamed(tensors, NAMES)


FAMILIES = {
    "llama": Family(factory="llama", arguments=llama, weights=plain),
    "mistral": Family(factory="mistral", arguments=mistral, weights=plain),
}
