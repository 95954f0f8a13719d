"""What a layer of lmx remembers, as mlx-lm handles memories: a batch whose rows come and go."""

import warnings
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.components.cache_kinds import QuantisedCache, QuantisedOptions
from lmx_core.components.caches import KVCache
from lmx_core.components.masks import ALL
from lmx_core.errors import LmxWarning
from lmx_core.model import LanguageModel


class Memory:
    """A cache of lmx, in one of two forms: whole, one cache for all rows; or apart, a cache for each row.

    Rows stay apart while prompts are read, which mlx-lm fills up at their ends, and are joined when each of them goes on
    by one token.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts, self.n_rows = list(parts), len(parts)
        self.left: list[int] | None = None
        """Of a batch of prompts: how many tokens of each row are still to come."""
        self.saved: Any = None
        """Arrays of a file, until the model comes that knows what kind of cache they are."""

    @property
    def offset(self) -> int | array:
        """Tokens seen."""
        return self.parts[0].offset

    @property
    def state(self) -> Any:
        states = [list(part.state) for part in self.parts]
        return states[0] if len(states) == 1 else states

    @classmethod
    def from_state(cls, state: Any) -> "Memory":
        """Of a file that mlx-lm's `save_prompt_cache` wrote."""
        memory = cls([])
        memory.saved = state
        return memory

    def restore(self, cache: Any) -> None:
        """Put what a file held into the model's own cache."""
        cache.state = self.saved
        self.parts, self.n_rows, self.saved = [cache], 1, None

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def empty(self) -> bool:
        return all(_is_empty(part) for part in self.parts)

    def is_trimmable(self) -> bool:
        return all(part.is_trimmable() for part in self.parts)

    def trim(self, n: int) -> int:
        return max(part.trim(n) for part in self.parts)


class BatchMemory(Memory):
    """Of a cache that can take rows in and let them go, so that mlx-lm's server answers several requests together."""

    @classmethod
    def merge(cls, memories: "Sequence[BatchMemory]") -> "BatchMemory":
        """One batch of the rows of all; the memories themselves stay as they are."""
        return cls([row for memory in memories for row in memory.rows()])

    def rows(self) -> list[Any]:
        """A copy of each row."""
        return [self._row(i) for i in range(self.n_rows)]

    def _row(self, row: int) -> Any:
        return self.parts[0].extract(row) if len(self.parts) == 1 else self.parts[row].extract(0)

    def extract(self, row: int) -> "BatchMemory":
        return type(self)([self._row(row)])

    def filter(self, rows: Sequence[int]) -> None:
        if len(self.parts) == 1:
            self.parts[0].filter(rows)
        else:
            self.parts = [self.parts[row] for row in rows]
        self.n_rows = len(rows)

    def extend(self, other: "BatchMemory") -> None:
        if len(self.parts) == len(other.parts) == 1 and self.joins() and other.joins():
            self.parts[0].extend(other.parts[0])
        else:
            self.parts = [*self.rows(), *other.rows()]
        self.n_rows += other.n_rows

    def prepare(self, *, lengths: Sequence[int], right_padding: Sequence[int]) -> None:
        """A batch of prompts of these lengths comes, filled up at their ends."""
        self.left, self.parts = list(lengths), self.rows()

    def finalize(self) -> None:
        """It has come."""
        self.left = None

    def take(self, n: int) -> list[int]:
        """How many of the n columns that come are tokens, in each row."""
        if self.left is None:
            return [n] * self.n_rows
        taken = [min(left, n) for left in self.left]
        self.left = [left - each for left, each in zip(self.left, taken, strict=True)]
        return taken

    def joins(self) -> bool:
        """Whether the rows can go on as one batch."""
        return self.left is None and not any(_is_empty(part) for part in self.parts)

    def join(self) -> None:
        first, *others = self.parts
        for other in others:
            first.extend(other)
        self.parts = [first]


class PlainMemory(BatchMemory):
    """Of all keys and values, which mlx-lm may ask to be kept in few bits (`--kv-bits`)."""

    def to_quantized(self, group_size: int = 64, bits: int = 4) -> BatchMemory:
        quantised = QuantisedCache(ALL, QuantisedOptions(bits=bits, group_size=group_size))
        if not self.empty():
            keys, values, _ = self.parts[0].state
            quantised.update_and_fetch(keys, values)
        return BatchMemory([quantised])


KINDS = (Memory, BatchMemory, PlainMemory)


def memory_of(cache: Any) -> Memory:
    """What mlx-lm is given for a cache of lmx."""
    if type(cache) is KVCache and cache.scope == ALL:
        return PlainMemory([cache])
    able = all(hasattr(cache, name) for name in ("extend", "extract", "filter"))
    return BatchMemory([cache]) if able else Memory([cache])


def read(model: LanguageModel, tokens: array, memories: Sequence[Any]) -> array:
    """Logits after these tokens, (B, L, V), which the memories then hold too; zeros after what fills a row up."""
    if memories[0].saved is not None:
        for memory, cache in zip(memories, model.make_cache(), strict=True):
            memory.restore(cache)
    apart = len(memories[0].parts) > 1 or memories[0].left is not None
    if apart and tokens.shape[1] == 1 and all(memory.joins() for memory in memories):
        for memory in memories:
            memory.join()
        apart = False
    if not apart:
        return _read(model, tokens, memories, 0)
    taken, *_ = [memory.take(tokens.shape[1]) for memory in memories]
    return mx.concatenate([_row(model, tokens[i : i + 1], n, memories, i) for i, n in enumerate(taken)])


def _row(model: LanguageModel, tokens: array, n: int, memories: Sequence[Any], row: int) -> array:
    if n == 0:
        return mx.zeros((1, tokens.shape[1], model.config.vocab_size))
    logits = _read(model, tokens[:, :n], memories, row)
    return mx.pad(logits, [(0, 0), (0, tokens.shape[1] - n), (0, 0)])


def _read(model: LanguageModel, tokens: array, memories: Sequence[Any], part: int) -> array:
    if horizons := model.horizons():
        _warn(horizons, memories[0].parts[part].offset, tokens.shape[1])
    logits, kept = model(tokens, cache=[memory.parts[part] for memory in memories])
    for memory, cache in zip(memories, kept or (), strict=True):
        memory.parts[part] = cache
    return logits


def _warn(horizons: set[int], before: int | array, n: int) -> None:
    seen: Any = mx.max(mx.array(before)).item()
    if seen and any(seen <= horizon < seen + n for horizon in horizons):
        warnings.warn(
            f"beyond {min(horizons)} tokens the model's positions place all that came before in another way, which mlx-lm "
            "does not read again: what follows differs from lmx generate's.",
            LmxWarning,
            stacklevel=4,
        )


def _is_empty(part: Any) -> bool:
    return isinstance(part.offset, int) and part.offset == 0
