"""Rows that hold several documents, one after the other."""

from typing import Any

import mlx.core as mx
from mlx.core import array

from lmx_core.errors import ConfigError
from lmx_core.shapes import Float, Int


class Segments:
    """What a mixer is given in place of a cache where a row holds several documents.

    A mixer of keys and values need not know: its positions are in `offset`, who may look at whom is in the mask, and
    nothing is kept. One with a state says `segments = True`, and forgets at each of `starts` all that came before.
    """

    fetched = (0, 0)

    def __init__(self, numbers: Int[array, "B L"]) -> None:
        begins, places = mx.ones((len(numbers), 1), mx.bool_), mx.arange(numbers.shape[1])
        self.starts = mx.concatenate([begins, numbers[:, 1:] != numbers[:, :-1]], axis=1)
        """Which tokens are the first of a document, (B, L)."""
        first = mx.cummax(mx.where(self.starts, places, 0), axis=1)
        self.offset = places - first
        """The place of each token in its document, (B, L)."""
        self.mask = ((places >= first[..., None]) & (places <= places[:, None]))[:, None]
        """Causal within each document, (B, 1, L, L)."""

    @classmethod
    def of(cls, numbers: array, shape: tuple[int, ...], limit: int | None = None) -> "Segments":
        """Of tokens of this shape. `ConfigError` for numbers of another one, and for a document of more tokens than `limit`.

        While MLX traces a function no length is known, and none is refused.
        """
        if numbers.shape != shape:
            raise ConfigError(
                f"segments of shape {numbers.shape} for tokens of shape {shape}: give each token a number"
            )
        segments = cls(numbers)
        longest = 0 if limit is None or shape[1] <= limit else segments._longest()
        if limit is not None and longest > limit:
            raise ConfigError(f"a document of {longest} tokens does not fit positions for {limit}. Cut it beforehand.")
        return segments

    def _longest(self) -> int:
        """Tokens of the longest document, 0 where that is not known yet."""
        try:
            found: Any = self.offset.max().item()
        except ValueError:
            return 0
        return found + 1

    def update_and_fetch(
        self, keys: Float[array, "B K L E"], values: Float[array, "B K L E2"]
    ) -> tuple[Float[array, "B K L E"], Float[array, "B K L E2"]]:
        """Both as they are."""
        return keys, values


def keeps_apart(mixer: Any) -> bool:
    """Whether a mixer mixes anything, and can keep documents of one row apart. `ConfigError` where it cannot.

    One that keeps nothing between calls looks at no other token. One that keeps keys and values heeds masks. A state is
    another matter: who has one must say that it begins anew.
    """
    cache, says = mixer.make_cache(), getattr(mixer, "segments", None)
    if cache is None and says is None:
        return False
    if says if says is not None else hasattr(cache, "update_and_fetch"):
        return True
    raise ConfigError(
        f"a {type(mixer).__name__} does not say (by segments = True) that what it remembers, a {type(cache).__name__}, "
        "begins anew at each document of a row. Give each document a row of its own."
    )
