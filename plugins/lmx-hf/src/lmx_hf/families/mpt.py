"""MPT."""

from typing import Any

from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.gpt import family, fused, numbers
from lmx_hf.family import layered, whole
from lmx_hf.transforms import Parts

SIZES = {name: name for name in ("d_model", "n_heads", "n_layers")}
FURTHER = {"max_seq_len": "max_seq_len", "norm_eps": "layer_norm_epsilon"}
RULES = [
    *whole({"embed": "wte", "norm": "norm_f", "head": "lm_head"}),
    fused("blocks.{i}.attn.Wqkv", Parts(3)),
    *layered("blocks", {"attention.o_proj": "attn.out_proj", "ffn.up": "ffn.up_proj", "ffn.down": "ffn.down_proj"}),
    *layered("blocks", {"layout.attention_norm": "norm_1", "layout.ffn_norm": "norm_2"}),
]


def mpt(config: Config) -> dict[str, Any]:
    """Like transformers, which has one ALiBi for all, and an FFN four times as wide as the model."""
    attention = config.get("attn_config", {})
    return {
        **numbers(config, SIZES),
        **config.renamed({"vocab_size": "vocab_size", **FURTHER}),
        "clip": attention.get("clip_qkv"),
        "attention_scale": attention.get("softmax_scale"),
    }


def mpt_keys(model: Described) -> dict[str, Any]:
    attention = {
        "attn_type": "multihead_attention",
        "alibi": True,
        "alibi_bias_max": 8,
        "clip_qkv": model.option("attention.clip"),
        "softmax_scale": model.option("attention.scale"),
        "qk_ln": False,
    }
    return {**model.numbers({**SIZES, **FURTHER}), "attn_config": attention, "expansion_ratio": 4, "no_bias": True}


MPT = family("mpt", "MptForCausalLM", mpt, mpt_keys, RULES)
