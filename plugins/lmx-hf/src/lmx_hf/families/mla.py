"""DeepSeek, and what else has its latent attention."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import mlx.core as mx

from lmx_core.config import BlockConfig, ModelConfig
from lmx_hf.config import Config
from lmx_hf.described import Described, UnfitError
from lmx_hf.families.llama import FFN, NUMBERS, PRE_NORM, WHOLE, gated
from lmx_hf.families.mixture import FURTHER_LAYER, dense_layers, expert_keys, leading, mixture, shared, switched, width
from lmx_hf.families.unpacking import PARTS, Unpacked
from lmx_hf.family import Family, layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, Parts, Shaped, Turned

HEADS = {
    "kv_lora_rank": "kv_lora_rank",
    "nope_head_dim": "qk_nope_head_dim",
    "rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
}
EXPERTS = {
    "n_experts": "n_routed_experts",
    "top_k": "num_experts_per_tok",
    "n_shared_experts": "n_shared_experts",
    "routed_scaling": "routed_scaling_factor",
}
DENSE = {"n_dense_layers": "first_k_dense_replace", "expert_d_ff": "moe_intermediate_size"}
GROUPS = {"n_groups": "n_group", "top_groups": "topk_group"}
V3 = {"renormalise": "norm_topk_prob"}
LATENT = {
    "q_proj": "q_proj",
    "q_down": "q_a_proj",
    "q_norm": "q_a_layernorm",
    "q_up": "q_b_proj",
    "kv_down": "kv_a_proj_with_mqa",
    "kv_norm": "kv_a_layernorm",
    "o_proj": "o_proj",
}
AT, OURS = "layers.{i}.self_attn", "layers.{i}.attention"
SPARSE = [*mixture(), *shared("mlp.shared_experts")]


@attrs.frozen(kw_only=True)
class AbsorbedFamily(Family):
    """A family whose keys mlx-lm has the other way round, as it multiplies queries with them. So it packs them, too."""

    def reading(self, config: ModelConfig, tensors: Mapping[str, mx.array]) -> Sequence[Rule]:
        model = Described(config)
        if not has_latent(model):
            return Family.reading(self, config, tensors)
        how = Chain(Unpacked(head_sizes(latent(model))[0]), Turned())
        packed = [
            Rule([f"{AT}.embed_q.{part}" for part in parts], f"{OURS}.k_up.weight", how) for parts in (PARTS, PARTS[:2])
        ]
        return [*packed, *Family.reading(self, config, tensors)]


def absorbed() -> list[Rule]:
    """Keys and values of a head as mlx-lm has them in its newer models."""
    return [
        Rule(f"{AT}.embed_q.weight", f"{OURS}.k_up.weight", Turned()),
        Rule(f"{AT}.unembed_out.{{p}}", f"{OURS}.v_up.{{p}}"),
    ]


def has_latent(model: Described) -> bool:
    return model.first("attention.kv_lora_rank") is not None


def latent(model: Described) -> BlockConfig:
    """The first layer with latent attention."""
    block = model.first("attention.kv_lora_rank")
    if block is None:
        raise UnfitError("no layer has latent attention")
    return block


def head_sizes(block: BlockConfig) -> tuple[int, int]:
    """Of a key without its position, and of a value."""
    options = block.attention.options
    return options.get("nope_head_dim") or block.head_dim, options.get("v_head_dim") or block.head_dim


def latent_rules(model: Described, layers: Sequence[int] | None = None) -> list[Rule]:
    """Of latent attention in these layers: keys without position and values are one matrix, head by head."""
    block = latent(model)
    sizes = head_sizes(block)
    heads = Shaped((block.n_heads * sum(sizes), -1), (block.n_heads, sum(sizes), -1))
    return [
        *layered("layers", {f"attention.{ours}": f"self_attn.{theirs}" for ours, theirs in LATENT.items()}, layers),
        Rule(
            f"{AT}.kv_b_proj.{{p}}",
            [f"{OURS}.k_up.{{p}}", f"{OURS}.v_up.{{p}}"],
            Chain(heads, Parts(sizes, axis=1)),
            layers,
        ),
    ]


def rules(config: ModelConfig) -> list[Rule]:
    return [*WHOLE, *latent_rules(Described(config)), *layered("layers", {**FFN, **PRE_NORM}), *SPARSE]


def heads(config: Config) -> dict[str, Any]:
    """What all of them have."""
    given = gated(config, attention_bias="attention_bias")
    llama = {key: value for key, value in given.items() if key not in ("n_kv_heads", "head_dim")}
    return {**llama, **config.renamed(HEADS), "q_lora_rank": config.get("q_lora_rank")}


def heads_keys(model: Described) -> dict[str, Any]:
    """Without those of a rope."""
    block = latent(model)
    nope, value = head_sizes(block)
    return {
        **model.numbers(NUMBERS),
        "num_key_value_heads": block.n_heads,
        "hidden_act": model.activation(),
        "attention_bias": model.bias("attention.latent_bias", block),
        "q_lora_rank": model.option("attention.q_lora_rank", block),
        "kv_lora_rank": model.option("attention.kv_lora_rank", block),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": model.option("attention.rope_head_dim", block),
        "v_head_dim": value,
    }


def experts_keys(model: Described, names: Mapping[str, str]) -> dict[str, Any]:
    """Of a mixture after some dense layers; a model without one has dense layers alone."""
    dense = {"first_k_dense_replace": leading(model)}
    if len(dense_layers(model)) == model.model.n_layers:
        return dense
    return {**dense, **expert_keys(model, names), "moe_intermediate_size": width(model), "moe_layer_freq": 1}


def deepseek_v2(config: Config) -> dict[str, Any]:
    config.only("mlp_bias", False)
    limited = config.get("topk_method") == "group_limited_greedy"
    groups = config.renamed(GROUPS) if limited else dict.fromkeys(GROUPS, 1)
    return {**heads(config), **config.renamed({**EXPERTS, **DENSE}), **groups}


def deepseek_v2_keys(model: Described) -> dict[str, Any]:
    keys = {**heads_keys(model), **model.rope(), **experts_keys(model, {**EXPERTS, **GROUPS})}
    limited = keys.get("n_group", 1) > 1
    routing = {"scoring_func": "softmax", "norm_topk_prob": False}
    return {**keys, **routing, "topk_method": "group_limited_greedy" if limited else "greedy"}


def deepseek_v3(config: Config) -> dict[str, Any]:
    interleaved = {"rope_interleaved": "rope_interleave"}
    return {**heads(config), **config.renamed({**EXPERTS, **DENSE, **GROUPS, **V3, **interleaved})}


def deepseek_v3_keys(model: Described) -> dict[str, Any]:
    return {
        **heads_keys(model),
        **model.rope(),
        **experts_keys(model, {**EXPERTS, **GROUPS, **V3}),
        "rope_interleave": model.option("position.interleaved"),
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def minicpm3(config: Config) -> dict[str, Any]:
    return {
        **heads(config),
        "v_head_dim": config.data.get("v_head_dim") or config["hidden_size"] // config["num_attention_heads"],
        **config.renamed({"ffn_bias": "mlp_bias", "embedding_multiplier": "scale_emb"}),
        "depth_scale": config.get("scale_depth", config["num_hidden_layers"] ** 0.5),
        "base_width": config.get("dim_model_base", config["hidden_size"]),
    }


def minicpm3_keys(model: Described) -> dict[str, Any]:
    residual, logits = model.option("layout.residual_multiplier"), model.model.logit_multiplier
    return {
        **heads_keys(model),
        **model.rope(),
        "mlp_bias": model.bias("ffn.bias"),
        "scale_emb": model.model.embedding_multiplier,
        "scale_depth": residual * model.model.n_layers**0.5,
        "dim_model_base": round(logits * model.block.d_model),
    }


DEEPSEEK_V2 = Family(
    model_type="deepseek_v2",
    factory="deepseek",
    architecture="DeepseekV2ForCausalLM",
    arguments=deepseek_v2,
    keys=deepseek_v2_keys,
    rules=rules,
    mlx_rules=switched("mlp.switch_mlp"),
)
DEEPSEEK_V3 = AbsorbedFamily(
    model_type="deepseek_v3",
    factory="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    arguments=deepseek_v3,
    keys=deepseek_v3_keys,
    rules=rules,
    mlx_rules=[*switched("mlp.switch_mlp"), *absorbed()],
    ignored=FURTHER_LAYER,
)
MINICPM3 = Family(
    model_type="minicpm3",
    factory="minicpm3",
    architecture="MiniCPM3ForCausalLM",
    arguments=minicpm3,
    keys=minicpm3_keys,
    rules=rules,
)
