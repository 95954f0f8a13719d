"""LLaMA and what differs from it in little."""

from collections.abc import Callable, Sequence
from typing import Any

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError
from lmx_hf.config import Config, scaling_spec
from lmx_hf.described import Described, UnfitError
from lmx_hf.family import Family, layered, whole
from lmx_hf.rules import Rule
from lmx_hf.transforms import Beside, Chain, Parts, Shaped

NUMBERS = {
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_layers": "num_hidden_layers",
    "d_ff": "intermediate_size",
    "max_seq_len": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
}
HEADS = {"n_kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
WHOLE = whole({"embed": "embed_tokens", "norm": "norm", "head": "lm_head"})
ATTENTION = {
    f"attention.{each}": f"self_attn.{each}" for each in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
}
FFN = {f"ffn.{each}": f"mlp.{each}_proj" for each in ("gate", "up", "down")}
PRE_NORM = {"layout.attention_norm": "input_layernorm", "layout.ffn_norm": "post_attention_layernorm"}


def rules(**parts: str) -> list[Rule]:
    """The names of LLaMA's tensors; of parts in other places, `ours="theirs"`, a dot in ours written `__`.

    With `norms` of a layout given, those of LLaMA's are left out.
    """
    given = {ours.replace("__", "."): theirs for ours, theirs in parts.items()}
    norms = {} if any(ours.startswith("layout.") for ours in given) else PRE_NORM
    return [*WHOLE, *layered("layers", {**ATTENTION, **FFN, **norms, **given})]


RULES = rules()
OUTPUT_NORMS = rules(layout__attention_norm="post_attention_layernorm", layout__ffn_norm="post_feedforward_layernorm")
SANDWICH_4 = rules(
    layout__attention_norm="input_layernorm",
    layout__attention_out_norm="post_self_attn_layernorm",
    layout__ffn_norm="post_attention_layernorm",
    layout__ffn_out_norm="post_mlp_layernorm",
)
ACT = "layers.{i}.mlp.act_fn"
ALPHAS = ["layers.{i}.ffn.activation.alpha_p", "layers.{i}.ffn.activation.alpha_n"]
ONE = Shaped((1,), (1,))
"""mlx-lm has no axis there."""
XIELU = [
    Rule([f"{ACT}.{each}" for each in ("alpha_p", "alpha_n", "beta", "eps")], ALPHAS, Chain(Beside((0.5, -1e-6)), ONE)),
    *(Rule(f"{ACT}.alpha_{sign}", ours, ONE) for sign, ours in zip("pn", ALPHAS, strict=True)),
    *rules(layout__attention_norm="attention_layernorm", layout__ffn_norm="feedforward_layernorm"),
]
QK_LAYERNORM = rules(attention__q_norm="self_attn.query_layernorm", attention__k_norm="self_attn.key_layernorm")


def halved(names: Sequence[Rule]) -> list[Rule]:
    """With gate and up in one tensor; apart they are read, too."""
    halves = [f"layers.{{i}}.ffn.{each}.{{p}}" for each in ("gate", "up")]
    return [Rule("layers.{i}.mlp.gate_up_proj.{p}", halves, Parts(2)), *names]


def unfused(names: Sequence[Rule]) -> Callable[[ModelConfig], list[Rule]]:
    """With queries, keys and values in one tensor, and gate and up; apart they are read, too."""

    def made(config: ModelConfig) -> list[Rule]:
        block = config.get_block_config(0)
        queries, shared = block.n_heads * block.head_dim, block.n_kv_heads * block.head_dim
        qkv = [f"layers.{{i}}.attention.{each}_proj.{{p}}" for each in "qkv"]
        return [Rule("layers.{i}.self_attn.qkv_proj.{p}", qkv, Parts((queries, shared, shared))), *halved(names)]

    return made


def numbers(config: Config) -> dict[str, Any]:
    """What all of them have; heads as the config's class fills them in."""
    heads = config["num_attention_heads"]
    return {
        "vocab_size": config["vocab_size"],
        **config.renamed(NUMBERS),
        "n_kv_heads": config.get("num_key_value_heads", heads),
        "head_dim": config.get("head_dim", config["hidden_size"] // heads),
        "rope_scaling": None,
        **config.rope_arguments("full_attention"),
    }


def gated(config: Config, **biases: str) -> dict[str, Any]:
    """Of families whose FFN is gated with SiLU, with keys that say which biases there are, as `ours="theirs"`."""
    config.only("hidden_act", "silu", "swish")
    return {**numbers(config), **config.renamed(biases)}


def gated_keys(model: Described, **biases: str) -> dict[str, Any]:
    """The other way round, `theirs="path of ours"`."""
    return {
        **model.numbers({**NUMBERS, **HEADS}),
        **model.rope(),
        "hidden_act": model.activation(),
        **{theirs: model.bias(path) for theirs, path in biases.items()},
    }


def attending(config: Config) -> dict[str, Any]:
    """Of those that have biases in attention alone, if any."""
    return gated(config, attention_bias="attention_bias")


def attending_keys(model: Described) -> dict[str, Any]:
    return gated_keys(model, attention_bias="attention.qkv_bias")


def llama(config: Config) -> dict[str, Any]:
    return gated(config, attention_bias="attention_bias", ffn_bias="mlp_bias")


def llama_keys(model: Described) -> dict[str, Any]:
    return {**attending_keys(model), "mlp_bias": model.bias("ffn.bias")}


def mistral(config: Config) -> dict[str, Any]:
    return {**gated(config), "window": config.get("sliding_window")}


def mistral_keys(model: Described) -> dict[str, Any]:
    return {**gated_keys(model), "sliding_window": model.window}


def ministral(config: Config) -> dict[str, Any]:
    return {**gated(config), **config.kinds(lambda i: True)}


def ministral_keys(model: Described) -> dict[str, Any]:
    return {**mistral_keys(model), "layer_types": model.layer_types}


def ministral3(config: Config) -> dict[str, Any]:
    rope = config.rope()
    return {
        **mistral(config),
        "query_growth": rope["llama_4_scaling_beta"],
        "query_growth_every": rope["original_max_position_embeddings"],
    }


def ministral3_keys(model: Described) -> dict[str, Any]:
    """The growth of queries stands among what scales the rope, in the newer layout, which alone this family has."""
    keys = mistral_keys(model)
    growth = {
        "llama_4_scaling_beta": model.option("attention.query_growth"),
        "original_max_position_embeddings": model.option("attention.query_growth_every"),
    }
    theta, scaling = keys.pop("rope_theta"), keys.pop("rope_scaling") or {"rope_type": "default"}
    return {**keys, "rope_parameters": {**scaling, **growth, "rope_theta": theta}}


def phi3(config: Config) -> dict[str, Any]:
    """`yarn` means `longrope` here, and the length before it stands outside, where it does."""
    rope = config.rope()
    if rope["rope_type"] == "yarn":
        rope["rope_type"] = "longrope"
    return {
        **mistral(config),
        "rope_scaling": scaling_spec(rope, config.get("original_max_position_embeddings")),
        "rope_fraction": rope.get("partial_rotary_factor", 1.0),
    }


def phi3_keys(model: Described) -> dict[str, Any]:
    keys = mistral_keys(model)
    scaling = keys["rope_scaling"] or {}
    original = scaling.pop("original_max_position_embeddings", model.block.max_seq_len)
    partial = model.option("position.fraction")
    return {**keys, "original_max_position_embeddings": original, "partial_rotary_factor": partial}


def qwen2(config: Config) -> dict[str, Any]:
    first = config.get("max_window_layers", 28)
    windows = config.kinds(lambda i: i >= first) if config.get("use_sliding_window") else {"window": None}
    return {**gated(config), **windows}


def windows_keys(model: Described) -> dict[str, Any]:
    """Of Qwen: `max_window_layers` says it where the layers with a window come last."""
    window, types = model.window, model.layer_types
    return {
        "use_sliding_window": window is not None,
        "sliding_window": window,
        "max_window_layers": types.index("sliding_attention") if window else len(types),
        "layer_types": types,
    }


def qwen2_keys(model: Described) -> dict[str, Any]:
    return {**gated_keys(model), **windows_keys(model)}


def qwen3(config: Config) -> dict[str, Any]:
    return {**qwen2(config), **attending(config)}


def qwen3_keys(model: Described) -> dict[str, Any]:
    return {**attending_keys(model), **windows_keys(model)}


def seed_oss(config: Config) -> dict[str, Any]:
    return gated(config, qkv_bias="attention_bias", o_bias="attention_out_bias", ffn_bias="mlp_bias")


def seed_oss_keys(model: Described) -> dict[str, Any]:
    return gated_keys(
        model, attention_bias="attention.qkv_bias", attention_out_bias="attention.o_bias", mlp_bias="ffn.bias"
    )


MULTIPLIERS = {
    "embedding_multiplier": "embedding_multiplier",
    "residual_multiplier": "residual_multiplier",
    "attention_scale": "attention_multiplier",
}


def granite(config: Config) -> dict[str, Any]:
    return {**llama(config), **config.renamed(MULTIPLIERS), "logit_multiplier": 1 / config["logits_scaling"]}


def granite_keys(model: Described) -> dict[str, Any]:
    return {**llama_keys(model), **multipliers_keys(model)}


def multipliers_keys(model: Described) -> dict[str, Any]:
    scale = model.option("attention.scale")
    return {
        "embedding_multiplier": model.model.embedding_multiplier,
        "residual_multiplier": model.option("layout.residual_multiplier"),
        "attention_multiplier": model.block.head_dim**-0.5 if scale is None else scale,
        "logits_scaling": 1 / model.model.logit_multiplier,
    }


def smollm3(config: Config) -> dict[str, Any]:
    layers, every = range(config["num_hidden_layers"]), config["no_rope_layer_interval"]
    turned = config.data.get("no_rope_layers") or [(i + 1) % every for i in layers]
    pattern = ["rope" if turned[i] else "nope" for i in layers]
    windowed = config.kinds(lambda i: not turned[i])["pattern"] if config["use_sliding_window"] else []
    if any(kind == "rope" for kind, window in zip(pattern, windowed, strict=False) if window == "sliding"):
        raise ConfigError(
            "layer_types has a window in a layer with a rope. lmx's smollm3 has windows without one alone."
        )
    return {**llama(config), "pattern": pattern, "window": config.get("sliding_window") if windowed else None}


def smollm3_keys(model: Described) -> dict[str, Any]:
    turned = [int(model.turns(block)) for block in model.layers]
    return {**llama_keys(model), **windows_keys(model), "no_rope_layers": turned}


def glm(config: Config) -> dict[str, Any]:
    fraction = config.rope().get("partial_rotary_factor", 0.5)
    return {**gated(config, qkv_bias="attention_bias"), "rope_fraction": fraction}


def glm_keys(model: Described) -> dict[str, Any]:
    return {**attending_keys(model), "partial_rotary_factor": model.option("position.fraction")}


def apertus(config: Config) -> dict[str, Any]:
    """With a null `rope_scaling` the class's own, whatever `rope_theta` says."""
    biases = config.renamed({"attention_bias": "attention_bias"})
    return {**numbers(config), **biases, "activation": config.activation("hidden_act", "xielu")}


def apertus_keys(model: Described) -> dict[str, Any]:
    """A rope is scaled unless the config says that it is not. mlx-lm asks for what all of them have."""
    keys = attending_keys(model)
    rope = {"rope_scaling": keys["rope_scaling"] or {"rope_type": "default", "type": "default"}}
    return {**keys, **rope, "mlp_bias": False, "post_norm": False, "qk_norm": True}


def hunyuan_keys(model: Described) -> dict[str, Any]:
    """mlx-lm asks for the `factor` of a scaling, which nobody reads."""
    keys = attending_keys(model)
    scaling = keys["rope_scaling"]
    return {**keys, "rope_scaling": scaling and {"factor": 1.0, **scaling}, "use_qk_norm": True}


def exaone4(config: Config) -> dict[str, Any]:
    every = config.get("sliding_window_pattern", 4)
    letters = every if isinstance(every, str) else "L" * (every - 1) + "G"
    return {**gated(config), **config.kinds(lambda i: letters[i % len(letters)] == "L")}


def exaone4_keys(model: Described) -> dict[str, Any]:
    types = model.layer_types
    letters = "".join("L" if each == "sliding_attention" else "G" for each in types)
    window = model.window or (
        None if model.turned else model.block.max_seq_len
    )  # with none at all every layer has a rope
    windows = {"sliding_window": window, "sliding_window_pattern": letters, "layer_types": types}
    return {**gated_keys(model), **windows}


def narrow(model: Described) -> None:
    """`UnfitError` unless the heads make up the width: transformers has no other heads in this family."""
    if (wide := model.block.n_heads * model.block.head_dim) != (d_model := model.block.d_model):
        raise UnfitError(
            f"its heads have {wide} numbers together, where transformers has as many as d_model, {d_model}"
        )


def helium(config: Config) -> dict[str, Any]:
    return gated(config, qkv_bias="attention_bias", ffn_bias="mlp_bias")


def helium_keys(model: Described) -> dict[str, Any]:
    narrow(model)
    return llama_keys(model)


def family(model_type: str, architecture: str, arguments: Any, keys: Any, rules: Any = RULES, **more: Any) -> Family:
    """Of this kin: its factory is named like its `model_type`, unless given."""
    more = {"factory": model_type, **more}
    return Family(model_type=model_type, architecture=architecture, arguments=arguments, keys=keys, rules=rules, **more)


LLAMA = family("llama", "LlamaForCausalLM", llama, llama_keys)
MISTRAL = family("mistral", "MistralForCausalLM", mistral, mistral_keys)
MINISTRAL = family("ministral", "MinistralForCausalLM", ministral, ministral_keys)
MINISTRAL3 = family("ministral3", "Ministral3ForCausalLM", ministral3, ministral3_keys)
PHI3 = family("phi3", "Phi3ForCausalLM", phi3, phi3_keys, unfused(RULES))
QWEN2 = family("qwen2", "Qwen2ForCausalLM", qwen2, qwen2_keys)
QWEN3 = family("qwen3", "Qwen3ForCausalLM", qwen3, qwen3_keys)
SEED_OSS = family("seed_oss", "SeedOssForCausalLM", seed_oss, seed_oss_keys)
GRANITE = family("granite", "GraniteForCausalLM", granite, granite_keys)
SMOLLM3 = family("smollm3", "SmolLM3ForCausalLM", smollm3, smollm3_keys)
GLM = family("glm", "GlmForCausalLM", glm, glm_keys, halved(RULES))
GLM4 = family("glm4", "Glm4ForCausalLM", glm, glm_keys, halved(SANDWICH_4))
APERTUS = family("apertus", "ApertusForCausalLM", apertus, apertus_keys, XIELU)
HUNYUAN = family("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", attending, hunyuan_keys, QK_LAYERNORM)
EXAONE4 = family("exaone4", "Exaone4ForCausalLM", exaone4, exaone4_keys, OUTPUT_NORMS)
HELIUM = family("helium", "HeliumForCausalLM", helium, helium_keys)
