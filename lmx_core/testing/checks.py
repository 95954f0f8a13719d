"""The promises, one function each: `check(make)` builds the component and raises `AssertionError` where it breaks one.

`MIXER` holds for attention, for blocks (and so for layouts and positions) and for whole models; `FFN` and `NORM` for what
works on each position by itself; `POSITION` for encodings; `MODEL` for models beyond what holds for their parts.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.core import array
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from lmx_core.block import ConfigurableBlock
from lmx_core.checkpoint import load_model, save_model
from lmx_core.components.attention import AttentionBase
from lmx_core.components.masks import causal
from lmx_core.config import ModelConfig
from lmx_core.objective import take_reports
from lmx_core.serialize import plain, structure
from lmx_core.testing.subjects import SMALL, Make, Subject, memories, randomise

Check = Callable[[Make], None]
CHUNKS = (1, 7, 16)


def close(a: array, b: array, tolerance: float = 1e-4) -> None:
    """Equal up to `tolerance`, absolute and relative to the largest number."""
    assert a.shape == b.shape, f"shapes {a.shape} and {b.shape}"
    a, b = a.astype(mx.float32), b.astype(mx.float32)
    far = largest(a - b) / max(1.0, largest(b))
    assert far <= tolerance, f"differ by {far:.3g}, allowed {tolerance:g}"


def largest(x: array) -> float:
    found: Any = mx.abs(x).max().item()
    return found


def keeps_shape_and_dtype(make: Make) -> None:
    """Float32 in, float32 out; bfloat16 in, bfloat16 out; every number finite."""
    for dtype in (mx.float32, mx.bfloat16):
        subject = Subject(make, dtype=dtype)
        x = subject.inputs()
        y = subject(x)
        assert y.dtype == dtype, f"{dtype} became {y.dtype}"
        assert y.shape[:2] == x.shape[:2], f"(B, L) {x.shape[:2]} became {y.shape[:2]}"
        assert subject.takes_tokens or y.shape == x.shape, f"{x.shape} became {y.shape}"
        assert mx.isfinite(y).all().item(), f"{dtype}: not finite"


def past_ignores_future(make: Make) -> None:
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


def cache_equals_one_pass(make: Make) -> None:
    """Token by token, and in chunks of 1, 7 and 16, a sequence comes out as in one pass."""
    subject = Subject(make)
    x = subject.inputs()
    y = subject(x)
    for size in CHUNKS:
        cache = subject.make_cache()
        parts = [subject(x[:, i : i + size], cache) for i in range(0, x.shape[1], size)]
        close(mx.concatenate(parts, axis=1), y)


def long_sequences_are_no_different(make: Make) -> None:
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


def a_boolean_mask_is_honoured(make: Make) -> None:
    """`"causal"` written as an array means the same; a token that may not be looked at makes no difference."""
    subject = Subject(make)
    x = subject.inputs(length=12)
    seen = causal(12)
    close(subject.module(x, seen, None)[0], subject(x), 1e-5)
    if not isinstance(subject.module, ConfigurableBlock | AttentionBase):
        return  # a recurrent mixer has no other order than the causal one
    hidden = seen & ((mx.arange(12) != 4)[None] | (mx.arange(12) == 4)[:, None])
    other = mx.concatenate([x[:, :4], subject.inputs(length=1, seed=9), x[:, 5:]], axis=1)
    close(subject.module(other, hidden, None)[0][:, 5:], subject.module(x, hidden, None)[0][:, 5:], 1e-5)


def caches_share_nothing(make: Make) -> None:
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


def reports_are_scalars(make: Make) -> None:
    """What a forward reports are finite scalars of this forward: a second one does not add to them."""
    subject = Subject(make)
    x = subject.inputs()
    subject(x)
    first = take_reports(subject.module)
    subject(x)
    second = take_reports(subject.module)
    assert first.keys() == second.keys(), "reports come and go"
    for name, value in first.items():
        assert value.ndim == 0, f"{name} has shape {value.shape}, a report is a scalar"
        assert mx.isfinite(value).item(), f"{name} is not finite"
        close(second[name], value, 1e-6)


def cache_counts_tokens(make: Make) -> None:
    """`offset` is the number of tokens seen; a trimmed or restored cache continues as if they had not come."""
    subject = Subject(make)
    x, other = subject.inputs(seed=1), subject.inputs(seed=2)
    y = subject(x)
    cache = subject.make_cache()
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


def cache_state_round_trips(make: Make) -> None:
    """A fresh cache that is given another's `state` continues like it."""
    subject = Subject(make)
    x = subject.inputs()
    cache, fresh = subject.make_cache(), subject.make_cache()
    subject(x[:, :20], cache)
    for old, new in zip(memories(cache), memories(fresh), strict=True):
        assert old.nbytes > 0, "nbytes is 0 after 20 tokens"
        new.state = old.state
    close(subject(x[:, 20:], fresh), subject(x[:, 20:], cache), 0.0)


def rows_are_independent(make: Make) -> None:
    """A sequence comes out of a batch as it does alone, whatever the others are."""
    subject = Subject(make)
    x, other = subject.inputs(batch=3, seed=1), subject.inputs(batch=3, seed=2)
    y = subject(x)
    for row in range(3):
        close(subject(x[row : row + 1]), y[row : row + 1], 1e-5)
    mixed = mx.concatenate([x[:1], other[1:]])
    close(subject(mixed)[:1], y[:1], 1e-5)


def nothing_stays_behind(make: Make) -> None:
    """The same input gives the same output, also after another one."""
    subject = Subject(make)
    x = subject.inputs(seed=1)
    y = subject(x)
    subject(subject.inputs(length=12, seed=2))
    close(subject(x), y, 0.0)


def compiled_equals_eager(make: Make) -> None:
    """`mx.compile` changes no number beyond rounding."""
    subject = Subject(make)
    x = subject.inputs()
    compiled: Any = mx.compile(lambda x: subject(x), inputs=[subject.module.state])
    close(compiled(x), subject(x), 1e-5)


def gradients_reach_everything(make: Make) -> None:
    """Every trainable tensor gets a finite gradient that is not all zero, and so does the input."""
    subject = Subject(make)
    x = subject.inputs()
    weights = mx.random.normal(subject(x).shape, key=mx.random.key(3))
    has_parameters = bool(tree_flatten(subject.module.trainable_parameters()))
    gradients = value_and_grad(subject.module, lambda: (subject(x) * weights).sum()) if has_parameters else None
    found: Any = tree_flatten(gradients()[1]) if gradients else []
    for name, gradient in found:
        assert mx.isfinite(gradient).all().item(), f"the gradient of {name} is not finite"
        assert largest(gradient) > 0, f"no gradient reaches {name}"
    if not subject.takes_tokens and not getattr(subject.module, "silent", False):
        reached = mx.grad(lambda x: (subject(x) * weights).sum())(x)
        assert (mx.abs(reached).max(axis=-1) > 0).all().item(), "no gradient reaches some positions of the input"


def quantised_runs(make: Make) -> None:
    """With its linear layers in 8 bits it still runs, and stays near."""
    subject = Subject(make)
    x = subject.inputs()
    y = subject(x)
    nn.quantize(subject.module, group_size=32, bits=8)
    close(subject(x), y, 0.1)


def weights_round_trip(make: Make) -> None:
    """Saved and loaded into a fresh module, the parameters are all that matters: outputs are equal to the bit."""
    subject, fresh = Subject(make, seed=0), Subject(make, seed=5)
    x = subject.inputs()
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "weights.safetensors")
        mx.save_safetensors(file, {"": mx.zeros(1), **dict(tree_flatten(subject.module.parameters()))})
        loaded: Any = mx.load(file)
        fresh.module.load_weights([(name, weight) for name, weight in loaded.items() if name])
        close(fresh(x), subject(x), 0.0)


def treats_positions_alike(make: Make) -> None:
    """Each position is computed by itself, in the same way."""
    subject = Subject(make)
    x = subject.inputs(length=9)
    y = subject(x)
    for t in range(9):
        close(subject(x[:, t : t + 1]), y[:, t : t + 1], 1e-5)


def accepts_zeros(make: Make) -> None:
    """A position that is all zero gives finite numbers and gradients."""
    subject = Subject(make)
    x = mx.zeros((1, 2, SMALL.d_model))
    assert mx.isfinite(subject(x)).all().item(), "not finite"
    assert mx.isfinite(mx.grad(lambda x: subject(x).sum())(x)).all().item(), "the gradient is not finite"


def offsets_continue(make: Make) -> None:
    """What an encoding does to tokens at an offset is what it does to them within the whole sequence."""
    position: Any = randomise(make())
    x = mx.random.normal((2, 20, SMALL.d_model), key=mx.random.key(1))
    q = mx.random.normal((2, SMALL.n_heads, 20, SMALL.head_dim), key=mx.random.key(2))
    k = mx.random.normal((2, SMALL.n_kv_heads, 20, SMALL.head_dim), key=mx.random.key(3))
    whole = position.embed(x), *position.rotate(q, k)
    close(position.embed(x[:, 13:], 13), whole[0][:, 13:], 1e-5)
    for part, all_of_it in zip(position.rotate(q[:, :, 13:], k[:, :, 13:], 13), whole[1:], strict=True):
        close(part, all_of_it[:, :, 13:], 1e-5)
    starts = (13, 5)
    rows = mx.array(starts)
    pieces = [
        mx.stack([each[row, ..., start : start + 7, :] for row, start in enumerate(starts)]) for each in (x, q, k)
    ]
    placed = position.embed(pieces[0], rows), *position.rotate(pieces[1], pieces[2], rows)
    for row, start in enumerate(starts):
        for part, all_of_it in zip(placed, whole, strict=True):
            close(part[row], all_of_it[row, ..., start : start + 7, :], 1e-5)
    whole_bias, bias = position.bias(20), position.bias(7, rows)
    if whole_bias is not None:
        close(position.bias(7, 13)[0], whole_bias[0, :, 13:], 1e-5)
        for row, start in enumerate(starts):
            close(bias[row], whole_bias[0, :, start : start + 7], 1e-5)


def tells_positions_apart(make: Make) -> None:
    """With the encoding, the order of the past makes a difference; to one block without any it makes none."""
    position: Any = randomise(make())
    block: Any = randomise(ConfigurableBlock(SMALL, position)).eval()
    x = mx.random.normal((1, 12, SMALL.d_model), key=mx.random.key(1))
    swapped = x[:, mx.array([5, 1, 2, 3, 4, 0, *range(6, 12)])]
    last, other = (block(position.embed(tokens), "causal")[0][:, -1] for tokens in (x, swapped))
    assert largest(last - other) > 1e-4, "the order of the past makes no difference"


def config_round_trips(make: Make) -> None:
    """The config survives plain data."""
    config = make().config
    assert structure(plain(config), ModelConfig, "the config") == config


def model_round_trips(make: Make) -> None:
    """`save_model` and `load_model` give back the same config and the same logits, to the bit."""
    subject = Subject(make)
    x = subject.inputs()
    with tempfile.TemporaryDirectory() as folder:
        save_model(subject.module, folder)
        loaded = load_model(folder)
        assert loaded.config == subject.module.config
        close(loaded(x)[0], subject(x), 0.0)


MODULE: list[Check] = [
    reports_are_scalars,
    keeps_shape_and_dtype,
    rows_are_independent,
    nothing_stays_behind,
    compiled_equals_eager,
    gradients_reach_everything,
    quantised_runs,
    weights_round_trip,
]
FFN: list[Check] = [*MODULE, treats_positions_alike, accepts_zeros]
NORM: list[Check] = FFN
STREAM: list[Check] = [
    *MODULE,
    past_ignores_future,
    cache_equals_one_pass,
    cache_counts_tokens,
    cache_state_round_trips,
    caches_share_nothing,
    long_sequences_are_no_different,
]
POSITION: list[Check] = [offsets_continue, tells_positions_apart]
MIXER: list[Check] = [*STREAM, a_boolean_mask_is_honoured]
MODEL: list[Check] = [*STREAM, config_round_trips, model_round_trips]
