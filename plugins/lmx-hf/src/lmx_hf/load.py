"""Checkpoints of the hub as models of lmx."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_unflatten

from lmx_core import quantised
from lmx_core.config import spec
from lmx_core.errors import ConfigError, did_you_mean
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.opening import Opened, is_ours, open_model
from lmx_hf.fill import filled
from lmx_hf.lookup import read_config
from lmx_hf.progress import Progress

if TYPE_CHECKING:
    from lmx_hf.text.tokenizer import HFTokenizer

SHARE = 1 / 16
"""Of a model, what is read together where tensors are not taken as they are, and each is held twice for a while."""
DTYPES = ("auto", "float32", "float16", "bfloat16")


def load_from_hf(
    repo_or_path: str | Path,
    revision: str | None = None,
    dtype: str = "auto",
    quantize: Any = None,
    adapter: str | Path | None = None,
) -> "tuple[LanguageModel, HFTokenizer | None]":
    """The model of a folder, or of a repository of the hub, and its tokenizer, None where it has none.

    `dtype`, `"float32"`, `"float16"` or `"bfloat16"`, is that of the checkpoint unless given; what a component keeps in full
    precision stays so. `quantize=4`, or `{"bits": 4, "group_size": 64, "mode": "affine", "rules": {...}}`, packs the weights
    as they are read (`lmx_core.quantised.quantise`). `adapter` is a LoRA adapter of PEFT or mlx-lm, a folder or a repository,
    which is added to the weights; also one of `lmx mlx-lm lora`. Nothing that a checkpoint names is imported or run.

    Tensors are read one after the other, straight into their places: memory peaks at the model's size and that of the
    largest tensor that has to be turned, split or joined.
    """
    from lmx_hf.bridge.adapter import fuse, is_of_lmx
    from lmx_hf.hub import ADAPTER, fetch
    from lmx_hf.text.tokenizer import HFTokenizer

    _check_dtype(dtype)
    packing = None if quantize is None else _packing(quantize)  # mistakes are told before anything is fetched
    folder = fetch(repo_or_path, revision)
    data = read_config(folder)
    added = None if adapter is None else fetch(adapter, kind=ADAPTER)
    of_lmx = added is not None and is_of_lmx(added)
    model, as_stored = filled(folder, data, None if of_lmx else added)
    if added is not None and of_lmx:
        fuse(model, added)
    _cast(model, dtype)
    if packing is not None:
        model.quantised = quantised.quantise(model, **packing)
    _evaluate(model, f"reading {repo_or_path}", at_once=as_stored and dtype == "auto")
    model.eval()
    return model, HFTokenizer.read(folder)


def opened(place: str, **how: Any) -> Opened:
    """A model of lmx, or of `load_from_hf` with these options, those that are None or "auto" left out."""
    from lmx_hf.hub import fetch

    how = {key: value for key, value in how.items() if value not in (None, "auto")}
    folder = place if is_ours(place) else str(fetch(place, how.pop("revision", None)))
    if is_ours(folder):
        return _ours(place, open_model(folder), **how)
    model, tokenizer = load_from_hf(folder, **how)
    source: Any = model.source
    named = None if tokenizer is None else spec("hf", path=str(source.folder), lossy=True)
    return Opened(model=model, tokenizer=tokenizer, named=named)


def _packing(quantize: Any) -> Mapping[str, Any]:
    """The arguments of `quantise`."""
    if isinstance(quantize, int):
        return {"bits": quantize}
    known = ("bits", "group_size", "mode", "rules")
    if not isinstance(quantize, Mapping):
        raise ConfigError(f"quantize={quantize!r}. Give a number of bits, or a table of {', '.join(known)}.")
    for key in quantize:
        if key not in (*known, "progress"):
            raise ConfigError(f"quantize has {key!r}. {did_you_mean(str(key), known)}It may have {', '.join(known)}.")
    rules = quantize.get("rules", {})
    if not isinstance(rules, Mapping):
        raise ConfigError(f"rules={rules!r} is no table of what becomes of modules: {{'layers.0.*': 8, 'head': False}}")
    for pattern, rule in rules.items():
        if not isinstance(rule, int | Mapping) and rule != quantised.DENSE:
            raise ConfigError(f"rule {pattern!r} is {rule!r}. It is a number of bits, {quantised.DENSE!r}, or a table.")
    return quantize


def _ours(place: str, found: Opened, adapter: str | Path | None = None, dtype: str = "auto", **more: Any) -> Opened:
    """A model of lmx: in another precision, and with an adapter that mlx-lm trained on it."""
    if more:
        raise ConfigError(f"{place} is a model of lmx, which {' and '.join(more)} is not for. Leave it out.")
    if adapter is not None:
        from lmx_hf.bridge.adapter import fuse
        from lmx_hf.hub import ADAPTER, fetch

        fuse(found.model, fetch(adapter, kind=ADAPTER))
    _check_dtype(dtype)
    _cast(found.model, dtype)
    _evaluate(found.model, f"reading {place}")
    return found


def _check_dtype(dtype: Any) -> None:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}. {did_you_mean(str(dtype), DTYPES)}lmx-hf reads in {', '.join(DTYPES)}.")


def _cast(model: LanguageModel, dtype: str) -> None:
    """In another precision, but for what is packed, and what a component keeps in full."""
    if dtype == "auto":
        return
    kept = {f"{path}.{name}" for path, each in model.named_modules() for name in getattr(each, "full_precision", ())}
    packed = tuple(f"{path}." for path in quantised.packed_modules(model))
    wanted = getattr(mx, dtype)
    cast = {
        name: weight.astype(mx.float32 if name in kept else wanted)
        for name, weight in flat_parameters(model).items()
        if mx.issubdtype(weight.dtype, mx.floating) and not (packed and name.startswith(packed))
    }
    model.update(tree_unflatten(list(cast.items())))


def _evaluate(model: LanguageModel, doing: str, at_once: bool = False) -> None:
    """Read the tensors, a few at a time, or where nobody looks on and none is held twice all at once, which is faster."""
    weights = list(flat_parameters(model).values())
    total = sum(weight.nbytes for weight in weights)
    with Progress(doing, total) as progress:
        room = total if at_once and not progress.shown else SHARE * total
        some, size = list[mx.array](), 0
        for weight in weights:
            some.append(weight)
            size += weight.nbytes
            if size >= room or weight is weights[-1]:
                mx.eval(some)
                progress.advance(size)
                some, size = [], 0
