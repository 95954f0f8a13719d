"""A model of mlx-lm that lmx generates with."""

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array

from lmx_core.errors import ConfigError
from lmx_core.opening import Opened
from lmx_hf.bridge.installed import mlx_lm


@attrs.frozen
class TheirConfig:
    """What is known of it."""

    vocab_size: int


class TheirModel(nn.Module):
    """A model of mlx-lm behind the interface that `lmx_core.generate` and `stream_generate` read.

    Its memories are mlx-lm's, which take in no rows of others: `generate_batch` is for one prompt at a time.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = TheirConfig(model(mx.array([[0]])).shape[-1])  # the graph alone: nothing is computed
        self.eval()

    def __call__(
        self, tokens: array, cache: Sequence[Any] | None = None, *, last_only: bool = False
    ) -> tuple[array, Sequence[Any] | None]:
        """Logits, (B, L, V), or with `last_only` (B, 1, V); and the cache."""
        logits, cache = self.hidden(tokens, cache)
        return logits[:, -1:] if last_only else logits, cache

    def hidden(self, tokens: array, cache: Sequence[Any] | None = None) -> tuple[array, Sequence[Any] | None]:
        """The logits, since mlx-lm's models do not say what their heads read; lazy, so that unread ones cost nothing."""
        return self.model(tokens, cache=cache), cache

    def logits(self, hidden: array) -> array:
        """As they are."""
        return hidden

    def make_cache(
        self, kind: str | None = None, *, length: int | Sequence[int] | None = None, **options: Any
    ) -> list[Any]:
        """mlx-lm's memories. `ConfigError` for a `kind` of lmx's."""
        if kind is not None:
            raise ConfigError(f"cache={kind!r} is one of lmx's, and a model of mlx-lm remembers in mlx-lm's own.")
        caches = mlx_lm("models.cache").make_prompt_cache(self.model)
        for cache in caches:
            if not hasattr(cache, "offset"):
                cache.offset = 0  # one that counts no tokens
            if not all(hasattr(part, "extend") for part in getattr(cache, "caches", ())):
                cache.extend = _alone  # its own is there and fails
        return caches

    def train(self, mode: bool = True) -> nn.Module:
        """`ConfigError`: it is for generating."""
        if mode:
            raise ConfigError("a model of mlx-lm generates in lmx and is trained by mlx-lm: lmx mlx-lm lora")
        return super().train(mode)

    def longest(self) -> None:
        """No limit is known."""

    def horizons(self) -> set[int]:
        return set()

    def room_after(self, prompt: int, wanted: int) -> int:
        return wanted


def _alone(other: Any) -> None:
    raise ConfigError("the memories of this model cannot join a batch. Generate for one prompt at a time.")


def from_mlx_lm(path_or_model: Any, revision: str | None = None) -> TheirModel:
    """A model that mlx-lm made, or one of a folder or repository, loaded by mlx-lm, for lmx to generate with.

    `ConfigError` for a checkpoint that brings code, which is not run.
    """
    if not isinstance(path_or_model, str | Path):
        return TheirModel(path_or_model)
    from lmx_hf.hub import fetch
    from lmx_hf.lookup import read_config

    folder = fetch(path_or_model, revision)
    if "model_file" in read_config(folder):
        raise ConfigError(f"{folder} brings code of its own, which lmx does not run.")
    return TheirModel(mlx_lm("utils").load_model(folder)[0])


def opened(place: str) -> Opened | None:
    """A model that mlx-lm alone has, which is said on standard error; None for any other."""
    from lmx_hf.hub import fetch
    from lmx_hf.lookup import read_config
    from lmx_hf.text.tokenizer import HFTokenizer

    folder = fetch(place)
    if not has_alone(read_config(folder), place):
        return None
    model: Any = from_mlx_lm(folder)  # which is no LanguageModel, and generates as one
    return Opened(model=model, tokenizer=HFTokenizer.read(folder))


def has_alone(data: Mapping[str, Any], place: str | Path) -> bool:
    """Whether mlx-lm has a model for a config.json and lmx has none. Where that is so, a person is told."""
    from lmx_hf.lookup import UnknownFamilyError, family_of

    try:
        family_of(data)
    except UnknownFamilyError:
        if found := _has(data["model_type"]):
            sys.stderr.write(f"{place}: lmx has no model of type {data['model_type']!r}, so mlx-lm's own runs.\n")
        return found
    return False


def _has(model_type: str) -> bool:
    if not model_type.isidentifier() or importlib.util.find_spec("mlx_lm") is None:
        return False
    module = mlx_lm("utils").MODEL_REMAPPING.get(model_type, model_type)
    if importlib.util.find_spec(f"mlx_lm.models.{module}") is None:
        return False
    return hasattr(mlx_lm(f"models.{module}"), "Model")
