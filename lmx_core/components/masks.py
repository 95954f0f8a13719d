"""Who may look at whom. A mask is None (all visible), `"causal"`, or boolean with True = may look."""

from collections.abc import Sequence
from typing import Any

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.errors import ConfigError
from lmx_core.shapes import Bool, Int

Mask = array | str | None
CAUSAL = "causal"
some_tokens = validators.optional([validators.ge(1), validators.lt(2**31)])


def causal(length: int, offset: int = 0) -> Bool[array, "L S"]:
    """Token `offset + i` sees every token up to itself."""
    return mx.arange(offset + length)[None] <= mx.arange(offset, offset + length)[:, None]


def padded(length: int, columns: int, padding: Sequence[int]) -> Bool[array, "B 1 L S"]:
    """Causal in each row from its first token on: what stands before it in the batch is no token.

    Padding sees padding, so that its numbers, which nobody reads, stay finite.
    """
    pads = mx.array([*padding])[:, None, None, None]
    queries, keys = mx.arange(columns, columns + length)[:, None], mx.arange(columns + length)
    return (keys <= queries) & ((keys >= pads) | (queries < pads))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class Scope:
    """How much of the past a token may look at: all of it, unless something is given. A mixer has one, and a cache."""

    window: int | None = attrs.field(default=None, validator=some_tokens)
    """The last so many tokens, itself included."""
    chunk: int | None = attrs.field(default=None, validator=some_tokens)
    """Tokens of its own chunk; chunks of this size follow each other from the first token on."""
    keep: int = attrs.field(default=0, validator=validators.ge(0))
    """So many first tokens beside the window (attention sinks, arXiv:2309.17453)."""

    def first(self, position: int) -> int:
        """The oldest position, the kept ones aside, that a token at `position` may look at."""
        window = 0 if self.window is None else position - self.window + 1
        chunk = 0 if self.chunk is None else position // self.chunk * self.chunk
        return max(window, chunk, 0)

    def seen(self, n: int) -> int:
        """Tokens that the last of n looks at, itself included."""
        first = self.first(n - 1)
        return n - first + min(self.keep, first)

    def allows(self, queries: Int[array, "... L 1"], keys: Int[array, "... S"]) -> Bool[array, "... L S"] | None:
        """Which keys the queries may look at, by their positions; None where that is not limited."""
        allowed = None if self.window is None else queries - keys < self.window
        if self.chunk is not None:
            alike = queries // self.chunk == keys // self.chunk
            allowed = alike if allowed is None else allowed & alike
        return allowed if allowed is None or not self.keep else allowed | ((keys >= 0) & (keys < self.keep))

    def within(self, other: "Scope") -> "Scope":
        """What both allow, with the kept tokens of this one."""
        windows = [each.window for each in (self, other) if each.window is not None]
        chunks = [each.chunk for each in (self, other) if each.chunk is not None]
        if len(set(chunks)) > 1:
            raise ConfigError(
                f"a cache of chunks of {chunks[0]} tokens does not serve a layer of chunks of {chunks[1]}"
            )
        return Scope(window=min(windows, default=None), chunk=chunks[0] if chunks else None, keep=self.keep)


ALL = Scope()


@attrs.frozen(kw_only=True)
class View:
    """What `length` new tokens see of the keys that a cache returned: the mask, in parts, with positions.

    Nothing is computed before a part is asked for: a long prompt never needs the whole of it.
    """

    mask: Mask
    """Over all tokens so far."""
    length: int
    columns: int
    """Tokens so far in the batch, the new ones and padding included."""
    first: int = 0
    """The keys are those of the columns from here on,"""
    kept: int = 0
    """and before them those of the first so many."""
    padding: tuple[int, ...] | None = None
    scopes: tuple[Scope, ...] = ()
    places: array | None = None
    """Where each token stands in its document, (B, L), where rows hold several,"""
    hides_later: bool = False
    """and whether the mask is known to be causal."""

    @classmethod
    def of(cls, mask: Mask, length: int, total: int, cache: Any, scope: Scope = ALL) -> "View":
        """After `cache.update_and_fetch`, which returned `total` keys for `length` new tokens.

        A cache that does not say which keys it `fetched` returned the last ones.
        """
        seen = getattr(cache, "offset", total)
        places = seen if isinstance(seen, array) and seen.ndim == 2 else None
        if not (hasattr(cache, "fetched") or isinstance(seen, int)):
            raise ConfigError(
                f"a {type(cache).__name__} whose rows differ does not say which keys it `fetched`; use model.make_cache()"
            )
        kept, first = getattr(cache, "fetched", (0, seen - total if isinstance(seen, int) else 0))
        columns, padding = total - kept + first, getattr(cache, "padding", None)
        if padding is not None and not isinstance(mask, array):
            mask = padded(length, columns - length, padding)
        return cls(
            mask=mask,
            length=length,
            columns=columns,
            first=first,
            kept=kept,
            padding=padding,
            scopes=tuple({each for each in (scope, getattr(cache, "scope", ALL)) if each != ALL}),
            places=places,
            hides_later=places is not None and mask is getattr(cache, "mask", None),
        )

    def queries(self, start: int = 0, end: int | None = None) -> Int[array, "... L"]:
        """The positions of new tokens, (L,) or (B, L)."""
        before = self.columns - self.length
        return self._positions(mx.arange(before + start, before + (self.length if end is None else end)))

    def keys(self, start: int = 0, end: int | None = None) -> Int[array, "... S"]:
        """The positions of the keys, (S,) or (B, S)."""
        return self._positions(self._columns_of_keys()[start:end])

    def _positions(self, columns: array) -> array:
        if self.places is not None:
            return self.places[:, columns]
        return columns if self.padding is None else columns - mx.array(self.padding)[:, None]

    def _columns_of_keys(self) -> array:
        recent = mx.arange(self.first, self.columns)
        return mx.concatenate([mx.arange(self.kept), recent]) if self.kept else recent

    def boolean(self) -> Bool[array, "... L S"] | None:
        """Of all new tokens over all keys, for a mixer that writes its softmax out; None where all is visible."""
        allowed = self.allowed(0, self.length)
        total = self.kept + self.columns - self.first
        if isinstance(allowed, str):
            return causal(self.length, total - self.length)
        begin = self.span(0, self.length)[0]
        if not begin:
            return allowed
        rows = (1, self.length) if allowed is None else allowed.shape[:-1]
        seen = mx.ones((*rows, total - begin), mx.bool_) if allowed is None else allowed
        return mx.concatenate([mx.zeros((*rows, begin), mx.bool_), seen], axis=-1)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Which of the keys new tokens `start` to `end` can see at all, where that is known beforehand."""
        if self.places is not None:
            return self._span_of_documents(start, end)
        before, total = self.columns - self.length, self.kept + self.columns - self.first
        last = total - (self.length - end) if isinstance(self.mask, str) else total
        if self.kept or self.padding is not None or any(scope.keep for scope in self.scopes):
            return 0, last
        oldest = max((scope.first(before + start) for scope in self.scopes), default=0)
        return max(oldest - self.first, 0), last

    def _span_of_documents(self, start: int, end: int) -> tuple[int, int]:
        """Wherever they begin: a chunk is no longer than a window of its size."""
        sizes = [size for scope in self.scopes for size in (scope.window, scope.chunk) if size is not None]
        oldest = 0 if any(scope.keep for scope in self.scopes) else max((start + 1 - size for size in sizes), default=0)
        return max(oldest, 0), end if self.hides_later else self.columns

    def allowed(self, start: int, end: int) -> Mask:
        """The mask of new tokens `start` to `end` over the keys in their span."""
        begin, last = self.span(start, end)
        if self._unlimited(start, end, begin):
            if not isinstance(self.mask, array):
                return self.mask
            allowed = None
        else:
            allowed = self._in_scope(start, end, begin, last)
        own = self._of_mask(start, end, begin, last)
        return own if allowed is None else allowed if own is None else allowed & own

    def _unlimited(self, start: int, end: int, begin: int) -> bool:
        """Whether no scope and no gap rules out a key in the span."""
        if self.padding is not None or (self.kept and isinstance(self.mask, str)):
            return False
        if self.kept and not all(scope.keep for scope in self.scopes):
            return False
        newest = (self.columns - self.length + end if isinstance(self.mask, str) else self.columns) - 1
        oldest = self.first + (0 if self.kept or self.places is not None else begin)
        return all(scope.first(newest) <= oldest for scope in self.scopes)

    def _in_scope(self, start: int, end: int, begin: int, last: int) -> array | None:
        queries, keys = self.queries(start, end)[..., :, None], self.keys(begin, last)[..., None, :]
        if queries.ndim == 3:  # (B, 1, L, 1) and (B, 1, 1, S)
            queries, keys = queries[:, None], keys[:, None]
        limits = [allowed for scope in self.scopes if (allowed := scope.allows(queries, keys)) is not None]
        if self.padding is not None and limits:
            limits = [allowed | (queries < 0) for allowed in limits]  # padding sees whatever its mask says
        return None if not limits else limits[0] if len(limits) == 1 else limits[0] & limits[1]

    def _of_mask(self, start: int, end: int, begin: int, last: int) -> array | None:
        if self.mask is None:
            return None
        if isinstance(self.mask, str):
            columns = self._columns_of_keys()[begin:last]
            before = self.columns - self.length
            return columns <= mx.arange(before + start, before + end)[:, None]
        mask = self.mask if self.mask.shape[-2] == 1 else self.mask[..., start:end, :]
        if mask.shape[-1] == 1:
            return mask
        if self.kept:
            mask = mx.concatenate([mask[..., : self.kept], mask[..., self.first :]], axis=-1)
        elif self.first:
            mask = mask[..., self.first :]
        return mask[..., begin:last]
