"""What holds for whatever reads a sequence from its beginning: mixers, blocks, models."""

import itertools

import mlx.core as mx
from mlx.core import array

from lmx_core.components.masks import causal
from lmx_core.errors import LmxError
from lmx_core.testing.subjects import Maker, Subject, close, memories

CHUNKS = (1, 7, 16)


def past_ignores_future(make: Maker) -> None:
    """Whatever comes after a token does not move its output."""
    subject = Subject(make)
    x, other = subject.inputs(seed=1), subject.inputs(seed=2)
    for training in (False, True):
        subject.module.train(training)
        mx.random.seed(0)
        y = subject(x)
        for t in (1, 16, x.shape[1] - 1):
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
    length = subject.longest(300)
    x = subject.inputs(batch=1, length=length)
    cache = subject.make_cache()
    cuts = [0, 3, 130, min(255, length - 2), length - 1, length]
    parts = [subject(x[:, start:end], cache) for start, end in itertools.pairwise(cuts)]
    y = subject(x)
    close(mx.concatenate(parts, axis=1), y)
    close(y[:, :33], subject(x[:, :33]), 1e-5)


def a_boolean_mask_is_honoured(make: Maker) -> None:
    """`"causal"` written as an array means the same, with a cache too; a token that may not be looked at makes no
    difference. A mixer that knows no order but the causal one refuses an array (`LmxError`): it would ignore it.
    """
    subject = Subject(make)
    x = subject.inputs(length=12)
    y = subject(x)
    try:
        masked = subject.module(x, causal(12), None)[0]
    except LmxError:
        return
    close(masked, y, 1e-5)
    cache = subject.make_cache()
    subject(x[:, :5], cache)
    close(subject.module(x[:, 5:], causal(7, 5), cache)[0], y[:, 5:])

    def with_fourth_hidden(x: array) -> array:
        hidden = causal(12) & ((mx.arange(12) != 4)[None] | (mx.arange(12) == 4)[:, None])
        return subject.module(x, hidden, None)[0][:, 5:]

    other = mx.concatenate([x[:, :4], subject.inputs(length=1, seed=9), x[:, 5:]], axis=1)
    close(with_fourth_hidden(other), with_fourth_hidden(x), 1e-5)


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
    if all(memory.is_trimmable() for memory in memories(cache)):
        subject(other[:, :5], cache)
        assert all(memory.trim(5) == 5 for memory in memories(cache)), "trim(5) forgot another number of tokens"
        close(subject(x[:, 25:], cache), y[:, 25:])
        seen = x.shape[1]
        assert all(memory.trim(seen + 9) == seen for memory in memories(cache)), "trim forgot more than there was"
        assert all(memory.offset == 0 for memory in memories(cache)), "tokens are left after all were forgotten"
        close(subject(x[:, :7], cache), y[:, :7])


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
    if all(memory.is_trimmable() for memory in memories(one)):
        for memory in memories(one):
            memory.trim(3)  # what follows is written over tokens that the other cache still holds
    subject(other[:, :2], one)
    close(subject(x[:, 20:], two), subject(x[:, 20:], cache), 0.0)
