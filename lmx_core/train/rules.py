"""What must hold between the parts of a run. None of it needs the data, the weights or a GPU."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs

from lmx_core.block import ConfigurableBlock
from lmx_core.config import BlockConfig, ComponentSpec, ModelConfig
from lmx_core.construct import build
from lmx_core.data.corpus import DataConfig
from lmx_core.errors import LmxError
from lmx_core.model import LanguageModel
from lmx_core.recompute import TWICE
from lmx_core.registry import registry
from lmx_core.train.config import RunConfig, TrainConfig
from lmx_core.train.groups import freeze_problem, groups_problem

Problem = tuple[str, str]


def problems(config: RunConfig, *, vocabulary_stated: bool) -> list[Problem]:
    """(path, message) of every rule that shows only when the parts meet.

    The model is built part by part and then as a whole, but none of its weights is computed.
    """
    found = [
        *_parts(config.train, "train"),
        *_tried("train.trainer", partial(build, "trainer", config.train.trainer, config)),
    ]
    for path, block in _blocks(config.model):
        found += _parts(block, path) or list(_tried(path, partial(ConfigurableBlock, block)))
    found = found or [*_tried("model", partial(_whole, config))]
    size = known_vocabulary(config.data)
    if vocabulary_stated and size is not None and (problem := vocabulary_problem(config, size)):
        found.append(("model.vocab_size", problem))
    return found


def known_vocabulary(data: DataConfig) -> int | None:
    """How many tokens the tokenizer has, or None where it knows that only once it has read the data."""
    size = getattr(registry("tokenizer").get(data.tokenizer.name), "vocab_size", None)
    return size if isinstance(size, int) else None


def vocabulary_problem(config: RunConfig, size: int) -> str | None:
    """Why a vocabulary that a config states does not do for a tokenizer of `size` tokens, or None."""
    stated = config.model.vocab_size
    if stated >= size:
        return None
    return (
        f"model.vocab_size={stated} is too small: tokenizer {config.data.tokenizer} has {size} tokens. "
        "Leave it out to take the tokenizer's."
    )


def training_problem(model: LanguageModel, config: TrainConfig) -> str | None:
    """Why the model cannot be trained so, or None."""
    longest = model.longest()
    if longest is not None and config.seq_len > longest:
        return f"train.seq_len={config.seq_len} is longer than the model's max_seq_len={longest}"
    dropout = max(layer.config.dropout for layer in model.layers)
    if config.recompute_every and dropout:
        return f"train.recompute_every={config.recompute_every} needs dropout = 0, got {dropout}: {TWICE}"
    return freeze_problem(model, config.freeze) or groups_problem(model, config)


def _whole(config: RunConfig) -> None:
    if problem := training_problem(LanguageModel(config.model), config.train):
        raise LmxError(problem)


def _blocks(model: ModelConfig) -> Iterator[tuple[str, BlockConfig]]:
    """Each block that differs from those before it, with its path."""
    if model.block_configs is None:
        yield "model.block", model.block
        return
    blocks = model.block_configs
    yield from ((f"model.block_configs[{i}]", block) for i, block in enumerate(blocks) if block not in blocks[:i])


def _parts(config: Any, path: str) -> list[Problem]:
    """What keeps the components of a config from being built, each by itself; what several say is said once."""
    found: list[Problem] = []
    for field in attrs.fields(type(config)):
        chosen = None if field.metadata.get("of") else getattr(config, field.name)
        several = isinstance(chosen, tuple)
        for i, each in enumerate(chosen if several else (chosen,)):
            if isinstance(each, ComponentSpec):
                where = f"{path}.{field.alias}[{i}]" if several else f"{path}.{field.alias}"
                tried = _tried(where, partial(build, field.metadata["kind"], each, config))
                found += [new for new in tried if new[1] not in [message for _, message in found]]
    return found


def _tried(path: str, make: Callable[[], Any]) -> Iterator[Problem]:
    try:
        make()
    except LmxError as error:
        yield path, str(error)
