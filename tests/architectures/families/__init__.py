"""One file a group of families: their configs as arguments of lmx's factories, their tensors under lmx's names."""

import importlib
import pkgutil

from ..hf import Family

FAMILIES: dict[str, Family] = {
    name: family
    for module in pkgutil.iter_modules(__path__)
    for name, family in importlib.import_module(f"{__name__}.{module.name}").FAMILIES.items()
}
"""By the `model_type` of a config.json."""
