"""What families with experts have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from lmx_core.config import BlockConfig
from lmx_hf.config import Config
from lmx_hf.described import Described, UnfitError
from lmx_hf.family import layered
from lmx_hf.rules import Rule
from lmx_hf.transforms import Parts, Stacked

PROJECTIONS = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
NUMBERED = {"gate": "w1", "up": "w3", "down": "w2"}
"""The names of an expert's matrices in Mixtral, and those that follow it."""
EXPERTS = "layers.{i}.ffn.experts"
CORRECTION = "layers.{i}.ffn.router.correction"
FURTHER_MODULE, FURTHER_LAYER = ("mtp\\.",), ("layers\\.{n_layers}\\.",)
"""What predicts further tokens, which lmx leaves alone: a module of its own, or one more layer than the config has."""


def mixture(
    place: str = "mlp",
    names: Mapping[str, str] = PROJECTIONS,
    router: str = "gate",
    corrections: Sequence[str] = ("gate.", ""),
) -> list[Rule]:
    """Experts one by one, as they are published, or stacked, gate above up; and what chooses them, with its corrections in
    the one place or the other."""
    at = f"layers.{{i}}.{place}"
    return [
        *(
            Rule(f"{at}.experts.{{e}}.{theirs}.{{p}}", f"{EXPERTS}.{ours}.{{p}}", Stacked())
            for ours, theirs in names.items()
        ),
        *stacked(f"{place}.experts.gate_up_proj", f"{place}.experts.down_proj"),
        *layered("layers", {"ffn.router": f"{place}.{router}"}),
        *(Rule(f"{at}.{each}e_score_correction_bias", CORRECTION) for each in corrections),
    ]


def stacked(gate_up: str, down: str) -> list[Rule]:
    """Experts as (experts, out, in), with rows of the gate before those of up; packed ones have parts."""
    names = {gate_up: [f"{EXPERTS}.{half}" for half in ("gate", "up")], down: [f"{EXPERTS}.down"]}
    return [
        Rule(f"layers.{{i}}.{theirs}{suffix}", [f"{each}.{part}" for each in ours], Parts(len(ours), axis=1))
        for suffix, part in (("", "weight"), (".{p}", "{p}"))
        for theirs, ours in names.items()
    ]


def shared(place: str) -> list[Rule]:
    """The expert that every token goes to."""
    return layered("layers", {f"ffn.shared.{ours}": f"{place}.{theirs}" for ours, theirs in PROJECTIONS.items()})


def switched(place: str) -> list[Rule]:
    """Experts as mlx-lm stacks them."""
    return layered("layers", {f"ffn.experts.{ours}": f"{place}.{theirs}" for ours, theirs in PROJECTIONS.items()})


def sparse(model: Described) -> BlockConfig:
    """The first layer with experts."""
    block = model.first("ffn.n_experts")
    if block is None:
        raise UnfitError("no layer has experts")
    return block


def expert_keys(model: Described, names: Mapping[str, str]) -> dict[str, Any]:
    """Options of the mixture under their names, `{ours: theirs}`, those alone that say something."""
    block = sparse(model)
    found = {theirs: model.option(f"ffn.{ours}", block) for ours, theirs in names.items()}
    return {theirs: value for theirs, value in found.items() if value is not None}


def width(model: Described) -> int:
    """Of an expert."""
    block = sparse(model)
    return model.option("ffn.d_ff", block) or block.d_ff


def dense_layers(model: Described) -> list[int]:
    """The layers without experts."""
    return [i for i, block in enumerate(model.layers) if not model.knows("ffn.n_experts", block)]


def leading(model: Described) -> int:
    """How many layers without experts come first; where others follow, the model is no such family's."""
    dense = dense_layers(model)
    return next((i for i in range(len(dense)) if dense[i] != i), len(dense))


def choice(config: Config) -> dict[str, Any]:
    """How many experts there are, and how many a token takes."""
    return {
        "n_experts": config.under("num_local_experts", "num_experts", "n_routed_experts"),
        "top_k": config["num_experts_per_tok"],
    }


def choice_keys(model: Described, count: str = "num_local_experts") -> dict[str, Any]:
    return expert_keys(model, {"n_experts": count, "top_k": "num_experts_per_tok"})


def qwen_ffns(config: Config) -> list[str]:
    """Layers are sparse every so often, but for some."""
    every, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers", [])
    layers = range(config["num_hidden_layers"])
    return ["dense" if i in dense or (i + 1) % every else "sparse" for i in layers]


def qwen_ffn_keys(model: Described) -> dict[str, Any]:
    return {"decoder_sparse_step": 1, "mlp_only_layers": dense_layers(model)}
