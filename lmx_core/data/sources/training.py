"""What a run reads: a source for each part of its data, in turn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from lmx_core.construct import build
from lmx_core.data.documents import Documents
from lmx_core.data.sources.mixed import Mixed
from lmx_core.protocols import Source

if TYPE_CHECKING:
    from lmx_core.data.corpus import DataConfig
    from lmx_core.train.config import TrainConfig


def training_source(parts: Sequence[tuple[Documents, float]], data: "DataConfig", train: "TrainConfig") -> Source:
    """The samples of a run: parts by their share of the tokens, in the form of `data.source`, in the course of
    `data.curriculum`.

    A curriculum goes on within each part, so that the shares hold at every step. Each part has a seed of its own.
    """
    sources: list[Source] = []
    weights: list[float] = []
    for i, (documents, share) in enumerate(parts):
        config = attrs.evolve(train, seed=(train.seed + i) % 2**64)
        source: Source = build("source", data.source, documents, config)
        weights.append(share / getattr(source, "row_tokens", train.seq_len))
        sources.append(source if data.curriculum is None else build("curriculum", data.curriculum, source, config))
    return sources[0] if len(sources) == 1 else Mixed(sources, weights)
