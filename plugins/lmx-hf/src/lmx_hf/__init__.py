"""Hugging Face checkpoints, tokenizers and datasets for lmx.

Names are imported when they are first used, and what is heavy (transformers, datasets, huggingface_hub) when a function
needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmx_hf.bridge import from_mlx_lm as from_mlx_lm
    from lmx_hf.data.dataset import HFDataset as HFDataset
    from lmx_hf.data.dataset import HFDatasetOptions as HFDatasetOptions
    from lmx_hf.family import Family as Family
    from lmx_hf.load import load_from_hf as load_from_hf
    from lmx_hf.lookup import config_from_hf as config_from_hf
    from lmx_hf.rules import Rule as Rule
    from lmx_hf.save import export as export
    from lmx_hf.text.tokenizer import HFTokenizer as HFTokenizer
    from lmx_hf.text.tokenizer import HFTokenizerOptions as HFTokenizerOptions

_HOMES = {
    "bridge": ("from_mlx_lm",),
    "data.dataset": ("HFDataset", "HFDatasetOptions"),
    "save": ("export",),
    "family": ("Family",),
    "load": ("load_from_hf",),
    "lookup": ("config_from_hf",),
    "rules": ("Rule",),
    "text.tokenizer": ("HFTokenizer", "HFTokenizerOptions"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = [*_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lmx_hf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"lmx_hf.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
