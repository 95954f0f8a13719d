"""A checkpoint's tensors as a model's parameters."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from lmx_core import quantised
from lmx_core.errors import CheckpointError
from lmx_core.model import LanguageModel, flat_parameters
from lmx_hf.adapters import fused, layouts
from lmx_hf.lookup import CONFIG, family_of, text_part
from lmx_hf.packed import unpacked
from lmx_hf.rules import Use, reading
from lmx_hf.shards import tensors_of
from lmx_hf.transforms import Parts, Same, Tensors

PREFIX = re.compile(
    r"^(?:language_model\.)?(?:model\.language_model\.|transformer\.|gpt_neox\.|backbone\.|model\.)?(?:decoder\.)?"
)
"""Of the whole model, or of the text part of one that also sees."""
IGNORED = re.compile(
    r"rotary_emb\.inv_freq$|\battn\.(?:attention\.)?(?:masked_)?bias$|attention\.(?:masked_)?bias$|act_fn\.(?:beta|eps)$|"
    r"^(?:vision|visual|multi_modal|audio)"
)
"""What a checkpoint may hold beside the model: buffers, and the other half of one that also sees."""
SHOWN = 12
"""Kinds of tensors in one list of a message."""


@attrs.frozen
class Source:
    """Where a model was read from, for the one who writes it again: `model.source`."""

    model_type: str
    data: Mapping[str, Any]
    """Its config.json; of a composite, the text part's."""
    folder: Path


def filled(folder: Path, data: Mapping[str, Any], adapter: Path | None) -> tuple[LanguageModel, bool]:
    """A model whose parameters are the checkpoint's, lazy still, and whether each is a tensor as it is stored, or a part of
    one. `CheckpointError` has all that does not fit."""
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
    return model, adapter is None and all(isinstance(use.rule.how, Same | Parts) for use in uses)


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
            parameters |= dict(zip(use.ours, arrays, strict=True))
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
