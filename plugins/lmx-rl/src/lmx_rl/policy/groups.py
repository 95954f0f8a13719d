"""Completions of prompts, drawn from a policy and judged."""

import hashlib
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lmx_core.continuations import Continuation, continuations
from lmx_core.data.prompts import Prompt
from lmx_core.data.tokenizers import decode
from lmx_core.errors import LmxError, LmxWarning
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_rl.policy.advantages import has_signal
from lmx_rl.rewards.judge import Completion, Judge, Verdicts

Floats = NDArray[np.float32]
LARGEST = float(np.finfo(np.float32).max)


@attrs.frozen(kw_only=True, eq=False)
class Groups:
    """G prompts and K completions of each, of at most M tokens."""

    prompts: NDArray[np.int32]
    """(G,): places among the prompts."""
    tokens: NDArray[np.int32]
    """(G, K, M), filled up with zeros; a stop token that was drawn is there."""
    lengths: NDArray[np.int32]
    """(G, K)."""
    ended: NDArray[np.int32]
    """(G, K): 1 where a stop token ended it, 0 where it was cut off."""
    failed: NDArray[np.int32]
    """(G, K): 1 where a reward failed."""
    rewards: Floats
    """(G, K): NaN where none could judge, or one failed."""
    each: Floats
    """(G, K, R): each reward without its weight, NaN where it could not judge."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """(G,): the groups in which a reward failed."""
        return self.failed.max(-1) > 0

    @property
    def telling(self) -> NDArray[np.bool_]:
        """(G,): the groups from which something is to be learned: their rewards differ."""
        return has_signal(self.rewards) & ~self.dropped

    def take(self, places: Sequence[int] | NDArray[np.integer]) -> "Groups":
        """These groups, in this order."""
        chosen = np.asarray(places, np.int64)
        return attrs.evolve(self, **{name: each[chosen] for name, each in arrays_of(self).items()})

    def joined(self, other: "Groups") -> "Groups":
        both = zip(arrays_of(self).items(), arrays_of(other).values(), strict=True)
        return Groups(**{name: np.concatenate([mine, theirs]) for (name, mine), theirs in both})


def arrays_of(groups: Groups) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(groups, field.name) for field in attrs.fields(Groups)}


@attrs.frozen(kw_only=True)
class Drawing:
    """How completions are drawn."""

    repeats: int
    """Completions of a prompt."""
    max_tokens: int
    stop: frozenset[int]
    sampling: Mapping[str, Any]
    """Of `lmx_core.sampling.Sampling`."""
    rows: int
    """How many are drawn together."""


class Asking:
    """Draws completions of prompts and has them judged; each rank a part of the prompts, and all have all of it."""

    def __init__(self, tokenizer: Any, judge: Judge, drawing: Drawing, ranks: Ranks | None = None) -> None:
        self.tokenizer, self.judge, self.drawing, self.ranks = tokenizer, judge, drawing, ranks or alone()
        self.names = [each.title for each in judge.specs]
        """Of the rewards."""
        self.seconds = {"generation_seconds": 0.0, "judging_seconds": 0.0}
        """What took how long on this rank, since whoever reads it set it to 0."""
        self._warned: set[str] = set()

    def drawing_otherwise(self, drawing: Drawing) -> "Asking":
        """The same, drawn in another way."""
        other = Asking(self.tokenizer, self.judge, drawing, self.ranks)
        other._warned = self._warned
        return other

    def groups(
        self, model: Any, prompts: Sequence[Prompt], places: Sequence[int], seeds: Sequence[int] | None = None
    ) -> Groups:
        """Of the prompts at these places. `seeds` has one for each completion: what is drawn does not depend on the number of
        ranks.
        """
        found, repeats = self._empty(places), self.drawing.repeats
        own = range(self.ranks.rank, len(places), self.ranks.size)
        for part in _parts(own, max(self.drawing.rows // repeats, 1)):
            asked = [prompts[places[i]] for i in part]
            chance = None if seeds is None else [seeds[i * repeats + k] for i in part for k in range(repeats)]
            self._fill(found, part, asked, self._drawn(model, asked, chance))
        if self.ranks.size == 1:
            return found
        summed = self.ranks.sum({name: mx.array(each) for name, each in arrays_of(found).items() if name != "prompts"})
        return attrs.evolve(found, **{name: np.array(each) for name, each in summed.items()})

    def text(self, tokens: Sequence[int]) -> str:
        """Of a completion, without what ended it."""
        kept = tokens[:-1] if len(tokens) and tokens[-1] in self.drawing.stop else tokens
        return decode(self.tokenizer, kept, getattr(self.tokenizer, "special_tokens", ()))

    def _drawn(self, model: Any, asked: Sequence[Prompt], seeds: Sequence[int] | None) -> list[Continuation]:
        drawing = self.drawing
        with self._timed("generation_seconds"):
            return continuations(
                model,
                [each.tokens.tolist() for each in asked],
                repeats=drawing.repeats,
                max_tokens=drawing.max_tokens,
                stop=drawing.stop,
                seeds=seeds,
                **drawing.sampling,
            )

    def _fill(self, found: Groups, part: Sequence[int], asked: Sequence[Prompt], drawn: Sequence[Continuation]) -> None:
        repeats = self.drawing.repeats
        completions = [
            Completion(prompt.text, self.text(each.tokens), prompt.answer)
            for prompt, several in zip(asked, _parts(drawn, repeats), strict=True)
            for each in several
        ]
        with self._timed("judging_seconds"):
            verdicts = self._verdicts(completions)
        self._warn(verdicts.failed)
        for row, each in enumerate(drawn):
            group, member = part[row // repeats], row % repeats
            found.tokens[group, member, : len(each.tokens)] = each.tokens
            found.lengths[group, member], found.ended[group, member] = len(each.tokens), each.ended
            found.failed[group, member] = row in verdicts.failed
            found.rewards[group, member] = np.nan if row in verdicts.failed else verdicts.total[row]
            each = [verdicts.each[name][row] for name in self.names]
            found.each[group, member] = np.clip(each, -LARGEST, LARGEST)

    @contextmanager
    def _timed(self, name: str) -> Generator[None, None, None]:
        began = time.monotonic()
        yield
        self.seconds[name] += time.monotonic() - began

    def _verdicts(self, completions: Sequence[Completion]) -> Verdicts:
        """With what is beyond float32, in which ranks share it, among the failures."""
        try:
            found = self.judge.judge(completions)
        except SystemExit as error:
            raise LmxError(
                f"a reward ended the program, with code {error.code}: one that cannot judge returns None"
            ) from None
        for row in np.flatnonzero(np.abs(found.total) > LARGEST).tolist():
            found.failed[row] = f"reward {self.names[0]!r} and what is added to it are {found.total[row]:g}, no float32"
        return found

    def _empty(self, places: Sequence[int]) -> Groups:
        shape = (len(places), self.drawing.repeats)
        return Groups(
            prompts=np.asarray(places, np.int32),
            tokens=np.zeros((*shape, self.drawing.max_tokens), np.int32),
            **{name: np.zeros(shape, np.int32) for name in ("lengths", "ended", "failed")},
            rewards=np.zeros(shape, np.float32),
            each=np.zeros((*shape, len(self.names)), np.float32),
        )

    def _warn(self, failed: Mapping[int, str]) -> None:
        """Once for each reward: what a failure says differs from one completion to the next."""
        for message in failed.values():
            names = {name for name in self.names if f"reward {name!r}" in message} - self._warned
            self._warned |= names
            if names:
                warnings.warn(
                    f"{message}. Its group is left out, and counted as dropped_groups.", LmxWarning, stacklevel=2
                )


def seeds_of(seed: int, rollout: int, groups: range, members: int) -> list[int]:
    """What each completion of these groups of a rollout is drawn with."""
    said = (f"{seed} {rollout} {group} {member}" for group in groups for member in range(members))
    return [int.from_bytes(hashlib.blake2b(each.encode(), digest_size=8).digest()) for each in said]


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
