"""Whether two configs are one model."""

import math
from collections.abc import Iterator
from typing import Any

import attrs

from lmx_core.config import BlockConfig, ModelConfig
from lmx_core.construct import completed
from lmx_core.serialize import plain

TRAINED_ALONE = ("dropout", "balance_loss", "z_loss", "bias_update_rate")
"""Fields and options that matter to training and to nothing that a trained model computes."""


def differences(one: ModelConfig, other: ModelConfig, ignoring: tuple[str, ...] = ()) -> list[str]:
    """Fields in which two models differ, with both values; what says no more than a default would is no difference."""
    if one.n_layers != other.n_layers:
        return [f"model n_layers: {one.n_layers} and {other.n_layers}"]
    one, other = completed(one), completed(other)
    blocks = {(one.block, other.block): "block"}
    for i in range(one.n_layers):
        blocks.setdefault((one.get_block_config(i), other.get_block_config(i)), f"layer {i}")
    pairs = {where: (_in_full(a), _in_full(b)) for (a, b), where in blocks.items()}
    return [
        f"{where} {key}: {a.get(key)} and {b.get(key)}"
        for where, (a, b) in {"model": (_whole(one), _whole(other)), **pairs}.items()
        for key in {**a, **b}
        if key.rpartition(".")[2] not in ignoring and not _same(a.get(key), b.get(key))
    ]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=3e-7)
    return one == other


def _whole(config: ModelConfig) -> dict[str, Any]:
    """Fields of a model, without those of its blocks."""
    bare = attrs.evolve(config, block_configs=None, blocks={}, block_pattern=None)
    return dict(_flat({**plain(bare), "block": None, "embedding_dim": config.embedding_dim or config.block.d_model}))


def _in_full(block: BlockConfig) -> dict[str, Any]:
    """Fields of a block, with what its numbers and those of its parts are when none are given."""
    fields = plain(block) | {"head_dim": block.head_dim, "n_kv_heads": block.n_kv_heads}
    fields["attention"] = {"scale": block.head_dim**-0.5, **fields["attention"]}
    scaling = fields["position"].get("scaling") if isinstance(fields["position"], dict) else None
    if isinstance(scaling, dict) and "beta_fast" in scaling and "mscale" not in scaling:
        scaling.setdefault("attention_factor", 0.1 * math.log(scaling["factor"]) + 1)
    return dict(_flat(fields))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`a.b` for what is `{"a": {"b": ...}}`, and `a.0` for the first of a list."""
    if not isinstance(value, dict | list):
        yield path, value
        return
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in items:
        yield from _flat(each, f"{path}.{key}" if path else str(key))
