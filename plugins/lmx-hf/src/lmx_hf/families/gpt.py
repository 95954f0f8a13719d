"""GPT and what differs from it in little, with positions in a table."""

from collections.abc import Mapping
from typing import Any

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError
from lmx_hf.config import Config
from lmx_hf.described import Described, UnfitError
from lmx_hf.family import Family, in_full, layered, whole
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, InTurn, Parts, Transform, Turned

NUMBERS = {
    "d_model": "n_embd",
    "n_heads": "n_head",
    "n_layers": "n_layer",
    "max_seq_len": "n_positions",
    "norm_eps": "layer_norm_epsilon",
}
WIDTH = {"d_ff": "n_inner"}
NEO = {
    **NUMBERS,
    "d_model": "hidden_size",
    "n_heads": "num_heads",
    "n_layers": "num_layers",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
}
WHOLE = whole({"embed": "wte", "positions.0": "wpe", "norm": "ln_f", "head": "lm_head"})
NORMS = {"layout.attention_norm": "ln_1", "layout.ffn_norm": "ln_2"}
FFN = {"ffn.up": "mlp.c_fc", "ffn.down": "mlp.c_proj"}
MATRICES = {"attention.o_proj": "attn.c_proj", **FFN}


def fused(theirs: str, how: Transform, what: str = "{p}") -> Rule:
    """Queries, keys and values in one tensor."""
    return Rule(f"{theirs}.{what}", [f"layers.{{i}}.attention.{each}_proj.{what}" for each in "qkv"], how)


def grouped(config: ModelConfig) -> InTurn:
    """For each key/value head the queries that read it, then it, then its values."""
    block = config.get_block_config(0)
    return InTurn((block.n_heads // block.n_kv_heads * block.head_dim, block.head_dim, block.head_dim))


LAYER = [fused("h.{i}.attn.c_attn", Parts(3)), *layered("h", {**MATRICES, **NORMS})]
CONV1D = [
    fused("h.{i}.attn.c_attn", Chain(Turned(), Parts(3)), "weight"),
    *(Rule(f"h.{{i}}.{theirs}.weight", f"layers.{{i}}.{ours}.weight", Turned()) for ours, theirs in MATRICES.items()),
    *LAYER,
]
"""With matrices stored (in, out)."""
GPT1_RULES = [*whole({"embed": "tokens_embed", "positions.0": "positions_embed", "head": "lm_head"}), *CONV1D]
GPT2_RULES = [*WHOLE, *CONV1D]
NEO_RULES = [
    *WHOLE,
    *layered("h", {f"attention.{each}_proj": f"attn.attention.{each}_proj" for each in "qkv"}),
    *layered("h", {"attention.o_proj": "attn.attention.out_proj", **FFN, **NORMS}),
]
MLX_GPT2_RULES = in_full([*WHOLE, *LAYER], "model.")
"""mlx-lm has them (out, in), and knows them by this prefix."""


def gpt_bigcode_rules(config: ModelConfig) -> list[Rule]:
    return [*WHOLE, fused("h.{i}.attn.c_attn", grouped(config)), *layered("h", {**MATRICES, **NORMS})]


COMMON = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "max_seq_len": "max_position_embeddings",
}
"""Names that transformers knows in every config."""


def numbers(config: Config, names: Mapping[str, str]) -> dict[str, Any]:
    """Of `{ours: theirs}`, under their names or the common ones, which win."""
    common = {ours: config.under(COMMON[ours], theirs) for ours, theirs in names.items() if ours in COMMON}
    return {**config.renamed(names), **common}


GPT1_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
"""By the names of GPT-1 alone."""
KINDS = {"global": "full", "local": "sliding"}


def gpt1(config: Config) -> dict[str, Any]:
    """Its FFN is always four times as wide as the model."""
    config.only("afn", *GPT1_ACTIVATIONS)
    activation = GPT1_ACTIVATIONS[config["afn"]]
    return {"vocab_size": config["vocab_size"], **numbers(config, NUMBERS), "pre_norm": False, "activation": activation}


def gpt1_keys(model: Described) -> dict[str, Any]:
    ours = model.option("ffn.activation")
    names = [theirs for theirs, each in GPT1_ACTIVATIONS.items() if each == ours]
    if not names:
        raise UnfitError(f"activation {ours!r} has no name in a config.json of GPT-1")
    return {**model.numbers(NUMBERS), "afn": names[0]}


def gpt(config: Config) -> dict[str, Any]:
    """What GPT-2 and those that are made like it have."""
    return {
        "vocab_size": config["vocab_size"],
        **numbers(config, {**NUMBERS, **WIDTH}),
        "activation": config.activation("activation_function"),
        "scale_attention": config["scale_attn_weights"],
    }


def gpt_keys(model: Described) -> dict[str, Any]:
    return {
        **model.numbers({**NUMBERS, **WIDTH}),
        "activation_function": model.activation(),
        "scale_attn_weights": model.scale() != 1.0,
    }


def gpt2(config: Config) -> dict[str, Any]:
    config.only("add_cross_attention", False)
    return {**gpt(config), "scale_by_layer": config["scale_attn_by_inverse_layer_idx"]}


def gpt2_keys(model: Described) -> dict[str, Any]:
    """mlx-lm reads `n_ctx`."""
    scales = {model.scale(block) for block in model.layers}
    return {**gpt_keys(model), "n_ctx": model.block.max_seq_len, "scale_attn_by_inverse_layer_idx": len(scales) > 1}


def gpt_bigcode(config: Config) -> dict[str, Any]:
    given = gpt(config)
    return {**given, "n_kv_heads": 1 if config["multi_query"] else given["n_heads"]}


def gpt_bigcode_keys(model: Described) -> dict[str, Any]:
    return {**gpt_keys(model), "multi_query": model.block.n_kv_heads == 1}


def gpt_neo(config: Config) -> dict[str, Any]:
    kinds = [kind for each, times in config["attention_types"] for kind in each * times]
    if unknown := {*kinds} - {*KINDS}:
        raise ConfigError(f"attention_types has {sorted(unknown)[0]!r}. lmx's gpt_neo has {' and '.join(KINDS)} alone.")
    return {
        "vocab_size": config["vocab_size"],
        **numbers(config, {**NEO, "window": "window_size"}),
        "activation": config.activation("activation_function"),
        "pattern": [KINDS[kind] for kind in kinds],
    }


def gpt_neo_keys(model: Described) -> dict[str, Any]:
    kinds = ["local" if each == "sliding_attention" else "global" for each in model.layer_types]
    return {
        **model.numbers(NEO),
        "activation_function": model.activation(),
        "attention_types": [[kinds, 1]],
        "attention_layers": kinds,
        "window_size": model.window or 256,
    }


def family(model_type: str, architecture: str, arguments: Any, keys: Any, rules: Any, **more: Any) -> Family:
    """Of this kin: its factory is named like its `model_type`, unless given."""
    more = {"factory": model_type, "prefix": "transformer.", **more}
    return Family(model_type=model_type, architecture=architecture, arguments=arguments, keys=keys, rules=rules, **more)


OPENAI_GPT = family("openai-gpt", "OpenAIGPTLMHeadModel", gpt1, gpt1_keys, GPT1_RULES, factory="gpt")
GPT2 = family("gpt2", "GPT2LMHeadModel", gpt2, gpt2_keys, GPT2_RULES, mlx_rules=MLX_GPT2_RULES)
GPT_BIGCODE = family("gpt_bigcode", "GPTBigCodeForCausalLM", gpt_bigcode, gpt_bigcode_keys, gpt_bigcode_rules)
GPT_NEO = family("gpt_neo", "GPTNeoForCausalLM", gpt_neo, gpt_neo_keys, NEO_RULES)
