"""Adapters that mlx-lm's `lora` trained on a model of lmx, made part of it."""

from pathlib import Path

from mlx import nn
from mlx.utils import tree_unflatten

from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.quantised import packed_modules
from lmx_hf.adapters import fused
from lmx_hf.shards import read_file

WEIGHTS = "adapters.safetensors"
PREFIX = "lmx."
"""Of the names that the parameters of lmx's models have in mlx-lm."""


def is_of_lmx(adapter: Path) -> bool:
    """Whether its tensors are named as lmx's parameters, and not as a checkpoint's."""
    file = adapter / WEIGHTS
    return file.is_file() and all(name.startswith(PREFIX) for name in read_file(file))


def fuse(model: LanguageModel, adapter: Path) -> None:
    """Add it, in place and lazily. Packed weights that it changes become dense (`lmx_hf.adapters.fused`)."""
    named = {f"{PREFIX}{name}": weight for name, weight in flat_parameters(model).items()}
    parameters = {name.removeprefix(PREFIX): weight for name, weight in fused(named, adapter).items()}
    for path in packed_modules(model):
        if f"{path}.scales" not in parameters:
            rows, columns = parameters[f"{path}.weight"].shape
            dense = nn.Linear(columns, rows, bias=f"{path}.bias" in parameters)
            model.update_modules(tree_unflatten([(path, dense)]))
    model.load_weights(list(parameters.items()))
