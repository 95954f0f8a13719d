"""Which family a folder is of, by its config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmx_core.config import ModelConfig
from lmx_core.errors import ComponentError, ConfigError, UnknownComponentError
from lmx_core.registry import registry
from lmx_hf.family import Family
from lmx_hf.tables import read_table

CONFIG = "config.json"
TEXT_PARTS = {
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""What the text part of a composite is, where its config does not say so."""


class UnknownFamilyError(ConfigError):
    """A `model_type` that no loader is registered for."""


def config_from_hf(config: Mapping[str, Any]) -> ModelConfig:
    """The model of a config.json, in the layout of transformers 4 or 5; of a composite, its text part."""
    return family_of(config).config(text_part(config))


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a folder."""
    return read_table(folder / CONFIG, "a model")


def text_part(data: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the model that reads and writes text."""
    name, text = _model_type(data), data.get("text_config") or data
    if not isinstance(text, Mapping):
        raise ConfigError(f"text_config of {CONFIG} is {text!r}, and no table.")
    return {"model_type": TEXT_PARTS.get(name, name), **text}


def family_of(data: Mapping[str, Any]) -> Family:
    """The loader for a config.json's `model_type`."""
    name = str(text_part(data)["model_type"])
    try:
        return named(name)
    except UnknownComponentError as error:
        code = " Its folder brings code of its own, which lmx does not run." if data.get("auto_map") else ""
        own = " A package can add one: `loader.<model_type>` among its entry points, see docs/hf.md."
        raise UnknownFamilyError(f"model_type {name!r}: {error}{code}{own}") from None


def named(model_type: str) -> Family:
    """The family of this name; `ComponentError` where what is offered under it is none."""
    found: Any = registry("loader").get(model_type)
    if not isinstance(found, Family):
        ref = registry("loader").find(model_type)
        raise ComponentError(f"{ref.title} is no lmx_hf.Family, got {type(found).__name__}. Its author must mend it.")
    return found


def _model_type(data: Mapping[str, Any]) -> str:
    name = data.get("model_type")
    if isinstance(name, str):
        return name
    if "lmx_format" in data:
        raise ConfigError(f"{CONFIG} is lmx's own. Read the model with lmx_core.load_model.")
    raise ConfigError(f"{CONFIG} has no model_type, which says what kind of model it is.")
