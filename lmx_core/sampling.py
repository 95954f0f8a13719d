"""Filters over the logits of the next token, `(B, V) -> (B, V)`: what they rule out becomes -inf."""

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.config import exact_types
from lmx_core.shapes import Bool, Float, Int

BLOCK = 512
"""Tokens whose probabilities are added up one after another."""


def temperature(logits: Float[array, "B V"], t: float) -> Float[array, "B V"]:
    """`logits / t`: below 1 sharper, above 1 flatter."""
    return logits / t


def top_k(logits: Float[array, "B V"], k: int) -> Float[array, "B V"]:
    """Keep the k likeliest tokens, exactly k of them also where logits are equal."""
    if k >= logits.shape[-1]:
        return logits
    rest = mx.argpartition(-logits, k - 1, axis=-1)[..., k:]
    return mx.put_along_axis(logits, rest, mx.array(-mx.inf, logits.dtype), axis=-1)


def top_p(logits: Float[array, "B V"], p: float) -> Float[array, "B V"]:
    """Keep the fewest likeliest tokens whose probabilities reach p (nucleus sampling, arXiv:1904.09751)."""
    order = mx.argsort(-logits, axis=-1)
    probabilities = mx.softmax(mx.take_along_axis(logits, order, axis=-1), axis=-1, precise=True)
    before = mx.cumsum(probabilities, axis=-1) - probabilities
    kept = mx.put_along_axis(
        mx.zeros(logits.shape, mx.bool_), order, (before < p) | (mx.arange(logits.shape[-1]) == 0), axis=-1
    )
    return mx.where(kept, logits, -mx.inf)


def min_p(logits: Float[array, "B V"], p: float) -> Float[array, "B V"]:
    """Keep tokens at least p times as likely as the likeliest (arXiv:2407.01082)."""
    if p == 0:
        return logits
    return mx.where(logits >= logits.max(axis=-1, keepdims=True) + mx.log(mx.array(p)), logits, -mx.inf)


def repetition_penalty(logits: Float[array, "B V"], seen: Bool[array, "B V"], penalty: float) -> Float[array, "B V"]:
    """Divide the positive logits of seen tokens by `penalty` and multiply the negative ones (CTRL, arXiv:1909.05858)."""
    return mx.where(seen, mx.where(logits > 0, logits / penalty, logits * penalty), logits)


def drawn(
    logits: Float[array, "B V"], chance: Float[array, "B"], chance_of_block: Float[array, "B"]
) -> Int[array, "B"]:
    """The first token of each row whose cumulated probability exceeds the row's `chance`, from [0, 1).

    A large vocabulary is drawn from in two steps, a block of tokens and then one of its tokens: in float32 the sum over all
    tokens has no room for the rare ones, which together may have most of a percent.
    """
    rows, size = logits.shape
    weights = mx.exp(logits - logits.max(axis=-1, keepdims=True))
    if size <= BLOCK:
        return _chosen(weights, chance)
    blocks = mx.pad(weights, [(0, 0), (0, -size % BLOCK)]).reshape(rows, -1, BLOCK)
    block = _chosen(blocks.sum(axis=-1), chance_of_block)
    return block * BLOCK + _chosen(blocks[mx.arange(rows), block], chance)


def _chosen(weights: Float[array, "B V"], chance: Float[array, "B"]) -> Int[array, "B"]:
    cumulated = mx.cumsum(weights, axis=-1)
    total = cumulated[:, -1:]
    passed = cumulated <= chance[:, None] * total
    return (passed & (cumulated < total)).sum(axis=-1)  # the sum may round a chance below 1 up to all of it


def uniform(key: Int[array, "2"]) -> Float[array, ""]:
    return mx.random.uniform(key=key)


def another(key: Int[array, "2"]) -> Int[array, "2"]:
    return mx.random.split(key)[0]


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class Sampling:
    """How the next token is drawn: penalty, then temperature, then the three truncations, then chance."""

    temperature: float = attrs.field(default=1.0, validator=validators.ge(0))
    """0 takes the likeliest token."""
    top_k: int | None = attrs.field(default=None, validator=validators.optional(validators.ge(1)))
    top_p: float | None = attrs.field(default=None, validator=validators.optional([validators.gt(0), validators.le(1)]))
    min_p: float | None = attrs.field(default=None, validator=validators.optional([validators.ge(0), validators.le(1)]))
    repetition_penalty: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))

    def filtered(self, logits: Float[array, "B V"], seen: Bool[array, "B V"] | None = None) -> Float[array, "B V"]:
        """The logits that the token is drawn from; `seen` marks the tokens of the prompt and of the answer so far."""
        if self.repetition_penalty is not None and seen is not None:
            logits = repetition_penalty(logits, seen, self.repetition_penalty)
        if self.temperature > 0:
            logits = temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = top_k(logits, self.top_k)
        if self.top_p is not None:
            logits = top_p(logits, self.top_p)
        if self.min_p is not None:
            logits = min_p(logits, self.min_p)
        return logits

    def draw(
        self, logits: Float[array, "B V"], seen: Bool[array, "B V"] | None = None, key: Int[array, "*B 2"] | None = None
    ) -> Int[array, "B"]:
        """One token a row; of a key for each row, (B, 2), each row's own chance."""
        logits = self.filtered(logits.astype(mx.float32), seen)
        if self.temperature == 0:
            return mx.argmax(logits, axis=-1)
        if key is None or key.ndim == 1:
            return mx.random.categorical(logits, key=key)
        return drawn(logits, mx.vmap(uniform)(key), mx.vmap(uniform)(mx.vmap(another)(key)))
