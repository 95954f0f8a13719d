"""The one language model: embedding, blocks, norm, head."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from mlx import nn
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core import hooks
from lmx_core.block import ConfigurableBlock
from lmx_core.components.embedding import Embedding
from lmx_core.components.masks import CAUSAL
from lmx_core.config import BlockConfig, ModelConfig
from lmx_core.construct import build, filled
from lmx_core.errors import ConfigError
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
        self.embed = Embedding(config.vocab_size, config.block.d_model)
        self.dropout = nn.Dropout(config.block.dropout)
        shared: list[tuple[Any, Any]] = []
        self.layers = [self._layer(i, shared) for i in range(config.n_layers)]
        self.positions = [position for _, position in shared]
        if not self.layers[-1].layout.normalised:
            self.norm = build("norm", config.block.norm, config.block)
        if not config.tie_embeddings:
            self.head = nn.Linear(config.block.d_model, config.vocab_size, bias=False)
        hooks.model_built(self)

    def _layer(self, i: int, shared: list[tuple[Any, Any]]) -> ConfigurableBlock:
        block = self.config.get_block_config(i)
        try:
            key = _position_key(block)
            found = [position for other, position in shared if other == key]
            if not found:
                found = [build("position", block.position, block)]
                shared.append((key, *found))
            return ConfigurableBlock(block, found[0])
        except ConfigError as error:
            where = "model.block" if self.config.block_configs is None else f"model.block_configs[{i}]"
            raise ConfigError(f"{where}: {error}") from None

    def __call__(
        self, tokens: Int[array, "B L"], cache: Sequence[Any] | None = None
    ) -> tuple[Float[array, "B L V"], Sequence[Any] | None]:
        """Logits for the token after each; with `cache=model.make_cache()` tokens continue what it holds."""
        caches = [None] * len(self.layers) if cache is None else cache
        offset = next((layer.offset for layer in caches if layer is not None), 0)
        x = self.embed(tokens)
        for position in self.positions:
            x = position.embed(x, offset)
        x = self.dropout(x)
        mask = CAUSAL if tokens.shape[1] > 1 else None  # one token sees all that is there
        kept = []
        for layer, memory in zip(self.layers, caches, strict=True):
            x, memory = layer(x, mask, memory)
            kept.append(memory)
        if "norm" in self:
            x = self.norm(x)
        return self.head(x) if "head" in self else self.embed.as_linear(x), None if cache is None else kept

    def make_cache(self) -> list[Any]:
        """An empty memory for each layer."""
        return [layer.make_cache() for layer in self.layers]

    def longest(self) -> int | None:
        """The most tokens that its positions can place, or None where there is no limit."""
        limits = [getattr(position, "limit", None) for position in self.positions]
        return min((limit for limit in limits if limit is not None), default=None)

    def room_after(self, prompt: int, wanted: int) -> int:
        """How many of the wanted tokens can follow a prompt of so many; at least 1, which says what is wrong."""
        limit = self.longest()
        return wanted if limit is None else max(min(wanted, limit + 1 - prompt), 1)

    def count_parameters(self) -> int:
        """Numbers that are trained or loaded; tied ones count once."""
        return sum(prod(shape) for shape in parameter_shapes(self).values())


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


def _position_key(block: BlockConfig) -> Any:
    """Blocks with equal keys share one position, so that a table exists, is counted and is saved once."""
    ref = registry("position").find(block.position.name)
    options = filled("position", registry("position").get(block.position.name), block.position)
    return ref, options, *(getattr(block, name) for name in READ_BY_POSITIONS)
