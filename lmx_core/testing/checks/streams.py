"""What holds for whatever reads a sequence from its beginning: mixers, blocks, models."""

import itertools
from typing import Any

import mlx.core as mx

from lmx_core.components.masks import causal
from lmx_core.errors import LmxError
from lmx_core.testing.subjects import Maker, Subject, close, memories

CHUNKS = (1, 7, 16)
LONG = 700
"""Beyond the steps in which caches grow, and beyond a usual window of 512."""


def past_ignores_future(make: Maker) -> None:
    """Whatever comes after a token does not move its output, in short and in long sequences."""
    subject = Subject(make)
    long = subject.longest(LONG)
    for batch, length, cuts in ((2, 33, (1, 16, 32)), (1, long, (2 * long // 3,))):
        x, other = (subject.inputs(batch, length, seed) for seed in (1, 2))
        for training in (False, True):
            subject.module.train(training)
            mx.random.seed(0)
            y = subject(x)
            for t in cuts:
                mx.random.seed(0)  # for dropout
                changed = mx.concatenate([x[:, :t], other[:, t:]], axis=1)
                close(subject(changed)[:, :t], y[:, :t], 1e-5)


def cache_equals_one_pass(make: Maker) -> None:
    """Token by token, and in chunks of 1, 7 and 16, a sequence comes out as in one pass."""
    subject = Subject(make)
    x = subject.inputs()
    y = subject(x)
    for size in CHUNKS:
        cache = subject.make_cache()
        parts = [subject(x[:, i : i + size], cache) for i in range(0, x.shape[1], size)]
        close(mx.concatenate(parts, axis=1), y)


def long_sequences_are_no_different(make: Maker) -> None:
    """Beyond the steps in which caches grow, a sequence comes out of a cache as in one pass."""
    subject = Subject(make)
    length = subject.longest(LONG)
    x = subject.inputs(batch=1, length=length)
    cache = subject.make_cache()
    cuts = sorted({min(cut, length) for cut in (0, 3, 130, 255, length - 1, length)})
    parts = [subject(x[:, start:end], cache) for start, end in itertools.pairwise(cuts)]
    y = subject(x)
    close(mx.concatenate(parts, axis=1), y)
    close(y[:, :33], subject(x[:, :33]), 1e-5)


def a_boolean_mask_is_honoured(make: Maker) -> None:
    """`"causal"` written as an array means the same, and None that all is visible; a token that may not be looked at makes
    no difference, in one row or in all, with a cache too. A mixer that knows no order but the causal one refuses an array
    (`LmxError`): it would ignore it.
    """
    subject = Subject(make)
    x = subject.inputs(length=12)
    y = subject(x)
    try:
        masked = subject.mixed(x, causal(12))[0]
    except LmxError:
        return
    close(masked, y, 1e-5)
    close(subject.mixed(x, None)[0], subject.mixed(x, mx.ones((12, 12), mx.bool_))[0], 1e-5)

    fourth = mx.arange(12) == 4
    hidden = causal(12) & (~fourth[None] | fourth[:, None])
    other = mx.concatenate([x[:, :4], subject.inputs(length=1, seed=9), x[:, 5:]], axis=1)
    unseen = subject.mixed(x, hidden)[0]
    close(subject.mixed(other, hidden)[0][:, 5:], unseen[:, 5:], 1e-5)
    by_row = subject.mixed(x, mx.stack([causal(12), hidden])[:, None])[0]
    close(by_row, mx.concatenate([y[:1], unseen[1:]]), 1e-5)
    for mask, expected in ((causal(12), y), (hidden, unseen)):
        cache = subject.make_cache()
        subject(x[:, :5], cache)
        close(subject.mixed(x[:, 5:], mask[5:], cache)[0], expected[:, 5:])


def cache_counts_tokens(make: Maker) -> None:
    """`offset` is the number of tokens seen; a trimmed or restored cache continues as if they had not come."""
    subject = Subject(make)
    x, other = subject.inputs(seed=1), subject.inputs(seed=2)
    y = subject(x)
    cache = subject.make_cache()
    assert all(memory.offset == 0 for memory in memories(cache)), "an empty cache has seen tokens"
    subject(x[:, :20], cache)
    marks = [memory.checkpoint() for memory in memories(cache)]
    subject(other[:, :5], cache)
    assert all(memory.offset == 25 for memory in memories(cache)), "offset is not the number of tokens seen"
    for memory, mark in zip(memories(cache), marks, strict=True):
        memory.restore(mark)
    close(subject(x[:, 20:25], cache), y[:, 20:25])
    subject(other[:, :5], cache)
    if not _trimmable(cache):
        return
    assert all(memory.trim(5) == 5 for memory in memories(cache)), "trim(5) forgot another number of tokens"
    close(subject(x[:, 25:], cache), y[:, 25:])
    if not _trimmable(cache):
        return
    seen = x.shape[1]
    assert all(memory.trim(seen + 9) == seen for memory in memories(cache)), "trim forgot more than there was"
    assert all(memory.offset == 0 for memory in memories(cache)), "tokens are left after all were forgotten"
    close(subject(x[:, :7], cache), y[:, :7])


def ragged_batches_equal_single_rows(make: Maker) -> None:
    """Rows of different lengths, filled up at their beginnings, come out as each does alone, in parts too. For mixers whose
    cache takes padding.
    """
    subject = Subject(make)
    lengths = (33, 12, 26)
    x, filling = subject.inputs(batch=3, seed=1), subject.inputs(batch=3, seed=2)
    if not _can(subject.make_cache(), "pad"):
        return
    alone = [subject(x[row : row + 1, :n]) for row, n in enumerate(lengths)]
    rows = [mx.concatenate([filling[row, n:], x[row, :n]]) for row, n in enumerate(lengths)]
    batch = mx.stack(rows)
    for size in (33, 10, 1):
        cache = subject.make_cache()
        for memory in memories(cache):
            memory.pad([33 - n for n in lengths])
        y = mx.concatenate([subject(batch[:, i : i + size], cache) for i in range(0, 33, size)], axis=1)
        for row, n in enumerate(lengths):
            close(y[row : row + 1, 33 - n :], alone[row])


def batches_join_and_leave(make: Maker) -> None:
    """Sequences that were read alone go on in one batch as they do alone, whatever their lengths; rows leave it. For mixers
    whose cache can be extended.
    """
    subject = Subject(make)
    x = subject.inputs(batch=3)
    whole = subject(x)
    places = [20, 5, 26]
    caches = [subject.make_cache() for _ in places]
    if not _can(caches[0], "extend"):
        return
    for row, (cache, n) in enumerate(zip(caches, places, strict=True)):
        subject(x[row : row + 1, :n], cache)
    cache, *others = caches
    for other in others:
        for memory, more in zip(memories(cache), memories(other), strict=True):
            memory.extend(more)
    rows = [0, 1, 2]

    def go_on(n: int) -> None:
        y = subject(mx.stack([x[row, places[row] : places[row] + n] for row in rows]), cache)
        for i, row in enumerate(rows):
            close(y[i], whole[row, places[row] : places[row] + n])
            places[row] += n

    go_on(1)
    go_on(3)
    rows = [2, 0]
    for memory in memories(cache):
        memory.filter(rows)
    go_on(1)
    go_on(2)
    single = [memory.extract(1) for memory in memories(cache)]
    cache, rows = (single if isinstance(cache, list) else single[0]), [0]
    go_on(3)


def one_row_becomes_several(make: Maker) -> None:
    """A row that is named several times when rows are chosen goes on as several, each by itself and as it does alone; rows
    of different lengths, where they can be filled up. For mixers whose cache can be filtered.
    """
    subject = Subject(make)
    x, other = (subject.inputs(seed=seed) for seed in (1, 2))
    cache, padding = subject.make_cache(), (0, 0)
    if not _can(cache, "filter"):
        return
    if _can(cache, "pad"):
        padding = (0, 8)
        for memory in memories(cache):
            memory.pad(padding)
    subject(x[:, :20], cache)
    for memory in memories(cache):
        memory.filter([1, 0, 1])
    ends = mx.stack([x[1, 20:], x[0, 20:], other[1, 20:]])
    y = mx.concatenate([subject(ends[:, :1], cache), subject(ends[:, 1:], cache)], axis=1)
    for i, row in enumerate((1, 0, 1)):
        alone = mx.concatenate([x[row, padding[row] : 20], ends[i]])[None]
        close(y[i : i + 1], subject(alone)[:, 20 - padding[row] :])


def _can(cache: Any, what: str) -> bool:
    """Whether there is a cache, and each part of it has the method."""
    found = memories(cache)
    return bool(found) and all(hasattr(memory, what) for memory in found)


def _trimmable(cache: Any) -> bool:
    """For now: a cache that keeps the last tokens alone can take back none once it is full."""
    return all(memory.is_trimmable() for memory in memories(cache))


def cache_state_round_trips(make: Maker) -> None:
    """A fresh cache that is given another's `state` continues like it."""
    subject = Subject(make)
    x = subject.inputs()
    cache, fresh = subject.make_cache(), subject.make_cache()
    subject(x[:, :20], cache)
    for old, new in zip(memories(cache), memories(fresh), strict=True):
        assert old.nbytes > 0, "nbytes is 0 after 20 tokens"
        new.state = old.state
    close(subject(x[:, 20:], fresh), subject(x[:, 20:], cache), 0.0)


def caches_share_nothing(make: Maker) -> None:
    """Two caches that were given the same state go on apart, as two answers to one saved prompt do."""
    subject = Subject(make)
    x, other = subject.inputs(seed=1), subject.inputs(seed=2)
    cache, one, two = (subject.make_cache() for _ in range(3))
    subject(x[:, :20], cache)
    for old, first, second in zip(memories(cache), memories(one), memories(two), strict=True):
        first.state = second.state = old.state
    if _trimmable(one):
        for memory in memories(one):
            memory.trim(3)  # what follows is written over tokens that the other cache still holds
    subject(other[:, :2], one)
    close(subject(x[:, 20:], two), subject(x[:, 20:], cache), 0.0)
