"""What hybrids of linear and softmax attention have in common."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from lmx_core.config import BlockConfig
from lmx_hf.config import Config
from lmx_hf.described import Described, UnfitError
from lmx_hf.families.unpacking import unevenly_packed
from lmx_hf.rules import Rule
from lmx_hf.transforms import Shaped, Transform

DELTA = {
    "n_key_heads": "linear_num_key_heads",
    "n_value_heads": "linear_num_value_heads",
    "key_head_dim": "linear_key_head_dim",
    "value_head_dim": "linear_value_head_dim",
    "conv_size": "linear_conv_kernel_dim",
}


def pattern(config: Config) -> list[str]:
    """Of which kind each layer is: those of `layer_types`, or else full attention every so often."""
    every = config.get("full_attention_interval", 4)
    rest = ["linear_attention" if (i + 1) % every else "full_attention" for i in range(config["num_hidden_layers"])]
    return ["linear" if each == "linear_attention" else "full" for each in config.data.get("layer_types") or rest]


def layers_of(model: Described, kind: str) -> list[int]:
    """The layers of a kind, `linear` or `full`."""
    linear = [model.knows("attention.conv_size", block) for block in model.layers]
    return [i for i, each in enumerate(linear) if each == (kind == "linear")]


def first_of(model: Described, kind: str) -> BlockConfig:
    """The first layer of a kind."""
    found = layers_of(model, kind)
    if not found:
        raise UnfitError(f"no layer has {kind} attention")
    return model.layers[found[0]]


def delta_keys(model: Described) -> dict[str, Any]:
    """What kind each layer is of, in the words of both generations, and the sizes of those with linear attention."""
    block, full = first_of(model, "linear"), layers_of(model, "full")
    sizes = {theirs: model.option(f"attention.{ours}", block) for ours, theirs in DELTA.items()}
    types = ["full_attention" if i in full else "linear_attention" for i in range(model.model.n_layers)]
    return {**sizes, "layer_types": types, "full_attention_interval": full[0] + 1 if full else len(types) + 1}


def channels(model: Described) -> tuple[int, int, int]:
    """Numbers of all queries, all keys and all values of linear attention."""
    block = first_of(model, "linear")
    option = {name: model.option(f"attention.{name}", block) for name in DELTA}
    keys = (option["n_key_heads"] or block.n_heads) * (option["key_head_dim"] or block.head_dim)
    return keys, keys, (option["n_value_heads"] or block.n_heads) * (option["value_head_dim"] or block.head_dim)


def unevenly_joined(model: Described, tensors: Mapping[str, mx.array], mixer: str, joined: Transform) -> list[Rule]:
    """Rules for layers whose queries, keys and values of linear attention, one matrix in lmx, are packed in several ways."""
    return [
        rule
        for i in layers_of(model, "linear")
        for rule in unevenly_packed(
            tensors,
            [f"layers.{i}.{mixer}.{each}_proj" for each in "qkv"],
            f"layers.{i}.attention.qkv_proj",
            model.block.d_model,
            joined,
        )
    ]


def by_channel(model: Described, last: bool = False) -> Shaped:
    """A convolution of each channel by itself: (channels, 1, kernel), or with that axis last as mlx-lm has it. Either is
    read as the other."""
    size = model.option("attention.conv_size", first_of(model, "linear"))
    return Shaped((-1, size, 1) if last else (-1, 1, size), (-1, size))
