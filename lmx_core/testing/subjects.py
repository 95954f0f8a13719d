"""What the checks run on: a module with random parameters, and inputs that suit it."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_map

from lmx_core.config import BlockConfig
from lmx_core.model import LanguageModel

SMALL = BlockConfig(
    attention="gqa",
    ffn="gated",
    norm="rms_norm",
    position="none",
    d_model=64,
    n_heads=4,
    n_kv_heads=2,
    d_ff=96,
    max_seq_len=512,
)
"""The config that the checks expect a component to be built with."""

Make = Callable[[], Any]


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters in place of the initial ones: zeros and identities hide mistakes."""
    keys = iter(mx.random.split(mx.random.key(seed), 10_000))

    def draw(weight: array) -> array:
        noise = mx.random.normal(weight.shape, key=next(keys))
        drawn = noise / weight.shape[-1] ** 0.5 if weight.ndim > 1 else 1 + 0.3 * noise
        return drawn.astype(weight.dtype)

    module.update(tree_map(draw, module.parameters()))
    return module


class Subject:
    """A module as a function of a batch of sequences: of tokens for a model, of vectors for a part of one."""

    def __init__(self, make: Make, seed: int = 0, dtype: mx.Dtype = mx.float32) -> None:
        self.module: Any = randomise(make(), seed)
        self.module.eval()
        self.module.set_dtype(dtype)
        self.dtype = dtype
        self.takes_tokens = isinstance(self.module, LanguageModel)

    def inputs(self, batch: int = 2, length: int = 33, seed: int = 1) -> array:
        key = mx.random.key(seed)
        if self.takes_tokens:
            return mx.random.randint(0, self.module.config.vocab_size, (batch, length), key=key)
        return mx.random.normal((batch, length, SMALL.d_model), key=key).astype(self.dtype)

    def __call__(self, inputs: array, cache: Any = None) -> array:
        if self.takes_tokens:
            return self.module(inputs, cache=cache)[0]
        if not hasattr(self.module, "make_cache"):
            return self.module(inputs)
        return self.module(inputs, "causal" if inputs.shape[1] > 1 else None, cache)[0]

    def longest(self, wanted: int) -> int:
        """So many tokens, or as many as the module can place."""
        return min(wanted, self.module.longest() or wanted) if self.takes_tokens else wanted

    def make_cache(self) -> Any:
        return self.module.make_cache()


def memories(cache: Any) -> list[Any]:
    """A model's caches or a mixer's one, without those of layers that keep nothing."""
    return [memory for memory in (cache if isinstance(cache, list) else [cache]) if memory is not None]
