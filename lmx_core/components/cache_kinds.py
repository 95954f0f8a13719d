"""Other ways to keep keys and values, each by what it does otherwise than the cache of all of them."""

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.components.caches import KVCache, Parts
from lmx_core.components.masks import Scope, some_tokens
from lmx_core.config import at_least_one, exact_types
from lmx_core.shapes import Float


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class RotatingOptions:
    """Options of `cache="rotating"`."""

    max_size: int = attrs.field(default=1024, validator=at_least_one)
    """Tokens that a token sees of the past, itself included, the kept ones aside."""
    keep: int = attrs.field(default=0, validator=validators.ge(0))
    """So many first tokens stay visible, without which models lose track (arXiv:2309.17453)."""


class RotatingCache(KVCache):
    """The last tokens alone, whatever the layer could look at: memory that does not grow.

    In a batch the first tokens of a short row lie late; with `keep` all columns before them are held.
    """

    Options = RotatingOptions

    def __init__(self, scope: Scope, options: RotatingOptions) -> None:
        super().__init__(Scope(window=options.max_size, keep=options.keep).within(scope))
        self.options = options


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ChunkedOptions:
    """Options of `cache="chunked"`."""

    chunk_size: int = attrs.field(default=8192, validator=at_least_one)
    """Tokens after which the past is forgotten."""


class ChunkedCache(KVCache):
    """The tokens of the current chunk alone, as Llama 4's local layers look at them."""

    Options = ChunkedOptions

    def __init__(self, scope: Scope, options: ChunkedOptions) -> None:
        super().__init__(Scope(chunk=options.chunk_size).within(scope))
        self.options = options


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class QuantisedOptions:
    """Options of `cache="quantised"`."""

    bits: int = attrs.field(default=8, validator=validators.in_((2, 3, 4, 5, 6, 8)))
    group_size: int = attrs.field(default=64, validator=validators.in_((32, 64, 128)))
    """Numbers that share a scale; a head that is no multiple of it is filled up with zeros."""
    max_size: int | None = attrs.field(default=None, validator=some_tokens)
    """As of `rotating`; all tokens unless given."""
    keep: int = attrs.field(default=0, validator=validators.ge(0))


class QuantisedCache(KVCache):
    """Keys and values in few bits: `bits + 32 / group_size` a number in half precision, expanded where they are read.

    It goes with any scope, and with batches: it differs from others only in how it holds a tensor.
    """

    Options = QuantisedOptions

    def __init__(self, scope: Scope, options: QuantisedOptions) -> None:
        super().__init__(Scope(window=options.max_size, keep=options.keep).within(scope))
        self.options = options

    def encode(self, x: Float[array, "B K L E"]) -> Parts:
        missing = -x.shape[-1] % self.options.group_size
        x = mx.pad(x, [(0, 0), (0, 0), (0, 0), (0, missing)]) if missing else x
        return tuple(mx.quantize(x, group_size=self.options.group_size, bits=self.options.bits))

    def decode(self, parts: Parts, width: int) -> Float[array, "B K S E"]:
        whole = mx.dequantize(*parts, group_size=self.options.group_size, bits=self.options.bits)
        return whole[..., :width]
