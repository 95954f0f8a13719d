"""Models of lmx as folders that other programs read."""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import mlx.core as mx

from lmx_core import mup, quantised
from lmx_core.checkpoint import TOKENIZER, save_model
from lmx_core.config import ModelConfig
from lmx_core.data.tokenizers import save_tokenizer
from lmx_core.errors import ConfigError, LmxError, LmxWarning, did_you_mean
from lmx_core.files import atomically
from lmx_core.model import LanguageModel, flat_parameters, parameter_shapes
from lmx_core.registry import registry
from lmx_hf.alike import TRAINED_ALONE, differences
from lmx_hf.described import Described, UnfitError
from lmx_hf.family import Family
from lmx_hf.lookup import CONFIG, named
from lmx_hf.packed import quantisation_entry
from lmx_hf.peers import remark
from lmx_hf.progress import Progress
from lmx_hf.rules import Use, writing
from lmx_hf.shards import INDEX, WEIGHTS
from lmx_hf.transforms import Tensors

if TYPE_CHECKING:
    from lmx_core.protocols import Tokenizer
    from lmx_hf.fill import Source
    from lmx_hf.text.tokenizer import HFTokenizer

Format = Literal["hf", "mlx-lm", "lmx"]
OURS = "lmx-hf"
SHARD = 2 * 2**30
"""Bytes in one file, unless one tensor has more."""
DTYPES = {mx.float32: "float32", mx.float16: "float16", mx.bfloat16: "bfloat16"}


def export(
    model: LanguageModel,
    path: str | Path,
    format: Format = "hf",  # noqa: A002
    *,
    family: str | None = None,
    tokenizer: "Tokenizer | None" = None,
    shard_size: int = SHARD,
) -> None:
    """Write a folder that transformers (`hf`), mlx-lm (`mlx-lm`) or lmx loads, with the same logits.

    `hf` and `mlx-lm` have the names and the config of a family, that of the checkpoint that the model was read from, or
    one that says the model in full: what it says is read back and compared. `family` names another. A model of no family
    is a `ConfigError` that says what each lacks; `lmx` writes any model. Packed weights are for `mlx-lm` and `lmx`. Of muP
    `hf` and `mlx-lm` know nothing: its factor of the logits goes into the head's weights, its scale into the config.

    The folder must not exist, or be empty; it is there when all of it is written. Memory peaks at the model's size and that
    of one file.
    """
    if format not in get_args(Format):
        known = get_args(Format)
        raise ConfigError(f"format={format!r}. {did_you_mean(str(format), known)}lmx-hf writes {', '.join(known)}.")
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ConfigError(f"{path} is there already. Give a folder that is empty or does not exist yet.")
    with atomically(path) as folder:
        folder.mkdir()
        if format == "lmx":
            save_model(model, folder)
            if tokenizer is not None:
                save_tokenizer(_named(tokenizer), tokenizer, folder / TOKENIZER)
            return
        form = None if tokenizer is None else _form(tokenizer)
        with Progress(f"writing {path}", _size(model)) as progress:
            _write(model, folder, format, family, form, shard_size, progress)
        if form is not None:
            form.write(folder)


def _named(tokenizer: "Tokenizer") -> str:
    """What its class is registered as."""
    known = registry("tokenizer")
    found = next((name for name in known.names() if type(tokenizer) is known.get(name)), None)
    if found is None:
        raise ConfigError(f"{type(tokenizer).__name__} is no tokenizer that is installed or registered: none is saved.")
    return found


def _form(tokenizer: "Tokenizer") -> "HFTokenizer | None":
    """The tokenizer as others read it; None, with a warning, where it has no such form."""
    from lmx_hf.text.byte_level import hf_form

    form = hf_form(tokenizer)
    if form is None:
        what = f"the tokenizer {_named(tokenizer)!r} has no form that others read, so that the folder has none."
        warnings.warn(f"{what} Prompts are to be token ids there.", LmxWarning, stacklevel=3)
    return form


def _write(
    model: LanguageModel,
    folder: Path,
    program: Format,
    family: str | None,
    tokenizer: "HFTokenizer | None",
    shard_size: int,
    progress: Progress,
) -> None:
    packed = quantised.packed_modules(model)
    if packed and program == "hf":
        raise ConfigError(
            'the model is quantised by MLX, which transformers does not read. Take format "mlx-lm" or "lmx".'
        )
    _check_sizes(model)
    if model.config.mup_base_width is not None:
        if packed:
            raise ConfigError(
                "the model has muP (mup_base_width), whose factor of the logits cannot go into packed weights. Export it as "
                'it was before it was packed, or take format "lmx".'
            )
        model = mup.folded(model)
    chosen, data = fitting(model, family)
    mlx_lm = program == "mlx-lm"
    if mlx_lm:
        remark(chosen.model_type, Described(model.config))
    uses = _uses(chosen, model, mlx_lm)
    data = {**_token_ids(getattr(model, "source", None), tokenizer), **data}
    record = {**chosen.record(data, mlx_lm), "torch_dtype": _dtype(flat_parameters(model))}
    if packed:
        entry = quantisation_entry(packed, _modules(uses, flat_parameters(model)))
        record |= {"quantization": entry, "quantization_config": entry}
    (folder / CONFIG).write_text(json.dumps(record, indent=2), encoding="utf-8")
    _save(_shards(uses, flat_parameters(model), shard_size), folder, progress)


def _token_ids(source: "Source | None", tokenizer: "HFTokenizer | None") -> dict[str, Any]:
    """Which tokens begin, end and fill up a text: the tokenizer's, or else those of the config that was read.

    What nobody says is null: transformers would take its class's, which are of another vocabulary.
    """
    ids: dict[str, Any] = {"pad_token_id": None}
    if source is None:
        ids |= {"bos_token_id": None, "eos_token_id": None}
    else:
        ids |= {key: each for key, each in source.data.items() if key.endswith("_token_id")}
    if tokenizer is not None and tokenizer.bos_token is not None:
        ids["bos_token_id"] = tokenizer.bos_token
    if tokenizer is not None and tokenizer.eos_tokens:
        first, *more = tokenizer.eos_tokens
        ids["eos_token_id"] = [first, *more] if more else first
    return ids


def _check_sizes(model: LanguageModel) -> None:
    """The weights are those of the config, which is what is written of the model."""
    meant = parameter_shapes(LanguageModel(model.config))
    packed = tuple(f"{path}." for path in quantised.packed_modules(model))
    found = {name: shape for name, shape in parameter_shapes(model).items() if not (packed and name.startswith(packed))}
    wrong = [f"{name} {shape}, not {meant.get(name)}" for name, shape in found.items() if meant.get(name) != shape]
    if wrong:
        found_so = "; ".join(wrong[:3])
        raise ConfigError(f"the model is not what its config says: {found_so}. Give it the config that it has now.")


def fitting(model: LanguageModel, family: str | None = None) -> tuple[Family, dict[str, Any]]:
    """The family that says a model, and its config.json as that family has it: of those of lmx-hf the one that has least to
    say. Another author's is taken where it is named, or where the model was read as it."""
    source = getattr(model, "source", None)
    config = model.config
    if family is not None:
        return _said(named(family), config)
    if source is not None:
        try:
            return _said(named(source.model_type), config)
        except ConfigError:  # its config is another by now
            pass
    found: list[tuple[int, str, Family, dict[str, Any]]] = []
    lacking: dict[str, str] = {}
    for name in [ref.name for ref in registry("loader").refs() if ref.dist == OURS]:
        try:
            each, data = _said(named(f"{OURS}/{name}"), config)
            found.append((_said_in(data), name, each, data))
        except ConfigError as error:
            lacking[name] = str(error)
    if found:
        _, _, each, data = min(found, key=lambda one: one[:2])
        return each, data
    raise ConfigError(_unfit(lacking))


def _said_in(value: Any) -> int:
    """How much a config says: what is neither null, false, 0 nor empty."""
    return sum(map(_said_in, value.values())) if isinstance(value, Mapping) else bool(value)


def _said(family: Family, config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family with what its config.json says of the model; `ConfigError` where that is not all."""
    try:
        data = {"vocab_size": config.vocab_size, **family.keys(Described(config))}
        back = family.config(data, tied=config.tie_embeddings)
    except (UnfitError, LmxError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ConfigError(f"it has no config of a {family.model_type}: {error}") from None
    if config.tie_embeddings and not family.ties:
        raise ConfigError(f"a {family.model_type} has a head of its own in transformers, and the model's is tied")
    if lost := differences(config, back, ignoring=TRAINED_ALONE):
        raise ConfigError(f"a {family.model_type} is another model: {'; '.join(lost[:3])}")
    return family, {**data, "tie_word_embeddings": config.tie_embeddings}


def _unfit(lacking: Mapping[str, str]) -> str:
    shown = sorted(lacking.items(), key=lambda each: len(each[1]))[:3]
    return "\n".join(
        [
            'no family says this model, so that neither transformers nor mlx-lm can read it. format="lmx" writes it for lmx.',
            "The nearest:",
            *(f"  {name}: {why}" for name, why in shown),
        ]
    )


def _uses(family: Family, model: LanguageModel, mlx_lm: bool) -> list[Use]:
    """Which parameters make which tensors, in the order of the parameters."""
    parameters = flat_parameters(model)
    rules = family.writing(model.config, mlx_lm, bool(quantised.packed_modules(model)))
    uses, left = writing(rules, parameters, lambda name: parameters[name].shape[0])
    if left:
        raise ConfigError(f"a {family.model_type} has no place for {', '.join(sorted(left)[:5])}")
    for use in uses:
        use.theirs = use.theirs if use.rule.full else [family.full_name(name, mlx_lm) for name in use.theirs]
    return uses


def _dtype(parameters: Tensors) -> str:
    """That of most numbers: packed weights are integers, and so are their scales in some modes."""
    sizes = Counter[mx.Dtype]()
    for weight in parameters.values():
        if weight.dtype in DTYPES:
            sizes[weight.dtype] += weight.size
    return DTYPES[sizes.most_common(1)[0][0]]


def _modules(uses: Sequence[Use], parameters: Tensors) -> dict[str, list[str]]:
    """Modules with a matrix by their names in the checkpoint, and those of lmx that each is made of."""
    return {
        name.removesuffix(".weight"): [ours.removesuffix(".weight") for ours in use.ours]
        for use in uses
        for name in use.theirs
        if name.endswith(".weight") and parameters[use.ours[0]].ndim > 1
    }


def _shards(uses: Sequence[Use], parameters: Tensors, size: int) -> list[Tensors]:
    """Tensors under their full names, lazy still, file by file."""
    shards: list[Tensors] = [{}]
    used = 0
    for use in uses:
        arrays = use.rule.how.write([parameters[name] for name in use.ours])
        for name, array in zip(use.theirs, arrays, strict=True):
            if shards[-1] and used + array.nbytes > size:
                shards.append({})
                used = 0
            shards[-1][name] = array
            used += array.nbytes
    return shards


def _size(model: LanguageModel) -> int:
    return sum(weight.nbytes for weight in flat_parameters(model).values())


def _save(shards: list[Tensors], folder: Path, progress: Progress) -> None:
    sizes = [sum(array.nbytes for array in shard.values()) for shard in shards]
    names = [WEIGHTS] if len(shards) == 1 else _numbered(len(shards))
    places = {name: file for shard, file in zip(shards, names, strict=True) for name in shard}
    for file, size in zip(names, sizes, strict=True):
        mx.save_safetensors(str(folder / file), shards.pop(0), {"format": "pt"})
        progress.advance(size)
    if len(names) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _numbered(n: int) -> list[str]:
    return [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
