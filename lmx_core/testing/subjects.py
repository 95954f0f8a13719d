"""What the checks run on: a module with random parameters, and inputs that suit it."""

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import attrs
import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_map

from lmx_core.block import ConfigurableBlock
from lmx_core.components.masks import Mask, padded
from lmx_core.components.positions import PositionBase
from lmx_core.components.segments import Segments, keeps_apart
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
    max_seq_len=2048,
)
"""The config that the checks build a component with, unless they are given another."""

_seed: ContextVar[int] = ContextVar("seed", default=0)


@attrs.frozen
class Make:
    """Builds a component anew each time, and says with what config. A plain function stands for one with `SMALL`."""

    build: Callable[..., Any]
    config: Any = SMALL

    def __call__(self, **extra: Any) -> Any:
        return self.build(self.config, **extra)

    def changed(self, **numbers: Any) -> "Make":
        """The same with other numbers in the config."""
        return attrs.evolve(self, config=attrs.evolve(self.config, **numbers))


Maker = Make | Callable[[], Any]


def config_of(make: Maker) -> Any:
    return make.config if isinstance(make, Make) else SMALL


@contextmanager
def seeded(seed: int) -> Generator[None, None, None]:
    """Within it the checks draw other parameters and inputs."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


def current_seed() -> int:
    return _seed.get()


def random_key(number: int) -> array:
    """The key of one draw of a check, another for each seed."""
    return mx.random.key(1000 * current_seed() + number)


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random parameters in place of the initial ones: zeros and identities hide mistakes."""
    keys = iter(mx.random.split(random_key(seed), 10_000))

    def draw(weight: array) -> array:
        if not mx.issubdtype(weight.dtype, mx.floating):
            return weight
        noise = mx.random.normal(weight.shape, key=next(keys))
        drawn = noise / weight.shape[-1] ** 0.5 if weight.ndim > 1 else 1 + 0.3 * noise
        return drawn.astype(weight.dtype)

    module.update(tree_map(draw, module.parameters()))
    return module


class Subject:
    """A module as a function of a batch of sequences: of tokens for a model, of vectors for a part of one."""

    def __init__(self, make: Maker, seed: int = 0, dtype: mx.Dtype = mx.float32) -> None:
        self.module: Any = randomise(make(), seed)
        self.module.eval()
        self.module.set_dtype(dtype)
        self.dtype = dtype
        config = config_of(make)
        self.width: int = config.d_model
        self.takes_tokens = isinstance(self.module, LanguageModel)
        self.remembers = hasattr(self.module, "make_cache")
        self._limit = self.module.longest() if self.takes_tokens else config.max_seq_len
        by_keyword = "position" in inspect.signature(self.module.__call__).parameters
        self._extra = {"position": PositionBase(config)} if by_keyword else {}  # as a block would hand it in

    def inputs(self, batch: int = 2, length: int = 33, seed: int = 1) -> array:
        key = random_key(seed)
        if self.takes_tokens:
            return mx.random.randint(0, self.module.config.vocab_size, (batch, length), key=key)
        return mx.random.normal((batch, length, self.width), key=key).astype(self.dtype)

    def __call__(self, inputs: array, cache: Any = None) -> array:
        if not self.remembers:
            return self.module(inputs)
        y, returned = self.call(inputs, cache)
        expected, found = memories(cache), memories(returned)
        assert len(expected) == len(found), f"{len(found)} caches came back of {len(expected)}"
        same = all(one is other for one, other in zip(expected, found, strict=True))
        assert same, "what came back is not the cache that was given: a cache is updated in place and returned"
        return y

    def call(self, inputs: array, cache: Any = None) -> tuple[array, Any]:
        """Output and cache of what has one."""
        if self.takes_tokens:
            return self.module(inputs, cache=cache)
        padding = getattr(cache, "padding", None)
        if padding is not None:  # as a model would say it
            return self.mixed(inputs, padded(inputs.shape[1], cache.columns, padding), cache)
        return self.mixed(inputs, "causal" if inputs.shape[1] > 1 else None, cache)

    def mixed(self, inputs: array, mask: Mask, cache: Any = None) -> tuple[array, Any]:
        """Output and cache of a mixer, or a block, with a mask of one's own."""
        return self.module(inputs, mask, cache, **self._extra)

    def of_documents(self, inputs: array, numbers: array) -> array:
        """Output for rows that hold several documents, of which each token has a number."""
        if self.takes_tokens:
            return self.module(inputs, segments=numbers)[0]
        given = segments = Segments(numbers)
        if isinstance(self.module, ConfigurableBlock):
            given = self.module.for_documents(segments)
        elif not keeps_apart(self.module):
            given = None
        return self.mixed(inputs, segments.mask, given)[0]

    def longest(self, wanted: int) -> int:
        """So many tokens, or as many as the module is built for."""
        return min(wanted, self._limit or wanted)

    def make_cache(self) -> Any:
        return self.module.make_cache()


def memories(cache: Any) -> list[Any]:
    """A model's caches or a mixer's one, without those of layers that keep nothing."""
    return [memory for memory in (cache if isinstance(cache, list | tuple) else [cache]) if memory is not None]


def close(a: array, b: array, tolerance: float = 1e-4) -> None:
    """Equal up to `tolerance`, absolute and relative to the largest number."""
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    far = largest(a - b) / max(1.0, largest(b))
    assert far <= tolerance, f"differ by {far:.3g}, allowed {tolerance:g}"


def largest(x: array) -> float:
    found: Any = mx.abs(x).max().item()
    return found
