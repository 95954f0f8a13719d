"""OPT."""

from typing import Any

from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.family import Family, layered, whole

RULES = [
    *whole({"embed": "embed_tokens", "positions.0": "embed_positions", "norm": "final_layer_norm", "head": "lm_head"}),
    *whole({"project_in": "project_in", "project_out": "project_out"}),
    *layered("layers", {f"attention.{each}_proj": f"self_attn.{each}_proj" for each in "qkv"}),
    *layered("layers", {"attention.o_proj": "self_attn.out_proj", "ffn.up": "fc1", "ffn.down": "fc2"}),
    *layered("layers", {"layout.attention_norm": "self_attn_layer_norm", "layout.ffn_norm": "final_layer_norm"}),
]
NUMBERS = {
    "d_model": "hidden_size",
    "d_ff": "ffn_dim",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "max_seq_len": "max_position_embeddings",
}
CHOICES = {
    "pre_norm": "do_layer_norm_before",
    "bias": "enable_bias",
    "norm_weights": "layer_norm_elementwise_affine",
}


def opt(config: Config) -> dict[str, Any]:
    config.only("_remove_final_layer_norm", False)
    return {
        "vocab_size": config["vocab_size"],
        **config.renamed({**NUMBERS, **CHOICES}),
        "embedding_dim": config.data.get("word_embed_proj_dim"),
        "activation": config.activation("activation_function"),
    }


def opt_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers(NUMBERS),
        "word_embed_proj_dim": model.model.embedding_dim or model.block.d_model,
        "do_layer_norm_before": model.block.layout.name == "pre_norm",
        "enable_bias": model.block.bias,
        "layer_norm_elementwise_affine": model.option("norm.weight"),
        "_remove_final_layer_norm": False,
        "activation_function": model.activation(),
    }


OPT = Family(
    model_type="opt",
    factory="opt",
    architecture="OPTForCausalLM",
    arguments=opt,
    keys=opt_keys,
    rules=RULES,
    prefix="model.decoder.",
)
