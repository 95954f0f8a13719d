"""A model by where it is: a folder that lmx wrote, or whatever an installed distribution reads."""

import json
from pathlib import Path
from typing import Any

import attrs

from lmx_core import hooks
from lmx_core.checkpoint import CONFIG, TOKENIZER, load_model, model_directory, read_config
from lmx_core.config import ComponentSpec, ModelConfig, spec
from lmx_core.data.tokenizers import load_tokenizer, name_of
from lmx_core.errors import CheckpointError
from lmx_core.model import LanguageModel


@attrs.frozen(kw_only=True)
class Opened:
    """A model that is read."""

    model: LanguageModel
    tokenizer: Any = None
    """Of kind `tokenizer`; None where the model has none."""
    named: ComponentSpec | None = None
    """The tokenizer as a config names it."""


def open_model(place: str) -> Opened:
    """The model of a run, of a folder that `save_model` wrote, or of what a plugin opens (`lmx_opener`).

    `CheckpointError` where nobody reads it.
    """
    return _ours(model_directory(place)) if is_ours(place) else _opener(place)()


def config_of(place: str) -> ModelConfig:
    """The config of the same, for which no weights are read where the plugin can do without."""
    if is_ours(place):
        return read_config(model_directory(place))
    opener = _opener(place)
    return opener.config() if hasattr(opener, "config") else opener().model.config


def _opener(place: str) -> Any:
    openers = hooks.openers(place)
    if not openers:
        raise CheckpointError(
            f"{place} is no model of lmx, and nothing that is installed opens it. lmx-hf opens those of Hugging Face."
        )
    return openers[0]


def is_ours(place: str) -> bool:
    """Whether it is a folder, and lmx's; one that holds nothing or is damaged is lmx's, which says what is wrong with it."""
    try:
        text = (model_directory(place) / CONFIG).read_text(encoding="utf-8")
        return "model_type" not in json.loads(text)
    except (CheckpointError, OSError, ValueError, TypeError, RecursionError):
        return Path(place).is_dir()


def _ours(directory: Path) -> Opened:
    file = directory / TOKENIZER
    if not file.is_file():
        return Opened(model=load_model(directory))
    return Opened(model=load_model(directory), tokenizer=load_tokenizer(file), named=spec(name_of(file)))
