"""A run that starts from the weights of a model."""

from collections.abc import Mapping
from typing import Any

import attrs
import mlx.core as mx
from mlx.utils import tree_map

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError
from lmx_core.exactly import NONE
from lmx_core.opening import Opened, open_model
from lmx_core.quantised import packed_modules
from lmx_core.serialize import plain, structure


def begun(table: Mapping[str, Any]) -> tuple[Mapping[str, Any], Opened | None]:
    """The table of a run with the model, and unless it names another the tokenizer, that `start` opens; and these.

    A table without `start` is returned as it is.
    """
    place = table.get("start")
    if not isinstance(place, str) or place == NONE:
        return table, None  # whatever else it is, the config's own reader says so
    opened = open_model(place)
    if "model" in table and structure(table["model"], ModelConfig, "model") != opened.model.config:
        raise ConfigError(f"the model of start={place!r} is another than [model] says. Leave [model] out to take it.")
    if packed_modules(opened.model):
        raise ConfigError(
            f"the weights of start={place!r} are packed in few bits, and such weights are not trained. Start from the model "
            "that it was made of."
        )
    opened.model.update(tree_map(_in_full, opened.model.parameters()))
    opened.model.train()
    data = table.get("data", {})
    if isinstance(data, Mapping) and "tokenizer" in data:
        opened = attrs.evolve(opened, tokenizer=None, named=None)
    elif opened.named is None:
        raise ConfigError(f"the model of start={place!r} has no tokenizer. Name one: data.tokenizer.")
    else:
        data = {**data, "tokenizer": plain(opened.named)}
    return {**table, "model": plain(opened.model.config), "data": data}, opened


def _in_full(weight: mx.array) -> mx.array:
    """Trained in float32; half precision is a matter of each step."""
    return weight.astype(mx.float32) if mx.issubdtype(weight.dtype, mx.floating) else weight
