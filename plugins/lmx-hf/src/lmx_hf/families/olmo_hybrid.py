"""OLMo Hybrid."""

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from lmx_core.config import ModelConfig
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.delta import DELTA, by_channel, channels, delta_keys, first_of, layers_of, pattern, unevenly_joined
from lmx_hf.families.llama import ATTENTION, FFN, HEADS, NUMBERS, WHOLE
from lmx_hf.family import Family, layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, Parts, Reversed

AT, OURS = "layers.{i}.linear_attn", "layers.{i}.attention"
NAMES = {"gate_proj": "g_proj", "beta_proj": "b_proj", "decay_proj": "a_proj", "out_proj": "o_proj", "norm": "o_norm"}
NORMS = {"layout.attention_norm": "input_layernorm", "layout.ffn_norm": "post_attention_layernorm"}
OUTPUT_NORMS = {"layout.attention_norm": "post_attention_layernorm", "layout.ffn_norm": "post_feedforward_layernorm"}
RENAMED = {"input_layernorm": "attention_layer_norm", "post_attention_layernorm": "feedforward_layer_norm"}
"""Norms as transformers writes them, which reads them as they are published."""


class OlmoHybridFamily(Family):
    """Queries, keys and values of linear attention are one matrix in lmx, and may be packed in several ways."""

    def reading(self, config: ModelConfig, tensors: Mapping[str, mx.array]) -> Sequence[Rule]:
        model = Described(config)
        uneven = unevenly_joined(model, tensors, "linear_attn", Reversed(Parts(channels(model))))
        return [*uneven, *Family.reading(self, config, tensors)]


def rules(config: ModelConfig) -> list[Rule]:
    """The two kinds of layers have norms in different places, some of one name."""
    model = Described(config)
    linear, full = layers_of(model, "linear"), layers_of(model, "full")
    written = [
        layered("layers", {ours: RENAMED.get(theirs, theirs) for ours, theirs in names.items()}, layers)
        for names, layers in ((NORMS, linear), (OUTPUT_NORMS, full))
    ]
    return [
        *WHOLE,
        *layered("layers", FFN),
        *layered("layers", {**ATTENTION, **OUTPUT_NORMS}, full),
        *(mixers(model, linear) if linear else ()),
        *(rule for each in written for rule in each),
    ]


def mixers(model: Described, layers: list[int]) -> list[Rule]:
    """transformers writes convolutions cut into other parts than queries, keys and values; together they are the same."""
    joined = Reversed(Parts(channels(model)))
    return [
        *layered("layers", {f"attention.{ours}": f"linear_attn.{theirs}" for ours, theirs in NAMES.items()}, layers),
        *layered("layers", NORMS, layers),
        Rule([f"{AT}.{each}_proj.{{p}}" for each in "qkv"], f"{OURS}.qkv_proj.{{p}}", joined),
        Rule(
            [f"{AT}.{each}_conv1d.weight" for each in "qkv"],
            f"{OURS}.convolution.weight",
            Chain(joined, by_channel(model)),
        ),
        *(Rule(f"{AT}.{each}", f"{OURS}.{each}") for each in ("A_log", "dt_bias")),
    ]


def olmo_hybrid(config: Config) -> dict[str, Any]:
    """Without a base there is no rope."""
    config.only("hidden_act", "silu", "swish")
    stated = config.data.get("rope_parameters") or config.data
    theta = config.rope()["rope_theta"] if stated.get("rope_theta", 0) is not None else None
    further = {"negative_eigenvalues": "linear_allow_neg_eigval", "attention_bias": "attention_bias"}
    return {
        "vocab_size": config["vocab_size"],
        **config.renamed({**NUMBERS, **DELTA, **further}),
        "n_kv_heads": config.get("num_key_value_heads", config["num_attention_heads"]),
        **config.renamed({"head_dim": "head_dim"}),
        "pattern": pattern(config),
        "rope_theta": None if theta is None else float(theta),
    }


def olmo_hybrid_keys(model: Described) -> dict[str, Any]:
    full = first_of(model, "full")
    turned = model.turns(full)
    return {
        **model.numbers({**NUMBERS, **HEADS}),
        **delta_keys(model),
        "linear_allow_neg_eigval": model.option("attention.negative_eigenvalues", first_of(model, "linear")),
        "hidden_act": model.activation(),
        "attention_bias": model.bias("attention.qkv_bias", full),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": model.rope(full)["rope_theta"] if turned else None,
        },
    }


OLMO_HYBRID = OlmoHybridFamily(
    model_type="olmo_hybrid",
    factory="olmo_hybrid",
    architecture="OlmoHybridForCausalLM",
    arguments=olmo_hybrid,
    keys=olmo_hybrid_keys,
    rules=rules,
)
