"""Adapters as mlx-lm writes them."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from mlx.core import array

from lmx_core.errors import CheckpointError
from lmx_hf.adapters.changes import Adapter, LowRank, Misfit, Wanted, Whole
from lmx_hf.adapters.names import is_embedding
from lmx_hf.transforms import Tensors

PARTS = ("lora_a", "lora_b", "m")
KINDS = ("lora", "dora", "full")


def read(config: Mapping[str, Any], tensors: Tensors) -> Adapter:
    """`lora_a` (in, R) and `lora_b` (R, out), of experts (E, R, in) and (E, out, R), with `m` (out,) where it is DoRA.

    The scale is the factor itself: neither alpha nor rank plays a part. A tied head is the embedding itself, so it
    changes too. Of which layers there are adapters, the names alone say.
    """
    kind = config.get("fine_tune_type", "lora")
    if kind not in KINDS:
        raise CheckpointError(f"fine_tune_type={kind!r} is no adapter of mlx-lm that lmx reads: {', '.join(KINDS)}")
    if kind == "full":
        whole = tuple(Wanted((name,), ((name, Whole(value)),)) for name, value in tensors.items())
        return Adapter(whole, head_follows=True, whole_of_mlx_lm=True)
    return _low_rank(_scale(config), tensors, needed=PARTS if kind == "dora" else PARTS[:2])


def _scale(config: Mapping[str, Any]) -> float:
    stated: Any = config.get("lora_parameters")
    scale: Any = stated.get("scale") if isinstance(stated, dict) else None
    if type(scale) not in (int, float):
        raise CheckpointError(
            f"lora_parameters of the adapter has scale={scale!r}. It is the factor of lora_a @ lora_b, a number; write it "
            "into adapter_config.json (old versions of mlx-lm took alpha / rank)."
        )
    return float(scale)


def _low_rank(scale: float, tensors: Tensors, needed: tuple[str, ...]) -> Adapter:
    modules: dict[str, dict[str, array]] = defaultdict(dict)
    problems: list[tuple[str, str]] = []
    for name, value in tensors.items():
        module, _, part = name.rpartition(".")
        if module and part in needed:
            modules[module][part] = value
        else:
            problems.append((name, f"is none of {', '.join(needed)}, which such an adapter has"))
    wanted: list[Wanted] = []
    for module, parts in modules.items():
        sources = tuple(f"{module}.{part}" for part in parts)
        try:
            if missing := [part for part in needed if part not in parts]:
                raise Misfit(f"has no {' and no '.join(missing)} beside it")
            wanted.append(Wanted(sources, ((f"{module}.weight", _change(module, scale, parts)),)))
        except Misfit as fault:
            problems.append((" and ".join(sources), str(fault)))
    return Adapter(tuple(wanted), head_follows=True, problems=tuple(problems))


def _change(module: str, scale: float, parts: Mapping[str, array]) -> LowRank:
    a, b = parts["lora_a"], parts["lora_b"]
    if b.ndim == 3:
        return LowRank(a, b, scale, parts.get("m"))
    if is_embedding(module):  # looked up by rows: (V, R) and (R, width)
        return LowRank(b, a, scale, parts.get("m"))
    return LowRank(a.T, b.T, scale, parts.get("m"))
