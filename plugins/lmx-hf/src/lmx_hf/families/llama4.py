"""The language model of Llama 4."""

from typing import Any

from lmx_core.errors import ConfigError
from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.llama import RULES, attending, attending_keys
from lmx_hf.families.mixture import EXPERTS, choice, choice_keys, dense_layers, mixture, shared, switched, width
from lmx_hf.family import Family, layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, Parts, Turned

AT = "layers.{i}.feed_forward"
LLAMA4 = [
    Rule(
        f"{AT}.experts.gate_up_proj",
        [f"{EXPERTS}.{half}.weight" for half in ("gate", "up")],
        Chain(Turned(), Parts(2, 1)),
    ),
    Rule(f"{AT}.experts.down_proj", f"{EXPERTS}.down.weight", Turned()),
    *mixture("feed_forward", router="router"),
    *shared("feed_forward.shared_expert"),
    *layered("layers", {f"ffn.{each}": f"feed_forward.{each}_proj" for each in ("gate", "up", "down")}),
    *RULES,
]


def llama4(config: Config) -> dict[str, Any]:
    """Layers with a rope are those that see a chunk."""
    layers = range(config["num_hidden_layers"])
    every, step = config.get("no_rope_layer_interval", 4), config.get("interleave_moe_layer_step", 1)
    turned = config.data.get("no_rope_layers") or [(i + 1) % every for i in layers]
    stated = config.data.get("moe_layers")
    sparse = [i for i in layers if (i + 1) % step == 0] if stated is None else stated
    types = config.data.get("layer_types") or ["chunked_attention" if turned[i] else "full_attention" for i in layers]
    if odd := [i for i in layers if bool(turned[i]) != (types[i] == "chunked_attention")]:
        raise ConfigError(
            f"layer {odd[0]} has the layer_type {types[odd[0]]!r} and no_rope_layers {turned[odd[0]]}. "
            "lmx's llama4 has a rope in layers that see a chunk, and in no others."
        )
    return {
        **attending(config),
        "chunk_size": config["attention_chunk_size"],
        "pattern": ["rope" if turned[i] else "nope" for i in layers],
        "qk_norm": config["use_qk_norm"],
        "query_growth": config["attn_scale"] if config["attn_temperature_tuning"] else 0.0,
        "query_growth_every": int(config["floor_scale"]),
        "ffns": ["sparse" if i in sparse else "dense" for i in layers],
        **choice(config),
        "d_ff": config["intermediate_size_mlp"],
        "expert_d_ff": config["intermediate_size"],
    }


def llama4_keys(model: Described) -> dict[str, Any]:
    """What no layer shows is left to its class."""
    n, dense = model.model.n_layers, dense_layers(model)
    sparse = [i for i in range(n) if i not in dense]
    step = sparse[0] + 1 if sparse else n + 1
    keys = {
        **attending_keys(model),
        **choice_keys(model),
        "intermediate_size": width(model),
        "intermediate_size_mlp": model.block.d_ff,
        "moe_layers": sparse,
        "interleave_moe_layer_step": step if sparse == list(range(step - 1, n, step)) else 1,
        "no_rope_layers": [int(model.turns(block)) for block in model.layers],
        "attn_temperature_tuning": False,
    }
    if (chunked := model.first("attention.chunk_size")) is not None:
        keys["attention_chunk_size"] = model.option("attention.chunk_size", chunked)
        keys["use_qk_norm"] = model.option("attention.qk_norm", chunked) is not None
    grown = next((block for block in model.layers if model.option("attention.query_growth", block)), None)
    if grown is not None:
        keys["attn_temperature_tuning"] = True
        keys["attn_scale"] = model.option("attention.query_growth", grown)
        keys["floor_scale"] = model.option("attention.query_growth_every", grown)
    return keys


LLAMA4_TEXT = Family(
    model_type="llama4_text",
    factory="llama4",
    architecture="Llama4ForCausalLM",
    arguments=llama4,
    keys=llama4_keys,
    rules=LLAMA4,
    mlx_rules=switched("feed_forward.experts"),
    composite="llama4",
)
