"""DBRX."""

from typing import Any

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.gpt import numbers
from lmx_hf.families.mixture import EXPERTS, expert_keys, sparse, width
from lmx_hf.family import Family, layered, whole
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, Parts, Shaped, Stacked, Turned

FIELDS = ("d_model", "n_heads", "n_layers", "max_seq_len")
MATRICES = {"gate": "w1", "up": "v1", "down": "w2"}
NAMES = {
    "layout.attention_norm": "norm_attn_norm.norm_1",
    "layout.ffn_norm": "norm_attn_norm.norm_2",
    "attention.o_proj": "norm_attn_norm.attn.out_proj",
    "ffn.router": "ffn.router.layer",
}


def dbrx(config: Config) -> dict[str, Any]:
    """The base of its rope is that of `attn_config`, which transformers 5 does not read."""
    attention = {"kv_n_heads": 1, **(config.get("attn_config") or {})}
    ffn = {**(config.defaults.get("ffn_config") or {}), **(config.get("ffn_config") or {})}
    activation, norm = (ffn.get("ffn_act_fn") or {"name": "silu"})["name"], ffn.get("moe_normalize_expert_weights")
    if activation != "silu" or norm not in (None, 1):
        raise ConfigError(
            f"ffn_config has the activation {activation!r} and normalises weights by the norm {norm}. "
            "lmx's dbrx has 'silu', and the norm 1 or none."
        )
    clip = attention.get("clip_qkv")
    return {
        "vocab_size": config["vocab_size"],
        **numbers(config, {name: name for name in FIELDS}),
        "n_kv_heads": attention["kv_n_heads"],
        "clip": None if clip is None else float(clip),
        "rope_theta": float(attention.get("rope_theta", config.rope()["rope_theta"])),
        "d_ff": ffn["ffn_hidden_size"],
        "n_experts": ffn["moe_num_experts"],
        "top_k": ffn["moe_top_k"],
        "renormalise": norm is not None,
    }


def dbrx_keys(model: Described) -> dict[str, Any]:
    """The base of the rope in both places: mlx-lm reads the one, transformers 5 the other."""
    theta = model.rope()["rope_theta"]
    norm = 1.0 if model.option("ffn.renormalise", sparse(model)) else None
    return {
        **model.numbers({name: name for name in FIELDS}),
        "attn_config": {
            "clip_qkv": model.option("attention.clip"),
            "kv_n_heads": model.block.n_kv_heads,
            "rope_theta": theta,
        },
        "ffn_config": {
            "ffn_act_fn": {"name": model.activation()},
            "ffn_hidden_size": width(model),
            "moe_normalize_expert_weights": norm,
            **expert_keys(model, {"n_experts": "moe_num_experts", "top_k": "moe_top_k"}),
        },
        "rope_theta": theta,
    }


def rules(config: ModelConfig) -> list[Rule]:
    """Experts' matrices lie on each other, (experts * F, D), down as well."""
    model = Described(config)
    block, n_experts, inner = model.block, model.option("ffn.n_experts", sparse(model)), width(model)
    queries, keys = block.n_heads * block.head_dim, block.n_kv_heads * block.head_dim
    apart = Shaped((n_experts * inner, block.d_model), (n_experts, inner, block.d_model))
    hows = {"gate": apart, "up": apart, "down": Chain(apart, Turned())}
    return [
        *whole({"embed": "wte", "norm": "norm_f", "head": "lm_head"}),
        *layered("blocks", NAMES),
        Rule(
            "blocks.{i}.norm_attn_norm.attn.Wqkv.{p}",
            [f"layers.{{i}}.attention.{each}_proj.{{p}}" for each in "qkv"],
            Parts((queries, keys, keys)),
        ),
        *(
            Rule(f"blocks.{{i}}.ffn.experts.mlp.{theirs}", f"{EXPERTS}.{ours}.weight", hows[ours])
            for ours, theirs in MATRICES.items()
        ),
    ]


DBRX = Family(
    model_type="dbrx",
    factory="dbrx",
    architecture="DbrxForCausalLM",
    arguments=dbrx,
    keys=dbrx_keys,
    rules=rules,
    mlx_rules=[
        Rule(f"blocks.{{i}}.ffn.experts.{{e}}.{theirs}.{{p}}", f"{EXPERTS}.{ours}.{{p}}", Stacked())
        for ours, theirs in MATRICES.items()
    ],
    prefix="transformer.",
    ties=False,
)
