"""At what length, and in what order, rows are read as training goes on."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import numpy as np
from attrs import validators
from numpy.typing import NDArray

from lmx_core.config import at_least_one, exact_types
from lmx_core.data.sources.order import Numbers, drawn
from lmx_core.data.sources.rows import CHUNK, Arrays, Readable
from lmx_core.errors import ConfigError
from lmx_core.protocols import Source

if TYPE_CHECKING:
    from lmx_core.train.config import TrainConfig


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class LengthOptions:
    """Options of `curriculum="length"`."""

    steps: int = attrs.field(validator=at_least_one)
    """The step from which on rows are whole."""
    start: int = attrs.field(default=64, validator=at_least_one)
    """Tokens of a row at the first step."""
    multiple: int = attrs.field(default=8, validator=at_least_one)
    """On the way the length is a multiple of so many tokens: a compiled step is compiled once for each length."""
    stages: int | None = attrs.field(default=None, validator=validators.optional(validators.and_(*at_least_one)))
    """In how many equal jumps it grows; as smoothly as `multiple` lets it unless given."""


class LengthCurriculum:
    """Rows cut to a length that grows on a straight line from `start` to `seq_len` (arXiv:2108.06084).

    What is cut off is not read in this epoch.
    """

    Options = LengthOptions

    def __init__(self, source: Source, config: "TrainConfig", options: LengthOptions) -> None:
        if options.start > config.seq_len:
            raise ConfigError(
                f"start={options.start} of the curriculum is longer than train.seq_len={config.seq_len}. Lower start."
            )
        self.source, self.longest, self.options = source, config.seq_len, options

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, samples: Sequence[int], step: int) -> Arrays:
        length = self.length(step)
        cut: Arrays = {}
        for name, value in self.source.batch(samples, step).items():
            by_token = value.ndim > 1 and name in ("inputs", "targets", "mask", "segments")
            cut[name] = value[:, :length] if by_token else value
        return cut

    def length(self, step: int) -> int:
        """Tokens of a row at a step."""
        options, progress = self.options, step / self.options.steps
        if progress >= 1:
            return self.longest
        if options.stages is not None:
            progress = math.floor(progress * options.stages) / options.stages
        grown = options.start + progress * (self.longest - options.start)
        return max(int(grown) // options.multiple * options.multiple, options.start)


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class DifficultyOptions:
    """Options of `curriculum="difficulty"`."""

    steps: int = attrs.field(validator=at_least_one)
    """The step from which on every row is read."""
    by: Literal["length", "rarity"] = "rarity"
    """What is hard: `length`, many targets; `rarity`, rare ones: the mean of `-log p(token)` over the targets of a row, where
    p is how often the token is a target in the whole source."""
    start: float = attrs.field(default=0.01, validator=[validators.gt(0), validators.le(1)])
    """The share of the rows, the easiest ones, that the first step reads."""


class DifficultyCurriculum:
    """At step t samples are drawn from the easiest share `c(t) = min(1, sqrt(t (1 - c0^2) / T + c0^2))` of the rows, with c0
    the `start` and T the `steps` (competence-based curriculum, arXiv:1903.09848); from T on they are the source's own.

    It needs a source with `rows` and `read(rows)`, and reads it through when it is built: twice for `rarity`.
    """

    Options = DifficultyOptions

    def __init__(self, source: Source, config: "TrainConfig", options: DifficultyOptions) -> None:
        if not isinstance(source, Readable):
            raise ConfigError(
                f"{type(source).__name__} does not give rows by number, with `rows` and `read(rows)`, which the difficulty "
                "curriculum ranks. Choose another data.source, or another data.curriculum."
            )
        self.source, self.options, self.seed, self.least = source, options, config.seed, config.batch_size
        hard = SCORES[options.by](source)
        if source.rows > 1 and hard.min() == hard.max():
            raise ConfigError(
                f"all {source.rows} rows are as difficult by {options.by!r}, so that there is nothing to rank. Rank them by "
                "something else, or choose another data.source."
            )
        self.ranked: Numbers = np.argsort(hard, kind="stable")

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, samples: Sequence[int], step: int) -> Arrays:
        share = self.competence(step)
        if share >= 1:
            return {**self.source.batch(samples, step)}
        easy = min(max(math.ceil(share * len(self.ranked)), self.least), len(self.ranked))
        return self.source.read(self.ranked[drawn(samples, easy, self.seed)].tolist())

    def competence(self, step: int) -> float:
        """The share of the rows that a step reads."""
        first = self.options.start**2
        return min(1.0, math.sqrt(step * (1 - first) / self.options.steps + first))


def _chunks(source: Readable) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bool_]]]:
    """Targets of the rows in order, and which of them count."""
    for first in range(0, source.rows, CHUNK):
        batch = source.read(range(first, min(first + CHUNK, source.rows)))
        yield batch["targets"], batch.get("mask", np.ones(batch["targets"].shape, np.bool_))


def _lengths(source: Readable) -> NDArray[np.float64]:
    return np.concatenate([mask.sum(axis=1) for _, mask in _chunks(source)]).astype(np.float64)


def _rarities(source: Readable) -> NDArray[np.float64]:
    """A row without targets is as easy as can be."""
    counts = np.zeros(1, np.int64)
    for targets, mask in _chunks(source):
        found = np.bincount(targets[mask], minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    surprise = -np.log(np.maximum(counts, 1) / max(counts.sum(), 1))
    means: list[NDArray[np.float64]] = []
    for targets, mask in _chunks(source):
        of_targets = np.where(mask, surprise[np.where(mask, targets, 0)], 0.0)
        means.append(of_targets.sum(axis=1) / np.maximum(mask.sum(axis=1), 1))
    return np.concatenate(means)


SCORES: Mapping[str, Callable[[Readable], NDArray[np.float64]]] = {"length": _lengths, "rarity": _rarities}
