"""Qwen3-Next and Qwen 3.5."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.config import ModelConfig
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.delta import DELTA, by_channel, channels, delta_keys, first_of, layers_of, pattern
from lmx_hf.families.llama import HEADS, NUMBERS, RULES, attending
from lmx_hf.families.mixture import (
    FURTHER_MODULE,
    dense_layers,
    expert_keys,
    mixture,
    qwen_ffn_keys,
    qwen_ffns,
    shared,
    stacked,
    switched,
    width,
)
from lmx_hf.family import Family, layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Aside, Chain, InTurn, Parts, Raised, Reversed, Same

EXPERTS = {"n_experts": "num_experts", "top_k": "num_experts_per_tok", "shared_d_ff": "shared_expert_intermediate_size"}
AT, OURS = "layers.{i}.linear_attn", "layers.{i}.attention"
NORMS = {
    "norm": "norm",
    "layers.{i}.layout.attention_norm": "layers.{i}.input_layernorm",
    "layers.{i}.layout.ffn_norm": "layers.{i}.post_attention_layernorm",
    "layers.{i}.attention.q_norm": "layers.{i}.self_attn.q_norm",
    "layers.{i}.attention.k_norm": "layers.{i}.self_attn.k_norm",
}
SPARSE = [
    *shared("mlp.shared_expert"),
    *layered("layers", {"ffn.shared_gate": "mlp.shared_expert_gate"}),
    *mixture(),
]


@attrs.frozen(kw_only=True)
class RaisedFamily(Family):
    """A family of whose norms mlx-lm has `1 + weight`, and whose convolutions it has as (channels, kernel, 1).

    Their shape tells that it was mlx-lm that saved a checkpoint, for names may be the same.
    """

    raises: bool = False
    """Whether mlx-lm takes stacked experts in a checkpoint of its own form alone, which rounds what is raised. Dense
    ones are then written as they are published, and nothing is rounded."""

    def reading(self, config: ModelConfig, tensors: Mapping[str, mx.array]) -> Sequence[Rule]:
        convolutions = [each.shape for name, each in tensors.items() if name.endswith(".conv1d.weight")]
        by_mlx = bool(convolutions) and all(shape[-1] == 1 for shape in convolutions)
        return [*(raised(config) if by_mlx else ()), *Family.reading(self, config, tensors)]

    def writing(self, config: ModelConfig, mlx_lm: bool, packed: bool) -> Sequence[Rule]:
        if not (mlx_lm and self.raises):
            return Family.writing(self, config, mlx_lm, packed)
        sparse = len(dense_layers(Described(config))) < config.n_layers
        if sparse and not packed:
            return self.rules_of(config)
        return [*raised(config), *Family.writing(self, config, mlx_lm, packed)]


def raised(config: ModelConfig) -> list[Rule]:
    """What mlx-lm has otherwise under the same names."""
    model = Described(config)
    norms = [Rule(f"{theirs}.weight", f"{ours}.weight", Raised(1.0)) for ours, theirs in NORMS.items()]
    if not layers_of(model, "linear"):
        return norms
    return [*norms, Rule(f"{AT}.conv1d.weight", f"{OURS}.convolution.weight", by_channel(model, last=True))]


def gates(model: Described) -> list[Rule]:
    """In softmax attention, per head, rows of the query before rows of its gate."""
    rows = InTurn((model.block.head_dim, model.block.head_dim))
    ours = [f"{OURS}.{each}_proj.{{p}}" for each in ("q", "gate")]
    return [Rule("layers.{i}.self_attn.q_proj.{p}", ours, rows, layers_of(model, "full"))]


def mixers(model: Described, projections: Sequence[Rule]) -> list[Rule]:
    """Of both kinds of layers."""
    if not layers_of(model, "linear"):
        return gates(model)
    names = {"attention.out_proj": "linear_attn.out_proj", "attention.norm": "linear_attn.norm"}
    return [
        *projections,
        Rule(f"{AT}.conv1d.weight", f"{OURS}.convolution.weight", by_channel(model)),
        *(Rule(f"{AT}.{each}", f"{OURS}.{each}") for each in ("A_log", "dt_bias")),
        *layered("layers", names),
        *gates(model),
    ]


def by_key_head(model: Described) -> list[Rule]:
    """Rows of each key head one after the other: its query, itself, and the values and gates of the value heads that read
    it; the same for the two numbers of a value head."""
    if not layers_of(model, "linear"):
        return []
    heads = model.option("attention.n_key_heads", first_of(model, "linear"))
    numbers = model.option("attention.n_value_heads", first_of(model, "linear"))
    sizes = [each // heads for each in (*channels(model), channels(model)[2])]
    joined = Aside(((3, 1, Reversed(Parts(channels(model)))), (1, 1, Same())))
    return [
        Rule(
            f"{AT}.in_proj_qkvz.{{p}}",
            [f"{OURS}.qkv_proj.{{p}}", f"{OURS}.gate_proj.{{p}}"],
            Chain(InTurn(sizes), joined),
        ),
        Rule(
            f"{AT}.in_proj_ba.{{p}}",
            [f"{OURS}.beta_proj.{{p}}", f"{OURS}.decay_proj.{{p}}"],
            InTurn((numbers // heads, numbers // heads)),
        ),
    ]


def qwen3_next_rules(config: ModelConfig) -> list[Rule]:
    model = Described(config)
    return [*mixers(model, by_key_head(model)), *SPARSE, *RULES]


def qwen3_5_rules(config: ModelConfig) -> list[Rule]:
    """Experts are published in one piece."""
    names = {"qkv_proj": "in_proj_qkv", "gate_proj": "in_proj_z", "beta_proj": "in_proj_b", "decay_proj": "in_proj_a"}
    model = Described(config)
    parts = {f"attention.{ours}": f"linear_attn.{theirs}" for ours, theirs in names.items()}
    projections = layered("layers", parts, layers_of(model, "linear"))
    experts = stacked("mlp.experts.gate_up_proj", "mlp.experts.down_proj")
    return [*mixers(model, projections), *experts, *SPARSE, *RULES]


def qwen3_5(config: Config) -> dict[str, Any]:
    return {
        **attending(config),
        **config.renamed(DELTA),
        "pattern": pattern(config),
        "rope_fraction": config.rope().get("partial_rotary_factor", 0.25),
    }


def qwen3_5_keys(model: Described) -> dict[str, Any]:
    """Of its own generation: the rope stands in the newer layout, which alone mlx-lm reads here."""
    keys = hybrid_keys(model)
    scaling = keys.pop("rope_scaling") or {"rope_type": "default"}
    numbers = {key: keys.pop(key) for key in ("rope_theta", "partial_rotary_factor")}
    return {**keys, "rope_parameters": {**scaling, **numbers}}


def hybrid_keys(model: Described) -> dict[str, Any]:
    full = first_of(model, "full")
    return {
        **model.numbers({**NUMBERS, **HEADS}),
        **model.rope(),
        **delta_keys(model),
        "hidden_act": model.activation(),
        "attention_bias": model.bias("attention.qkv_bias", full),
        "partial_rotary_factor": model.option("position.fraction", full),
    }


def experts(config: Config) -> dict[str, Any]:
    return config.renamed({**EXPERTS, "expert_d_ff": "moe_intermediate_size"})


def experts_keys(model: Described) -> dict[str, Any]:
    return {**expert_keys(model, EXPERTS), "moe_intermediate_size": width(model)}


def qwen3_5_moe(config: Config) -> dict[str, Any]:
    return {**qwen3_5(config), **experts(config)}


def qwen3_5_moe_keys(model: Described) -> dict[str, Any]:
    return {**qwen3_5_keys(model), **experts_keys(model)}


def qwen3_next(config: Config) -> dict[str, Any]:
    return {
        **qwen3_5(config),
        **experts(config),
        "n_experts": config["num_experts"] or None,
        "ffns": qwen_ffns(config),
        "renormalise": config["norm_topk_prob"],
    }


def qwen3_next_keys(model: Described) -> dict[str, Any]:
    """Without experts it says that there are none."""
    keys = {**hybrid_keys(model), **qwen_ffn_keys(model)}
    if len(dense_layers(model)) == model.model.n_layers:
        return {**keys, "num_experts": 0}
    return {**keys, **experts_keys(model), **expert_keys(model, {"renormalise": "norm_topk_prob"})}


QWEN3_NEXT = RaisedFamily(
    model_type="qwen3_next",
    factory="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    arguments=qwen3_next,
    keys=qwen3_next_keys,
    rules=qwen3_next_rules,
    mlx_rules=switched("mlp.switch_mlp"),
    raises=True,
    ignored=FURTHER_MODULE,
)
QWEN3_5 = RaisedFamily(
    model_type="qwen3_5_text",
    factory="qwen3_5",
    architecture="Qwen3_5ForCausalLM",
    arguments=qwen3_5,
    keys=qwen3_5_keys,
    rules=qwen3_5_rules,
    composite="qwen3_5",
    ignored=FURTHER_MODULE,
)
QWEN3_5_MOE = RaisedFamily(
    model_type="qwen3_5_moe_text",
    factory="qwen3_5",
    architecture="Qwen3_5MoeForCausalLM",
    arguments=qwen3_5_moe,
    keys=qwen3_5_moe_keys,
    rules=qwen3_5_rules,
    mlx_rules=switched("mlp.switch_mlp"),
    composite="qwen3_5_moe",
    ignored=FURTHER_MODULE,
)
