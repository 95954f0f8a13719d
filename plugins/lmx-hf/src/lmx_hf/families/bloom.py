"""BLOOM."""

from typing import Any

from lmx_core.config import ModelConfig
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.gpt import family, fused, grouped
from lmx_hf.family import layered, whole
from lmx_hf.rules import Rule

NUMBERS = {"d_model": "hidden_size", "n_heads": "n_head", "n_layers": "n_layer", "norm_eps": "layer_norm_epsilon"}
LENGTH = {"max_seq_len": "seq_length"}
WHOLE = whole({"embed": "word_embeddings", "norm": "ln_f", "head": "lm_head"})
MATRICES = {
    "attention.o_proj": "self_attention.dense",
    "ffn.up": "mlp.dense_h_to_4h",
    "ffn.down": "mlp.dense_4h_to_h",
}
NORMS = {"layout.attention_norm": "input_layernorm", "layout.ffn_norm": "post_attention_layernorm"}


def rules(config: ModelConfig) -> list[Rule]:
    return [
        *WHOLE,
        *whole({"embedding_norm": "word_embeddings_layernorm"}),
        fused("h.{i}.self_attention.query_key_value", grouped(config)),
        *layered("h", {**MATRICES, **NORMS}),
    ]


def bloom(config: Config) -> dict[str, Any]:
    return {
        **config.renamed({"vocab_size": "vocab_size", "norm_eps": "layer_norm_epsilon", **LENGTH}),
        "d_model": config.under("n_embed", "hidden_size"),
        "n_heads": config.under("num_attention_heads", "n_head"),
        "n_layers": config.under("num_hidden_layers", "n_layer"),
        "normed_residual": config["apply_residual_connection_post_layernorm"],
    }


def bloom_keys(model: Described) -> dict[str, Any]:
    normed = model.block.layout.name == "normed_residual"
    return {**model.numbers({**NUMBERS, **LENGTH}), "apply_residual_connection_post_layernorm": normed}


BLOOM = family("bloom", "BloomForCausalLM", bloom, bloom_keys, rules)
