"""The chunked form of all rules, and its token-by-token reference."""

import mlx.core as mx
import pytest

from lmx_core.testing import close
from lmx_deltanet import fused, reference
from lmx_deltanet.mixer import unit
from lmx_deltanet.rule import linear_attention
from lmx_deltanet.triangle import across, lower, unit_lower_inverse

KEYS, VALUES = 8, 5
RULES = {
    "deltanet": (None, True),
    "gated_deltanet": (1, True),
    "kda": (KEYS, True),
    "linear_attention": (None, False),
    "gated_linear_attention": (KEYS, False),
}
"""Numbers of a decay, and whether there is a beta."""
rules = pytest.mark.parametrize("rule", RULES)


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def inputs(rule, length, fading=1.0, heads=2, batch=1):
    """What a rule takes, as the mixers make it; None for what it has not."""
    width, delta = RULES[rule]
    q, k = (unit(normal(batch, heads, length, KEYS, seed=seed)) for seed in (0, 1))
    decay = (
        None
        if width is None
        else -fading * mx.random.uniform(shape=(batch, heads, length, width), key=mx.random.key(2))
    )
    beta = mx.sigmoid(2 * normal(batch, heads, length, seed=3)) if delta else None
    v, state = normal(batch, heads, length, VALUES, seed=4), normal(batch, heads, KEYS, VALUES, seed=5)
    return q, k, v, decay, beta, state


def outputs_and_gradients(rule, arrays):
    """Outputs, the last state, and the gradients of a random projection of both in every input that there is."""
    y, state = rule(*arrays)
    weights = normal(*y.shape, seed=6), normal(*state.shape, seed=7)
    there = [i for i, each in enumerate(arrays) if each is not None]

    def projected(*given):
        filled = [given[there.index(i)] if i in there else None for i in range(len(arrays))]
        return sum((part * weight).sum() for part, weight in zip(rule(*filled), weights, strict=True))

    return y, state, *mx.grad(projected, argnums=list(range(len(there))))(*(arrays[i] for i in there))


def agree(arrays, fast=linear_attention, tolerance=1e-4):
    """In outputs, states and all gradients."""
    found, expected = (outputs_and_gradients(rule, arrays) for rule in (fast, reference.linear_attention))
    assert len(found) == 2 + sum(each is not None for each in arrays)
    for ours, theirs in zip(found, expected, strict=True):
        assert mx.isfinite(ours).all()
        close(ours, theirs, tolerance)


@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000])
@rules
def test_chunks_follow_the_recurrence(rule, length):
    """The chunked form and its reference agree in outputs, states and all gradients."""
    agree(inputs(rule, length, 0.1))


@pytest.mark.parametrize("fading", [1e-3, 1.0, 20.0, 100.0])
@pytest.mark.parametrize("rule", ["gated_deltanet", "kda", "gated_linear_attention"])
def test_any_decay_is_safe(rule, fading):
    """Where next to nothing is left of a state, and where a thousand tokens leave nearly all of it."""
    agree(inputs(rule, 130, fading))


@pytest.mark.parametrize("rule", ["gated_deltanet", "kda", "gated_linear_attention"])
def test_weak_decays_after_strong_ones(rule):
    """Decays of -50 a token at first, then of -0.01: sums from the beginning of a chunk on would lose the small ones."""
    q, k, v, decay, beta, state = inputs(rule, 64)
    decay = mx.where((mx.arange(64) < 32)[:, None], 50 * decay, decay / 100)
    agree((q, k, v, decay, beta, state))


@pytest.mark.parametrize("size", [1, 5, 16, 64, 100])
@rules
def test_any_chunk_length_gives_the_same(rule, size):
    """In segments, too: those of the gradient are four chunks long."""
    agree(inputs(rule, 70), lambda *arrays: linear_attention(*arrays, size=size))


@rules
def test_states_go_on(rule):
    """A sequence in two parts, the second with the state of the first, comes out as in one."""
    *arrays, state = inputs(rule, 150)

    def in_parts(*arrays):
        *arrays, state = arrays
        first, state = linear_attention(*(part if part is None else part[:, :, :77] for part in arrays), state)
        second, state = linear_attention(*(part if part is None else part[:, :, 77:] for part in arrays), state)
        return mx.concatenate([first, second], axis=2), state

    agree((*arrays, state), in_parts)


@pytest.mark.parametrize("length", [1, 100])
@rules
def test_bfloat16_is_summed_in_float32(rule, length):
    """Inputs in bfloat16 give what the same numbers give in float32, to the bit."""
    arrays = [each if each is None else each.astype(mx.bfloat16) for each in inputs(rule, length)]
    wide = [each if each is None else each.astype(mx.float32) for each in arrays]
    for narrow, expected in zip(linear_attention(*arrays), linear_attention(*wide), strict=True):
        assert narrow.dtype == mx.float32
        close(narrow, expected, 0.0)


@pytest.mark.parametrize("size", [1, 16, 64])
@rules
def test_a_state_that_begins_anew(rule, size):
    """A decay of -inf leaves nothing: wherever it stands in a chunk, values and gradients are the loop's, which are numbers,
    and what follows is as alone.
    """
    q, k, v, decay, beta, state = inputs(rule, 130)
    starts = mx.zeros((130, 1), mx.bool_)
    starts[mx.array([0, 1, 16, 17, 63, 64, 100, 129])] = True
    fading = mx.where(starts, -mx.inf, mx.zeros((1, 2, 130, 1)) if decay is None else decay)
    arrays = q, k, v, fading, beta, state
    agree(arrays, lambda *arrays: linear_attention(*arrays, size=size))
    y, _ = linear_attention(*arrays, size=size)
    for start, end in ((17, 63), (64, 100), (129, 130)):
        part = [each if each is None else each[:, :, start:end] for each in (q, k, v, decay, beta)]
        close(y[:, :, start:end], linear_attention(*part, mx.zeros_like(state))[0], 1e-5)


@rules
def test_zeros_before_the_first_token_change_nothing(rule):
    """Padding: from an empty state, tokens of which nothing is left but a decay and a beta leave it empty."""
    q, k, v, decay, beta, _ = inputs(rule, 90)
    token = (mx.arange(90) >= 40)[:, None]
    empty = mx.zeros((1, 2, KEYS, VALUES))
    y, state = linear_attention(*(mx.where(token, part, 0) for part in (q, k, v)), decay, beta, empty)
    rest = [part if part is None else part[:, :, 40:] for part in (q, k, v, decay, beta)]
    alone, expected = linear_attention(*rest, empty)
    close(y[:, :, 40:], alone, 1e-5)
    close(state, expected, 1e-5)


def test_a_key_that_comes_again_and_again():
    """The worst case for the triangular system: one key throughout, which is overwritten with all force, or turned round."""
    q, k, v, _, beta, state = inputs("deltanet", 128)
    k = mx.broadcast_to(unit(normal(KEYS)), k.shape)
    agree((q, k, v, None, mx.ones_like(beta), state))
    agree((q, k, v, None, 2 * mx.ones_like(beta), state), tolerance=3e-4)


def test_key_heads_serve_values_in_a_row():
    """Each as many heads of values as there are more of them."""
    q, k, _, decay, beta, state = inputs("gated_deltanet", 20, heads=6)
    v = normal(1, 6, 20, VALUES, seed=4)
    shared = [part[:, ::3] for part in (q, k)]
    repeated = [mx.repeat(part, 3, axis=1) for part in shared]
    for ours, theirs in zip(
        linear_attention(*shared, v, decay, beta, state),
        linear_attention(*repeated, v, decay, beta, state),
        strict=True,
    ):
        close(ours, theirs, 0.0)


def test_gradients_are_computed_from_little():
    """Over 2048 tokens they take less than a third more memory than over 1024, beyond what inputs and outputs do; however
    many segments there are, memory grows no faster than inputs do."""

    def peak(length, beyond=True):
        arrays = inputs("gated_deltanet", length, heads=4)
        mx.eval(arrays)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(mx.grad(lambda *each: linear_attention(*each)[0].sum(), argnums=[*range(6)])(*arrays))
        own = 3 * sum(each.nbytes for each in arrays) if beyond else 0
        return mx.get_peak_memory() - before - own

    assert peak(2048) < 1.33 * peak(1024)
    assert peak(6144, beyond=False) < 3.3 * peak(2048, beyond=False)


@pytest.mark.parametrize("size", [1, 2, 16, 64])
def test_triangular_systems_are_solved(size):
    """Products of rows with earlier columns, put together, are those of the whole; the inverse of 1 and them is one."""
    rows, columns = (normal(3, size, 6, seed=seed) / 4 for seed in (0, 1))
    left = mx.random.uniform(shape=(3, size, 6), key=mx.random.key(2))
    (begun,), ended, whole, (products,) = across([rows], columns, left)
    total = mx.cumsum(mx.log(left), axis=1)
    close(begun, rows * mx.exp(total), 1e-5)
    close(ended, columns * mx.exp(total[:, -1:] - total), 1e-5)
    close(whole, mx.exp(total[:, -1:]), 1e-5)
    since = mx.exp(mx.minimum(total[:, :, None] - total[:, None], 0))
    expected = mx.tril((rows[:, :, None] * columns[:, None] * since).sum(axis=-1), k=-1)
    close(lower(mx.zeros((3, size)), products), expected, 1e-5)
    inverse = mx.broadcast_to(unit_lower_inverse(size, products), (3, size, size))
    close(inverse @ (mx.eye(size) + expected), mx.broadcast_to(mx.eye(size), (3, size, size)), 1e-5)


@pytest.mark.skipif(not hasattr(mx.fast, "gated_delta_update"), reason="this MLX has no mx.fast.gated_delta_update")
@pytest.mark.parametrize("length", [1, 70])
def test_mlx_computes_the_same(length):
    """MLX's own kernel, or what it does where it has none, with key heads that serve several values."""
    q, k, _, decay, beta, state = inputs("gated_deltanet", length, heads=4, batch=2)
    arrays = q[:, ::2], k[:, ::2], normal(2, 4, length, VALUES, seed=4), decay, beta, state
    for ours, theirs in zip(fused.gated_delta_rule(*arrays), linear_attention(*arrays), strict=True):
        close(ours, theirs)


def test_the_kernel_is_for_some_shapes_on_metal(monkeypatch):
    """Elsewhere MLX goes through tokens one by one, which chunks are faster than."""

    def fits(width=128, key_heads=16, value_heads=32, decays=1):
        q, v = mx.zeros((1, key_heads, 3, width)), mx.zeros((1, value_heads, 3, 128))
        return fused.fits(q, v, mx.zeros((1, value_heads, 3, decays)))

    assert fits() == (mx.metal.is_available() and hasattr(mx.fast, "gated_delta_update"))
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx.fast, "gated_delta_update", None, raising=False)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    assert fits()
    assert not any([fits(width=64), fits(key_heads=8), fits(value_heads=16), fits(decays=128)])
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.cpu))
    assert not fits()


def test_the_rule_equals_mlx_lms():
    """mlx-lm's gated delta rule gives the same outputs and the same state, which it keeps transposed."""
    theirs = pytest.importorskip("mlx_lm.models.gated_delta", reason="compares with mlx-lm, which is not installed")
    for rule in ("gated_deltanet", "kda"):
        q, k, v, decay, beta, state = inputs(rule, 70)
        left = mx.exp(decay if rule == "kda" else decay.squeeze(-1))
        by_token = [part.swapaxes(1, 2) for part in (q, k, v, left, beta)]
        y, last = theirs.gated_delta_ops(*by_token, state=state.swapaxes(-1, -2))
        ours = linear_attention(q, k, v, decay, beta, state)
        close(ours[0], y.swapaxes(1, 2))
        close(ours[1], last.swapaxes(-1, -2))
