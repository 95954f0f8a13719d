"""Checkpoints of the hub as models of lmx."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import attrs
import mlx.core as mx
from mlx.utils import tree_unflatten

from lmx_core import quantised
from lmx_core.config import ModelConfig, spec
from lmx_core.errors import CheckpointError, ConfigError, UnknownComponentError
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.opening import Opened, is_ours, open_model
from lmx_core.registry import registry
from lmx_hf.adapters import fused, layouts
from lmx_hf.family import Family
from lmx_hf.packed import unpacked
from lmx_hf.progress import Progress
from lmx_hf.rules import Tensors, Use, reading
from lmx_hf.shards import tensors_of

if TYPE_CHECKING:
    from lmx_hf.tokenizer import HFTokenizer

CONFIG = "config.json"
Dtype = Literal["auto", "float32", "float16", "bfloat16"]
PREFIX = re.compile(
    r"^(?:language_model\.)?(?:model\.language_model\.|transformer\.|gpt_neox\.|backbone\.|model\.)?(?:decoder\.)?"
)
"""Of the whole model, or of the text part of one that also sees."""
IGNORED = re.compile(
    r"rotary_emb\.inv_freq$|\battn\.(?:attention\.)?(?:masked_)?bias$|attention\.(?:masked_)?bias$|act_fn\.(?:beta|eps)$|"
    r"^(?:vision|visual|multi_modal|audio)"
)
"""What a checkpoint may hold beside the model: buffers, and the other half of one that also sees."""
TEXT_PARTS = {
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""What the text part of a composite is, where its config does not say so."""


SHOWN = 12
"""Kinds of tensors in one list of a message."""


class UnknownFamilyError(ConfigError):
    """A `model_type` that no loader is registered for."""


@attrs.frozen
class Source:
    """Where a model was read from, for the one who writes it again: `model.source`."""

    model_type: str
    data: Mapping[str, Any]
    """Its config.json; of a composite, the text part's."""
    folder: Path


def load_from_hf(
    repo_or_path: str | Path,
    revision: str | None = None,
    dtype: Dtype = "auto",
    quantize: int | Mapping[str, Any] | None = None,
    adapter: str | Path | None = None,
) -> "tuple[LanguageModel, HFTokenizer | None]":
    """The model of a folder, or of a repository of the hub, and its tokenizer, None where it has none.

    `dtype` is that of the checkpoint unless given; what a component keeps in full precision stays so. `quantize=4`, or
    `{"bits": 4, "group_size": 64, "mode": "affine", "rules": {...}}`, packs the weights as they are read
    (`lmx_core.quantised.quantise`). `adapter` is a LoRA adapter of PEFT or mlx-lm, a folder or a repository, which is
    added to the weights; also one of `lmx mlx-lm lora`. Nothing that a checkpoint names is imported or run.

    Tensors are read one after the other, straight into their places: memory peaks at the model's size and that of the
    largest tensor that has to be turned, split or joined.
    """
    from lmx_hf.bridge.adapter import fuse, is_of_lmx
    from lmx_hf.hub import ADAPTER, fetch
    from lmx_hf.tokenizer import HFTokenizer

    folder = fetch(repo_or_path, revision)
    data = read_config(folder)
    added = None if adapter is None else fetch(adapter, kind=ADAPTER)
    of_lmx = added is not None and is_of_lmx(added)
    model = _filled(folder, data, None if of_lmx else added)
    if added is not None and of_lmx:
        fuse(model, added)
    _cast(model, dtype)
    if quantize is not None:
        model.quantised = quantised.quantise(model, **({"bits": quantize} if isinstance(quantize, int) else quantize))
    _evaluate(model, f"reading {repo_or_path}")
    model.eval()
    return model, HFTokenizer.read(folder)


def opened(place: str, **how: Any) -> Opened:
    """A model of lmx, or of `load_from_hf` with these options, those that are None or "auto" left out."""
    from lmx_hf.hub import fetch

    how = {key: value for key, value in how.items() if value not in (None, "auto")}
    folder = place if is_ours(place) else str(fetch(place, how.pop("revision", None)))
    if is_ours(folder):
        adapter = how.pop("adapter", None)
        if how:
            raise ConfigError(f"{place} is a model of lmx, which {' and '.join(how)} is not for.")
        return open_model(folder) if adapter is None else _adapted(open_model(folder), adapter)
    model, tokenizer = load_from_hf(folder, **how)
    source: Any = model.source
    named = None if tokenizer is None else spec("hf", path=str(source.folder), lossy=True)
    return Opened(model=model, tokenizer=tokenizer, named=named)


def _adapted(found: Opened, adapter: str | Path) -> Opened:
    """With an adapter that mlx-lm trained on it."""
    from lmx_hf.bridge.adapter import fuse
    from lmx_hf.hub import ADAPTER, fetch

    fuse(found.model, fetch(adapter, kind=ADAPTER))
    _evaluate(found.model, f"adding {adapter}")
    return found


def config_from_hf(config: Mapping[str, Any]) -> ModelConfig:
    """The model of a config.json, in the layout of transformers 4 or 5; of a composite, its text part."""
    return family_of(config).config(text_part(config))


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder."""
    file = folder / CONFIG
    try:
        data: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it is no table")
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}. A model's folder has a {CONFIG}.") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({type(error).__name__}: {error}). Download it again.") from None
    return data


def text_part(data: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the model that reads and writes text."""
    name = _model_type(data)
    return {"model_type": TEXT_PARTS.get(name, name), **(data.get("text_config") or data)}


def family_of(data: Mapping[str, Any]) -> Family:
    """The loader for a config.json's `model_type`."""
    name = text_part(data)["model_type"]
    try:
        return registry("loader").get(name)
    except UnknownComponentError as error:
        code = " Its folder brings code of its own, which lmx does not run." if data.get("auto_map") else ""
        own = " A package can add one: `loader.<model_type>` among its entry points, see docs/hf.md."
        raise UnknownFamilyError(f"model_type {name!r}: {error}{code}{own}") from None


def _model_type(data: Mapping[str, Any]) -> str:
    name = data.get("model_type")
    if isinstance(name, str):
        return name
    if "lmx_format" in data:
        raise ConfigError(f"{CONFIG} is lmx's own. Read the model with lmx_core.load_model.")
    raise ConfigError(f"{CONFIG} has no model_type, which says what kind of model it is.")


def _filled(folder: Path, data: Mapping[str, Any], adapter: Path | None) -> LanguageModel:
    """A model whose parameters are the checkpoint's, lazy still. `CheckpointError` has all that does not fit."""
    family, text = family_of(data), text_part(data)
    config = family.config(text)
    tensors = unpacked(tensors_of(folder), data)
    if adapter is not None:
        tensors = fused(tensors, adapter, *layouts(family.reading(config, _named(tensors)), _short(tensors)))
    named, short = _named(tensors), _short(tensors)
    beside = re.compile("|".join([IGNORED.pattern, *family.beside(config)]))
    rules = family.reading(config, named)
    whole, left = reading(
        [rule for rule in rules if rule.full], [name for name in tensors if not beside.search(short[name])]
    )
    uses, left = reading([rule for rule in rules if not rule.full], [short[name] for name in left])
    uses += whole
    tied = all("head.weight" not in use.ours for use in uses)
    model = LanguageModel(attrs.evolve(config, tie_embeddings=tied))
    parameters, failed = _translated(uses, named)
    parameters = quantised.take_packing(model, parameters)
    _check(folder, flat_parameters(model), parameters, left, failed)
    model.load_weights(list(parameters.items()))
    model.source = Source(family.model_type, text, folder)
    return model


def _short(tensors: Tensors) -> dict[str, str]:
    """Names as rules have them, by whole names."""
    return {name: PREFIX.sub("", name) for name in tensors}


def _named(tensors: Tensors) -> Tensors:
    """Under both."""
    return {**{short: tensors[name] for name, short in _short(tensors).items()}, **tensors}


def _translated(uses: Sequence[Use], named: Tensors) -> tuple[Tensors, dict[str, str]]:
    """Parameters under lmx's names; and those whose tensors have not the shape to make them of, with what is wrong."""
    parameters: Tensors = {}
    failed: dict[str, str] = {}
    for use in uses:
        try:
            arrays = use.rule.how.read([named[name] for name in use.theirs])
            parameters |= dict(zip(use.ours, map(mx.contiguous, arrays), strict=True))  # turned ones are slow
        except ValueError as error:
            shapes = " and ".join(f"{name} {named[name].shape}" for name in use.theirs[:2])
            failed |= dict.fromkeys(use.ours, f"of {shapes}: {error}")
    return parameters, failed


def _check(
    folder: Path, expected: Tensors, parameters: Tensors, left: Sequence[str], failed: Mapping[str, str]
) -> None:
    """Missing, unexpected and misshapen tensors in one list, by cause."""
    wrong = {
        name: f"{parameters[name].shape}, the config asks for {expected[name].shape}"
        for name in expected.keys() & parameters.keys()
        if expected[name].shape != parameters[name].shape
    }
    causes = {
        "missing": dict.fromkeys(expected.keys() - parameters.keys() - failed.keys(), ""),
        "unexpected": dict.fromkeys([*left, *(parameters.keys() - expected.keys())], ""),
        "of another shape": {**failed, **wrong},
    }
    if not any(causes.values()):
        return
    lines = [line for cause, found in causes.items() for line in _listed(cause, found)]
    raise CheckpointError(
        "\n".join([f"the tensors in {folder} are not those that its {CONFIG} asks for:", *lines])
        + "\nWhat is missing or of another shape has its name in lmx. Download the checkpoint again, or correct its config."
    )


def _listed(cause: str, found: Mapping[str, str]) -> Iterable[str]:
    """Names that differ in their numbers alone are one line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for name, what in sorted(found.items()):
        alike.setdefault((re.sub(r"\d+", "N", name), re.sub(r"\.\d+\.", ".N.", what)), []).append(name)
    if found:
        yield f"  {cause} ({len(found)}):"
    for (shape, what), names in list(alike.items())[:SHOWN]:
        name = names[0] if len(names) == 1 else f"{shape} ({len(names)} of them)"
        yield f"    {name} {what}".rstrip()
    if len(alike) > SHOWN:
        yield f"    and {len(alike) - SHOWN} more kinds"


def _cast(model: LanguageModel, dtype: Dtype) -> None:
    """In another precision, but for what is packed, and what a component keeps in full."""
    if dtype == "auto":
        return
    if dtype not in get_args(Dtype):
        raise ConfigError(f"dtype={dtype!r}. lmx-hf reads in {', '.join(get_args(Dtype))}.")
    kept = {f"{path}.{name}" for path, each in model.named_modules() for name in getattr(each, "full_precision", ())}
    packed = tuple(f"{path}." for path in quantised.packed_modules(model))
    wanted = getattr(mx, dtype)
    cast = {
        name: weight.astype(mx.float32 if name in kept else wanted)
        for name, weight in flat_parameters(model).items()
        if mx.issubdtype(weight.dtype, mx.floating) and not (packed and name.startswith(packed))
    }
    model.update(tree_unflatten(list(cast.items())))


def _evaluate(model: LanguageModel, doing: str) -> None:
    """Read the tensors, one by one."""
    weights = list(flat_parameters(model).values())
    with Progress(doing, sum(weight.nbytes for weight in weights)) as progress:
        while weights:
            weight = weights.pop(0)
            mx.eval(weight)
            progress.advance(weight.nbytes)
