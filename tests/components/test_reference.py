"""Fast paths and the slow references beside them agree, in values and in gradients."""

import attrs
import mlx.core as mx
import pytest

from lmx_core.components import attention, reference
from lmx_core.components.masks import CAUSAL, causal
from lmx_core.construct import build
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def values_and_gradients(function, *inputs):
    """The result, and the gradients of a random projection of it."""
    weights = normal(*function(*inputs).shape, seed=99)
    gradients = mx.grad(lambda *inputs: (function(*inputs) * weights).sum(), argnums=list(range(len(inputs))))(*inputs)
    return [function(*inputs), *gradients]


def agree(fast, slow, *inputs):
    for ours, theirs in zip(values_and_gradients(fast, *inputs), values_and_gradients(slow, *inputs), strict=True):
        close(ours, theirs, 1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("past", [0, 5])
@pytest.mark.parametrize("mask", ["all", "causal", "boolean"])
@pytest.mark.parametrize("biased", [False, True])
def test_attention(kv_heads, past, mask, biased):
    length, total = 7, 7 + past
    q, k, v = normal(2, 4, length, 8), normal(2, kv_heads, total, 8, seed=1), normal(2, kv_heads, total, 8, seed=2)
    bias = normal(1, 4, length, total, seed=3) if biased else None
    sparse = causal(length, past) & (mx.random.uniform(shape=(length, total), key=mx.random.key(4)) < 0.7)
    sparse = sparse | (mx.arange(total) == 0)
    given, allowed = {"all": (None, None), "causal": (CAUSAL, causal(length, past)), "boolean": (sparse, sparse)}[mask]
    agree(
        lambda q, k, v: attention.attend(q, k, v, 0.3, given, bias),
        lambda q, k, v: reference.attend(q, k, v, 0.3, allowed, bias),
        q,
        k,
        v,
    )


def test_a_causal_mask_counts_from_the_offset():
    assert causal(2, 1).tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("theta", [100.0, 10_000.0, 500_000.0])
@pytest.mark.parametrize("offset", [0, 11])
def test_rope(theta, offset):
    position = build("position", "rope", attrs.evolve(SMALL, rope_theta=theta))
    q, k = normal(2, 4, 9, 16), normal(2, 2, 9, 16, seed=1)
    for i, x in enumerate((q, k)):
        agree(
            lambda x, i=i: position.rotate(x, x, offset)[i],
            lambda x: reference.rotate(x, theta, list(range(offset, offset + 9))),
            x,
        )


def test_rows_with_offsets_of_their_own_are_rotated_alone():
    position = build("position", "rope", SMALL)
    q = normal(2, 4, 9, 16)
    both = position.rotate(q, q, mx.array([3, 8]))[0]
    close(both[:1], reference.rotate(q[:1], 10_000.0, list(range(3, 12))), 1e-5)
    close(both[1:], reference.rotate(q[1:], 10_000.0, list(range(8, 17))), 1e-5)


def test_sinusoids():
    position = build("position", "sinusoidal", SMALL)
    found = position.embed(mx.zeros((1, 40, 64)), 5)[0]
    close(found, mx.array([reference.sinusoids(i + 5, 64) for i in range(40)]), 1e-5)


def test_alibi():
    position = build("position", "alibi", attrs.evolve(SMALL, n_heads=8, n_kv_heads=8))
    close(position.bias(5, 4)[0], mx.array(reference.alibi(8, 5, 9)), 1e-6)


def test_alibi_slopes_between_powers_of_two():
    """Twelve heads, as the paper's code has them: those of eight, then every other one of sixteen."""
    position = build("position", "alibi", attrs.evolve(SMALL, n_heads=12, n_kv_heads=12, head_dim=16))
    slopes = [-row[0] for row in position.bias(2)[0, :, 1].tolist()]
    assert slopes == pytest.approx([2.0**-i for i in range(1, 9)] + [2 ** -(0.5 + i) for i in range(4)])


@pytest.mark.parametrize("name", ["rms_norm", "layer_norm"])
def test_norms(name):
    norm = randomise(build("norm", name, attrs.evolve(SMALL, bias=True)))
    bias = [norm.bias] if "bias" in norm else []

    def fast(x, *weights):
        norm.update(dict(zip(("weight", "bias"), weights, strict=False)))
        return norm(x)

    slow = getattr(reference, name)
    agree(fast, lambda x, *weights: slow(x, *weights, SMALL.norm_eps), normal(2, 5, 64) * 3 + 1, norm.weight, *bias)


def test_a_norm_has_the_width_that_is_asked_for():
    assert build("norm", "rms_norm", SMALL, width=8).weight.shape == (8,)
