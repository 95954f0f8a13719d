"""The one block of all models."""

import inspect
from typing import Any

from mlx import nn
from mlx.core import array

from lmx_core.components.attention import AttentionBase
from lmx_core.components.masks import Mask
from lmx_core.components.positions import provided
from lmx_core.components.rows import TokenCount
from lmx_core.components.segments import Segments, keeps_apart
from lmx_core.config import BlockConfig, ComponentSpec
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.shapes import Float

WORDS = {"rotate": "rotation", "bias": "bias"}


class ConfigurableBlock(nn.Module):
    """A mixer and an FFN, wired by a layout; all of it looked up by name.

    A model hands its shared `position` in; without one the block builds and owns its own. What a position adds to the
    embeddings is the model's to apply.
    """

    def __init__(self, config: BlockConfig, position: Any = None) -> None:
        super().__init__()
        self.config = config
        self.attention = build("attention", config.attention, config)
        self.ffn = build("ffn", config.ffn, config)
        if position is None:
            self.position = position = build("position", config.position, config)
        self._by_keyword = "position" in inspect.signature(self.attention.__call__).parameters
        self._bind(position)
        self.layout = build("layout", config.layout, config, attention=_adds(self.attention), ffn=_adds(self.ffn))

    def _bind(self, position: Any) -> None:
        """Give the mixer its position; one that it would silently ignore is refused."""
        takes: Any = getattr(self.attention, "takes", {"rotate", "bias"})
        if isinstance(self.attention, AttentionBase):
            self.attention.bind(position)
        elif not self._by_keyword:
            takes = ()
        if ignored := provided(position) - {"embed", *takes}:
            raise ConfigError(
                f"attention {self.config.attention.name!r} takes no {'such ' if takes else ''}position; "
                f"{self.config.position.name!r} provides a {' and a '.join(WORDS[name] for name in sorted(ignored))}. "
                'Set position = "none".'
            )
        # Beside the parameters, not among them: the model owns it, and a copy of the model copies it once.
        object.__setattr__(self, "_position", position)

    @property
    def placement(self) -> Any:
        """The position that its mixer is given: the model's, or its own."""
        return self._position

    def __call__(
        self, x: Float[array, "B L D"], mask: Mask = None, cache: Any = None
    ) -> tuple[Float[array, "B L D"], Any]:
        extra = {"position": self._position} if self._by_keyword else {}

        def attention(h: array) -> array:
            nonlocal cache
            if isinstance(cache, TokenCount):
                y, _ = self.attention(h, mask, None, **extra)
            else:
                y, cache = self.attention(h, mask, cache, **extra)
            return y

        if isinstance(cache, TokenCount):
            cache.count(*x.shape[:2])

        x = self.layout(x, attention if _adds(self.attention) else None, self.ffn if _adds(self.ffn) else None)
        return x, cache

    def for_documents(self, segments: Segments) -> Segments | None:
        """What its mixer is given in place of a cache where rows hold several documents; `ConfigError` where it cannot."""
        try:
            return segments if keeps_apart(self.attention) else None
        except ConfigError as error:
            raise ConfigError(f"attention {self.config.attention.name!r}: {error}") from None

    def make_cache(self, kind: str | None = None, **options: Any) -> Any:
        """An empty memory of the kind that the mixer reads, or, of keys, of the kind that is named."""
        cache = self.attention.make_cache()
        if cache is None:
            return TokenCount()
        if kind is None or not hasattr(cache, "scope"):
            return cache
        made = build("cache", ComponentSpec(kind, options), cache.scope)
        if not hasattr(made, "update_and_fetch"):
            raise ConfigError(
                f"cache {kind!r} holds no keys and values, which attention {self.config.attention.name!r} reads"
            )
        return made


def _adds(sublayer: Any) -> bool:
    return not getattr(sublayer, "silent", False)
