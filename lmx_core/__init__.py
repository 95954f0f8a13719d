"""lmx: language models as values of one config, built from components that are looked up by name.

Names are imported when they are first used: `import lmx_core` alone imports neither MLX nor a plugin.
"""

import importlib
from typing import TYPE_CHECKING, Any

import lmx_blas

if TYPE_CHECKING:
    from lmx_core.architectures.gpt import gpt_config as gpt_config
    from lmx_core.architectures.llama import llama_config as llama_config
    from lmx_core.block import ConfigurableBlock as ConfigurableBlock
    from lmx_core.checkpoint import load_model as load_model
    from lmx_core.checkpoint import save_model as save_model
    from lmx_core.components.attention import AttentionBase as AttentionBase
    from lmx_core.components.caches import KVCache as KVCache
    from lmx_core.components.feedforward import FFNBase as FFNBase
    from lmx_core.components.positions import PositionBase as PositionBase
    from lmx_core.config import BlockConfig as BlockConfig
    from lmx_core.config import ComponentSpec as ComponentSpec
    from lmx_core.config import ModelConfig as ModelConfig
    from lmx_core.config import spec as spec
    from lmx_core.construct import build as build
    from lmx_core.errors import LmxError as LmxError
    from lmx_core.errors import StopRun as StopRun
    from lmx_core.factories import make_config as make_config
    from lmx_core.generation import generate as generate
    from lmx_core.generation import generate_batch as generate_batch
    from lmx_core.generation import stream_batch as stream_batch
    from lmx_core.generation import stream_generate as stream_generate
    from lmx_core.hookspecs import hookimpl as hookimpl
    from lmx_core.model import LanguageModel as LanguageModel
    from lmx_core.prompt_cache import load_cache as load_cache
    from lmx_core.prompt_cache import save_cache as save_cache
    from lmx_core.registry import attention_registry as attention_registry
    from lmx_core.registry import ffn_registry as ffn_registry
    from lmx_core.registry import norm_registry as norm_registry
    from lmx_core.registry import position_registry as position_registry
    from lmx_core.train.callback import Callback as Callback
    from lmx_core.train.config import TrainConfig as TrainConfig
    from lmx_core.train.trainer import Trainer as Trainer

__version__ = "0.1.0"

lmx_blas.install()  # where Python read no .pth file; otherwise it has happened

_HOMES = {
    "architectures.gpt": ("gpt_config",),
    "architectures.llama": ("llama_config",),
    "block": ("ConfigurableBlock",),
    "checkpoint": ("load_model", "save_model"),
    "components.attention": ("AttentionBase",),
    "components.caches": ("KVCache",),
    "components.feedforward": ("FFNBase",),
    "components.positions": ("PositionBase",),
    "config": ("BlockConfig", "ComponentSpec", "ModelConfig", "spec"),
    "construct": ("build",),
    "errors": ("LmxError", "StopRun"),
    "factories": ("make_config",),
    "generation": ("generate", "generate_batch", "stream_batch", "stream_generate"),
    "hookspecs": ("hookimpl",),
    "model": ("LanguageModel",),
    "prompt_cache": ("load_cache", "save_cache"),
    "registry": ("attention_registry", "ffn_registry", "norm_registry", "position_registry"),
    "train.callback": ("Callback",),
    "train.config": ("TrainConfig",),
    "train.trainer": ("Trainer",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_HOME]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lmx_core' has no attribute {name!r}")
    from lmx_core import backend

    with backend.explained():
        value = getattr(importlib.import_module(f"lmx_core.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
