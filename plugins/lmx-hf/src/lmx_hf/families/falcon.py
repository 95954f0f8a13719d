"""Falcon."""

from typing import Any

from lmx_core.config import ModelConfig
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families import bloom
from lmx_hf.families.gpt import family, fused, grouped
from lmx_hf.family import layered
from lmx_hf.rules import Rule

NUMBERS = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "layer_norm_epsilon",
}
CHOICES = {"alibi": "alibi", "bias": "bias"}
NORMS = {
    None: bloom.NORMS,
    1: {"layout.norm": "input_layernorm"},
    2: {"layout.attention_norm": "ln_attn", "layout.ffn_norm": "ln_mlp"},
}
"""By how many there are where attention and FFN stand side by side."""


def norms(model: Described) -> int | None:
    """How many are side by side; None where attention and FFN follow each other."""
    return model.option("layout.norms") if model.knows("layout.norms") else None


def rules(config: ModelConfig) -> list[Rule]:
    """One layout of queries, keys and values for all three architectures: what differs is how many read a key."""
    qkv = fused("h.{i}.self_attention.query_key_value", grouped(config))
    return [*bloom.WHOLE, qkv, *layered("h", {**bloom.MATRICES, **NORMS[norms(Described(config))]})]


def kv_heads(config: Config) -> int:
    """The number in the config counts for the newer architecture alone."""
    heads: int = config["num_attention_heads"]
    if config["new_decoder_architecture"]:
        return config.data.get("num_kv_heads") or heads
    return 1 if config["multi_query"] else heads


def falcon(config: Config) -> dict[str, Any]:
    """The newer architecture is parallel, whatever `parallel_attn` says."""
    newer = config["new_decoder_architecture"]
    return {
        "vocab_size": config["vocab_size"],
        **config.renamed({**NUMBERS, **CHOICES}),
        "d_ff": config.data.get("ffn_hidden_size"),
        "n_kv_heads": kv_heads(config),
        "parallel": newer or config["parallel_attn"],
        "norms": config.get("num_ln_in_parallel_attn", 2) if newer else 1,
        "activation": config.activation("activation"),
        **config.rope_arguments(),
    }


def falcon_keys(model: Described) -> dict[str, Any]:
    """The older architecture wherever it says the model."""
    beside, heads, shared = norms(model), model.block.n_heads, model.block.n_kv_heads
    newer = beside == 2 or (beside == 1 and shared not in (1, heads))
    turned = model.turns(model.block)
    return {
        **model.numbers(NUMBERS),
        "ffn_hidden_size": model.block.d_ff,
        "new_decoder_architecture": newer,
        "multi_query": not newer and shared == 1,
        "num_kv_heads": shared if newer else heads,
        "parallel_attn": beside is not None,
        "num_ln_in_parallel_attn": beside if newer else None,
        "alibi": not turned,
        "bias": model.block.bias,
        "activation": model.activation(),
        **(model.rope() if turned else {"rope_theta": model.block.rope_theta}),
    }


FALCON = family("falcon", "FalconForCausalLM", falcon, falcon_keys, rules)
