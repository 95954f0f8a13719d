"""GPT with a rope, and what differs from LLaMA in its norms and its FFN."""

from typing import Any

from lmx_core.config import ModelConfig
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families import bloom, gpt, llama
from lmx_hf.family import Family, in_full, layered, whole
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, Reversed, Squeezed, Stacked

NUMBERS = {**llama.NUMBERS, "norm_eps": "layer_norm_eps"}
LLAMA_LIKE = {**NUMBERS, "n_kv_heads": "num_key_value_heads"}
NEOX_WHOLE = whole({"embed": "embed_in", "norm": "final_layer_norm", "head": "embed_out"})
NEOX_LAYER = {**bloom.MATRICES, **bloom.NORMS, "attention.o_proj": "attention.dense"}
TIED_BIAS = Rule("lm_head.bias", "head_bias")
"""Of a head that has the embedding's matrix."""
GPTJ_RULES = [
    *whole({"embed": "wte", "norm": "ln_f", "head": "lm_head"}),
    *layered("h", {f"attention.{each}_proj": f"attn.{each}_proj" for each in "qkv"}),
    *layered("h", {"attention.o_proj": "attn.out_proj", "layout.norm": "ln_1"}),
    *layered("h", {"ffn.up": "mlp.fc_in", "ffn.down": "mlp.fc_out"}),
]
PHI_RULES = [
    *whole({"norm": "final_layernorm"}),
    *llama.rules(
        attention__o_proj="self_attn.dense",
        attention__q_norm="self_attn.q_layernorm",
        attention__k_norm="self_attn.k_layernorm",
        ffn__up="mlp.fc1",
        ffn__down="mlp.fc2",
        layout__norm="input_layernorm",
    ),
]
STARCODER2_RULES = llama.rules(ffn__up="mlp.c_fc", ffn__down="mlp.c_proj")


def neox_rules(config: ModelConfig) -> list[Rule]:
    return [*NEOX_WHOLE, *neox_layers("layers", config)]


def neox_mlx_rules(config: ModelConfig) -> list[Rule]:
    """mlx-lm has the head inside, too."""
    return in_full([*NEOX_WHOLE, *neox_layers("h", config)], "model.")


def neox_layers(layers: str, config: ModelConfig) -> list[Rule]:
    qkv = gpt.fused(f"{layers}.{{i}}.attention.query_key_value", gpt.grouped(config))
    return [qkv, *layered(layers, NEOX_LAYER)]


def with_bias(rules: list[Rule]) -> Any:
    """Of those whose head has a bias, tied or not."""
    return lambda config: [*([TIED_BIAS] if config.tie_embeddings else []), *rules]


def stablelm_rules(config: ModelConfig) -> list[Rule]:
    """A norm of queries and keys is stored head by head."""
    of_heads = [
        Rule(
            f"layers.{{i}}.self_attn.{each}_layernorm.norms.{{e}}.weight",
            f"layers.{{i}}.attention.{each}_norm.weight",
            Chain(Stacked(), Reversed(Squeezed(1))),
        )
        for each in "qk"
    ]
    parallel = Described(config).knows("layout.norms")
    return [*of_heads, *(llama.rules(layout__norm="input_layernorm") if parallel else llama.RULES)]


def rope(config: Config) -> dict[str, Any]:
    """With the share of each head that is turned."""
    fraction = {**config.defaults["rope_parameters"], **config.rope()}["partial_rotary_factor"]
    return {**config.rope_arguments(), "rope_fraction": fraction}


def rope_keys(model: Described) -> dict[str, Any]:
    return {**model.rope(), "partial_rotary_factor": model.option("position.fraction", model.turned)}


def gpt_neox(config: Config) -> dict[str, Any]:
    choices = {"parallel": "use_parallel_residual", "attention_bias": "attention_bias"}
    return {
        "vocab_size": config["vocab_size"],
        **config.renamed({**NUMBERS, **choices}),
        "activation": config.activation("hidden_act"),
        **rope(config),
    }


def gpt_neox_keys(model: Described) -> dict[str, Any]:
    rope = rope_keys(model)
    return {
        **model.numbers(NUMBERS),
        "hidden_act": model.activation(),
        "rotary_emb_base": rope["rope_theta"],
        "rotary_pct": rope["partial_rotary_factor"],
        "rope_scaling": rope["rope_scaling"],
        "use_parallel_residual": model.knows("layout.norms"),
        "attention_bias": model.bias("attention.qkv_bias"),
    }


def gptj(config: Config) -> dict[str, Any]:
    numbers = gpt.numbers(config, {**gpt.NUMBERS, **gpt.WIDTH})
    return {
        "vocab_size": config["vocab_size"],
        **numbers,
        "activation": config.activation("activation_function"),
        "rope_fraction": config["rotary_dim"] / (numbers["d_model"] // numbers["n_heads"]),
    }


def gptj_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers({**gpt.NUMBERS, **gpt.WIDTH}),
        "activation_function": model.activation(),
        "rotary_dim": round(model.option("position.fraction") * model.block.head_dim),
    }


def phi(config: Config) -> dict[str, Any]:
    return {
        "vocab_size": config["vocab_size"],
        **config.renamed({**LLAMA_LIKE, "head_dim": "head_dim", "qk_norm": "qk_layernorm"}),
        "activation": config.activation("hidden_act"),
        **rope(config),
    }


def phi_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers({**LLAMA_LIKE, "head_dim": "head_dim"}),
        **rope_keys(model),
        "hidden_act": model.activation(),
        "qk_layernorm": model.option("attention.qk_norm") is not None,
    }


def stablelm(config: Config) -> dict[str, Any]:
    config.only("hidden_act", "silu", "swish")
    choices = {"qkv_bias": "use_qkv_bias", "qk_norm": "qk_layernorm", "parallel": "use_parallel_residual"}
    return {"vocab_size": config["vocab_size"], **config.renamed({**LLAMA_LIKE, **choices}), **rope(config)}


def stablelm_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers(LLAMA_LIKE),
        **rope_keys(model),
        "hidden_act": model.activation(),
        "use_qkv_bias": model.bias("attention.qkv_bias"),
        "qk_layernorm": model.option("attention.qk_norm") is not None,
        "use_parallel_residual": model.knows("layout.norms"),
    }


def nemotron(config: Config) -> dict[str, Any]:
    choices = {"norm_eps": "norm_eps", "attention_bias": "attention_bias", "ffn_bias": "mlp_bias"}
    return {
        **llama.numbers(config),
        **config.renamed(choices),
        "activation": config.activation("hidden_act"),
        **rope(config),
    }


def nemotron_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers({**NUMBERS, **llama.HEADS, "norm_eps": "norm_eps"}),
        **rope_keys(model),
        "hidden_act": model.activation(),
        "attention_bias": model.bias("attention.qkv_bias"),
        "mlp_bias": model.bias("ffn.bias"),
    }


def starcoder2(config: Config) -> dict[str, Any]:
    return {
        **llama.numbers(config),
        **config.renamed({"norm_eps": "norm_epsilon", "bias": "use_bias"}),
        "activation": config.activation("hidden_act"),
        "window": config.get("sliding_window"),
    }


def starcoder2_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers({**NUMBERS, **llama.HEADS, "norm_eps": "norm_epsilon"}),
        **model.rope(),
        "hidden_act": model.activation(),
        "use_bias": model.block.bias,
        "sliding_window": model.window,
    }


GPT_NEOX = Family(
    model_type="gpt_neox",
    factory="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    arguments=gpt_neox,
    keys=gpt_neox_keys,
    rules=neox_rules,
    mlx_rules=neox_mlx_rules,
    prefix="gpt_neox.",
    bare=("embed_out.",),
)
GPTJ = gpt.family("gptj", "GPTJForCausalLM", gptj, gptj_keys, with_bias(GPTJ_RULES))
PHI = llama.family("phi", "PhiForCausalLM", phi, phi_keys, with_bias(PHI_RULES))
STABLELM = llama.family("stablelm", "StableLmForCausalLM", stablelm, stablelm_keys, stablelm_rules)
NEMOTRON = llama.family("nemotron", "NemotronForCausalLM", nemotron, nemotron_keys)
STARCODER2 = llama.family("starcoder2", "Starcoder2ForCausalLM", starcoder2, starcoder2_keys, STARCODER2_RULES)
