"""The one language model: embedding, blocks, norm, head."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core import hooks, mup, quantised
from lmx_core.block import ConfigurableBlock
from lmx_core.components.embedding import Embedding
from lmx_core.components.masks import CAUSAL, Mask, padded
from lmx_core.components.segments import Segments
from lmx_core.config import BlockConfig, ComponentSpec, ModelConfig
from lmx_core.construct import build, filled
from lmx_core.errors import ConfigError
from lmx_core.recompute import recomputed
from lmx_core.registry import registry
from lmx_core.shapes import Float, Int

READ_BY_POSITIONS = ("d_model", "n_heads", "head_dim", "rope_theta", "max_seq_len")
"""What a position may depend on; layers that differ in other numbers share it."""


class LanguageModel(nn.Module):
    """A decoder, `tokens -> logits`.

    The parameters are lazy until they are used or evaluated, so that a model too large for the machine can be counted.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.embedding_dim or config.block.d_model
        self.embed = Embedding(config.vocab_size, width)
        if width != config.block.d_model:
            self.project_in = nn.Linear(width, config.block.d_model, bias=False)
            self.project_out = nn.Linear(config.block.d_model, width, bias=False)
        if config.embedding_norm is not None:
            self.embedding_norm = build("norm", config.embedding_norm, config.block)
        self.dropout = nn.Dropout(config.block.dropout)
        shared: list[tuple[Any, Any]] = []
        self.recompute_every = 0
        """With 1 each block, with 2 every second one, ... is computed anew for its gradient in training; with 0 none."""
        self.layers = [self._layer(i, shared) for i in range(config.n_layers)]
        self.positions = [position for _, position in shared]
        if config.final_norm is not None or not self.layers[-1].layout.normalised:
            self.norm = build("norm", config.final_norm or config.block.norm, config.block)
        if not config.tie_embeddings:
            self.head = nn.Linear(width, config.vocab_size, bias=config.head_bias)
        elif config.head_bias:
            self.head_bias = mx.zeros((config.vocab_size,))
        mup.initialise(self)
        hooks.model_built(self)

    def _layer(self, i: int, shared: list[tuple[Any, Any]]) -> ConfigurableBlock:
        block = mup.block_of(self.config, self.config.get_block_config(i))
        try:
            key = _position_key(block)
            found = [position for other, position in shared if other == key]
            if not found:
                found = [build("position", block.position, block)]
                shared.append((key, *found))
            return ConfigurableBlock(block, found[0])
        except ConfigError as error:
            raise ConfigError(f"model.{self.config.where(i)}: {error}") from None

    def __call__(
        self,
        tokens: Int[array, "B L"] | None = None,
        cache: Sequence[Any] | None = None,
        *,
        segments: Int[array, "B L"] | None = None,
        embeddings: Float[array, "B L D"] | None = None,
        last_only: bool = False,
        return_hidden: bool = False,
    ) -> tuple[Any, Sequence[Any] | None]:
        """Logits for the token after each, (B, L, V); with `cache=model.make_cache()` tokens continue what it holds.

        `segments` numbers the documents of each row, which lie one after the other: a new one begins where the number
        changes. The logits are those of each document by itself: none sees another, and positions begin anew.
        `ConfigError` with a cache, or where a layer's mixer cannot keep them apart.
        `embeddings` stand in place of tokens, as `model.embed_tokens(tokens)` gives them. With `last_only` the logits are
        those of the last position, (B, 1, V): a prompt needs no others. With `return_hidden` what the head read, (B, L, D),
        comes beside the logits: `(logits, hidden), cache`.
        """
        hidden, kept = self.hidden(tokens, cache, segments=segments, embeddings=embeddings)
        logits = self.logits(hidden[:, -1:] if last_only else hidden)
        return (logits, hidden) if return_hidden else logits, kept

    def hidden(
        self,
        tokens: Int[array, "B L"] | None = None,
        cache: Sequence[Any] | None = None,
        *,
        segments: Int[array, "B L"] | None = None,
        embeddings: Float[array, "B L D"] | None = None,
        return_all: bool = False,
    ) -> tuple[Any, Sequence[Any] | None]:
        """What the head reads, (B, L, D), and the cache.

        With `return_all` a list instead: the stream before the first block and after each one, that after the last as the
        head reads it.
        """
        if (tokens is None) == (embeddings is None):
            raise ConfigError("a model reads tokens or embeddings in place of them. Give one of the two.")
        caches: Sequence[Any] = [None] * len(self.layers) if cache is None else cache
        if len(caches) != len(self.layers):
            raise ConfigError(f"a cache for {len(caches)} layers was given to a model of {len(self.layers)}")
        x: Any = embeddings if tokens is None else self.embed_tokens(tokens)
        first: Any = next((layer for layer in caches if layer is not None), None)
        if segments is not None:
            if cache is not None:
                raise ConfigError("a cache goes on with one document a row: give segments or a cache, not both")
            first = Segments.of(segments, x.shape[:2], self.longest())
            caches = self._for_documents(first)
        for what, sizes in (("padding", [x.shape[0]]), ("length", [x.shape[0], 1])):
            rows = getattr(first, what, None)
            if rows is not None and len(rows) not in sizes:
                raise ConfigError(f"the cache has a {what} for {len(rows)} rows, but the batch has {x.shape[0]}")
        offset = 0 if first is None else first.offset
        for position in self.positions:
            x = position.embed(x, offset)
        x = self.dropout(x)
        mask = _mask(x.shape[1], first)
        kept: list[Any] = []
        states = [x]
        for i, (layer, memory) in enumerate(zip(self.layers, caches, strict=True)):
            if self.training and cache is None and self.recompute_every and i % self.recompute_every == 0:
                x = recomputed(layer, x, mask, memory)
            else:
                x, memory = layer(x, mask, memory)
            kept.append(memory)
            states.append(x)
        if "norm" in self:
            states[-1] = x = self.norm(x)
        return states if return_all else x, None if cache is None else kept

    def _for_documents(self, segments: Segments) -> list[Segments | None]:
        """What each layer is given in place of a cache."""
        given: list[Segments | None] = []
        for i, layer in enumerate(self.layers):
            try:
                given.append(layer.for_documents(segments))
            except ConfigError as error:
                raise ConfigError(f"model.{self.config.where(i)}: {error}") from None
        return given

    def embed_tokens(self, tokens: Int[array, "B L"]) -> Float[array, "B L D"]:
        """The embeddings of tokens as the first block reads them, positions aside."""
        x = self.embed(tokens)
        if "project_in" in self:
            x = self.project_in(x)
        if self.config.embedding_multiplier != 1:
            x = x * self.config.embedding_multiplier
        return self.embedding_norm(x) if "embedding_norm" in self else x

    def logits(self, hidden: Float[array, "B L D"]) -> Float[array, "B L V"]:
        """Of the token after each position, from what `hidden` returns."""
        x = self.project_out(hidden) if "project_out" in self else hidden
        if (wider := mup.widening(self.config)) != 1:
            x = x / wider
        logits = self.head(x) if "head" in self else self.embed.as_linear(x)
        if "head_bias" in self:
            logits = logits + self.head_bias
        if self.config.logit_multiplier != 1:
            logits = logits * self.config.logit_multiplier
        cap = self.config.logit_softcap
        return logits if cap is None else cap * mx.tanh(logits / cap)

    def make_cache(
        self,
        kind: str | None = None,
        *,
        padding: Sequence[int] | None = None,
        length: int | Sequence[int] | None = None,
        **options: Any,
    ) -> list[Any]:
        """An empty memory for each layer.

        `kind` is a cache by name, with its options: `make_cache("quantised", bits=4)`, `make_cache("rotating",
        max_size=1024, keep=4)`. Layers whose memory holds no keys (recurrent ones) keep their own. `padding` says by how
        much each row of a batch is filled up, at its beginning; `length`, how many tokens each row will have, matters to
        positions that depend on it (`dynamic` and `longrope` scaling) when a prompt is read in parts.
        """
        if kind is not None:  # also where no layer is going to use it
            filled("cache", registry("cache").get(kind), ComponentSpec(kind, options))
        elif options:
            raise ConfigError(f"{', '.join(options)}: options of a kind of cache, and no kind is given")
        caches = [layer.make_cache(kind, **options) for layer in self.layers]
        for layer, memory in zip(self.layers, caches, strict=True) if padding is not None else ():
            if not hasattr(memory, "pad"):
                raise ConfigError(
                    f"attention {layer.config.attention.name!r} remembers in a {type(memory).__name__}, which takes no "
                    "padding. Give it rows of one length, and join them afterwards (generate_batch does)."
                )
            memory.pad(padding)
        for memory in caches if length is not None else ():
            if hasattr(memory, "expect"):
                memory.expect([length] if isinstance(length, int) else length)
        return caches

    def longest(self) -> int | None:
        """The most tokens that its positions can place, or None where there is no limit."""
        limits = [getattr(position, "limit", None) for position in self.positions]
        return min((limit for limit in limits if limit is not None), default=None)

    def horizons(self) -> set[int]:
        """Lengths beyond which its positions place all that came before in another way."""
        return {position.horizon for position in self.positions if getattr(position, "horizon", None) is not None}

    def room_after(self, prompt: int, wanted: int) -> int:
        """How many of the wanted tokens can follow a prompt of so many; at least 1, which says what is wrong."""
        limit = self.longest()
        return wanted if limit is None else max(min(wanted, limit + 1 - prompt), 1)

    def count_parameters(self) -> int:
        """Numbers that are trained or loaded; tied ones count once, packed ones as what they stand for."""
        return quantised.count(self)


@contextmanager
def evaluating(model: nn.Module) -> Generator[None, None, None]:
    """Dropout off, and back as it was."""
    training = model.training
    if training:  # a walk over all modules, too much for each token of a model that is in this mode anyway
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def flat_parameters(model: nn.Module) -> dict[str, array]:
    """Every parameter by its path."""
    flat: Any = tree_flatten(model.parameters())
    return dict(flat)


def parameter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by its path."""
    return {path: tuple(weight.shape) for path, weight in flat_parameters(model).items()}


def _mask(length: int, cache: Any) -> Mask:
    """Causal, where it makes a difference; in a batch whose rows are padded, none sees its padding, and no document
    another one."""
    if isinstance(cache, Segments):
        return cache.mask
    padding = getattr(cache, "padding", None)
    if padding is not None:
        return padded(length, cache.columns, padding)
    return CAUSAL if length > 1 else None  # one token sees all that is there


def _position_key(block: BlockConfig) -> Any:
    """Blocks with equal keys share one position, so that a table exists, is counted and is saved once."""
    ref = registry("position").find(block.position.name)
    options = filled("position", registry("position").get(block.position.name), block.position)
    return ref, options, *(getattr(block, name) for name in READ_BY_POSITIONS)
