"""OLMo."""

from typing import Any

from lmx_hf.config import Config
from lmx_hf.described import Described
from lmx_hf.families.gemma import truncated
from lmx_hf.families.llama import OUTPUT_NORMS, attending, attending_keys, family

LOCAL_THETA = 500_000.0
"""Of layers with a window, where a config has one `rope_theta`: it reaches the others alone."""


def olmo(config: Config) -> dict[str, Any]:
    """The epsilon of its norms is in no config."""
    arguments = {**attending(config), "clip": config.get("clip_qkv")}
    return {key: each for key, each in arguments.items() if key != "norm_eps"}


def olmo_keys(model: Described) -> dict[str, Any]:
    keys = {**attending_keys(model), "clip_qkv": model.option("attention.clip")}
    return {key: each for key, each in keys.items() if key != "rms_norm_eps"}


def olmo3(config: Config) -> dict[str, Any]:
    local = config.rope_arguments("sliding_attention")["rope_theta"]
    return {**attending(config), **config.kinds(lambda i: (i + 1) % 4), "local_rope_theta": local}


def olmo3_keys(model: Described) -> dict[str, Any]:
    """In the newer layout, too, where the published one does not say the model; mlx-lm reads `rope_theta`."""
    truncated(model)
    local = model.first("attention.window")
    theta = model.rope(local)["rope_theta"] if local else LOCAL_THETA
    wide = model.rope(model.wide) if model.wide else {"rope_theta": theta, "rope_scaling": None}
    kinds = {"full_attention": newer(wide), "sliding_attention": newer({"rope_theta": theta})}
    return {
        **attending_keys(model),
        **wide,
        **({} if theta == wide["rope_theta"] == LOCAL_THETA else {"rope_parameters": kinds}),
        "sliding_window": model.window,
        "layer_types": model.layer_types,
    }


def newer(rope: dict[str, Any]) -> dict[str, Any]:
    """A rope in the layout of transformers 5."""
    return {"rope_type": "default", **(rope.get("rope_scaling") or {}), "rope_theta": rope["rope_theta"]}


OLMO = family("olmo", "OlmoForCausalLM", olmo, olmo_keys)
OLMO2 = family("olmo2", "Olmo2ForCausalLM", attending, attending_keys, OUTPUT_NORMS)
OLMO3 = family("olmo3", "Olmo3ForCausalLM", olmo3, olmo3_keys, OUTPUT_NORMS)
