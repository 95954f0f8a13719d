"""gpt-oss."""

from typing import Any

from lmx_hf.config import Config
from lmx_hf.described import Described, UnfitError
from lmx_hf.families.llama import RULES, attending, attending_keys
from lmx_hf.families.mixture import EXPERTS, choice, choice_keys, expert_keys, switched
from lmx_hf.family import Family, layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Chain, InTurn, Turned

AT = "layers.{i}.mlp.experts"
BY_TURNS = InTurn((1, 1), axis=1)
"""A row of the gate, a row of up, ..."""


def halves(part: str) -> list[str]:
    return [f"{EXPERTS}.{each}.{part}" for each in ("gate", "up")]


EXPERT_RULES = [
    Rule(f"{AT}.gate_up_proj", halves("weight"), Chain(Turned(), BY_TURNS)),
    Rule(f"{AT}.down_proj", f"{EXPERTS}.down.weight", Turned()),
    Rule(f"{AT}.gate_up_proj_bias", halves("bias"), BY_TURNS),
    Rule(f"{AT}.down_proj_bias", f"{EXPERTS}.down.bias"),
    # Packed: rows are those of matrices as (experts, out, in).
    Rule(f"{AT}.gate_up_proj.{{p}}", halves("{p}"), BY_TURNS),
    Rule(f"{AT}.down_proj.{{p}}", f"{EXPERTS}.down.{{p}}"),
]
OTHERS = [
    *layered("layers", {"ffn.router": "mlp.router"}),
    Rule("layers.{i}.self_attn.sinks", "layers.{i}.attention.sinks"),
    *RULES,
]


def gpt_oss(config: Config) -> dict[str, Any]:
    """The scaling of a rope that is not stated is the class's, around a base that may be."""
    config.only("swiglu_alpha", 1.702)
    stated = config.data.get("rope_scaling") or config.data.get("rope_parameters") is not None
    base = {} if stated or config.data.get("rope_theta") is None else {"rope_theta": float(config["rope_theta"])}
    return {
        **attending(config),
        **base,
        **config.kinds(lambda i: i % 2 == 0),
        **choice(config),
        "clamp": config["swiglu_limit"],
    }


def gpt_oss_keys(model: Described) -> dict[str, Any]:
    """The older layout has the number of experts of a token under two names. Without a word about it the rope is scaled."""
    keys = {**attending_keys(model), **choice_keys(model), **expert_keys(model, {"clamp": "swiglu_limit"})}
    if "swiglu_limit" not in keys:
        raise UnfitError("what experts compute has no limit (clamp)")
    window = {} if model.window is None else {"sliding_window": model.window}
    return {
        **keys,
        **window,
        "experts_per_token": keys["num_experts_per_tok"],
        "rope_scaling": keys["rope_scaling"] or {"rope_type": "default"},
        "hidden_act": "silu",
        "swiglu_alpha": 1.702,
        "layer_types": model.layer_types,
    }


GPT_OSS = Family(
    model_type="gpt_oss",
    factory="gpt_oss",
    architecture="GptOssForCausalLM",
    arguments=gpt_oss,
    keys=gpt_oss_keys,
    rules=[*EXPERT_RULES, *OTHERS],
    mlx_rules=switched("mlp.experts"),
)
