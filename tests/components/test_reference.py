"""Fast paths and the slow references beside them agree, in values and in gradients."""

import attrs
import mlx.core as mx
import pytest

from lmx_core import spec
from lmx_core.components import reference, softmax
from lmx_core.components.masks import CAUSAL, Scope, View, causal
from lmx_core.components.softmax import attend
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
        lambda q, k, v: attend(q, k, v, 0.3, given, bias),
        lambda q, k, v: reference.attend(q, k, v, 0.3, allowed, bias),
        q,
        k,
        v,
    )


def test_a_causal_mask_counts_from_the_offset():
    assert causal(2, 1).tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sunk", [False, True])
@pytest.mark.parametrize("scope", [{}, {"window": 5}, {"chunk": 50}, {"window": 40, "keep": 3}], ids=str)
@pytest.mark.parametrize("past", [0, 90])
def test_attention_in_parts(scope, past, sunk, softcap, monkeypatch):
    """Queries that go in parts, over the keys that they can see, get what they get at once."""
    monkeypatch.setattr(softmax, "QUERIES", 16)
    length, total = 45, 45 + past
    q, k, v = normal(2, 4, length, 8), normal(2, 2, total, 8, seed=1), normal(2, 2, total, 8, seed=2)
    view = View(mask=CAUSAL, length=length, columns=total, scopes=(Scope(**scope),))
    allowed = reference.allowed(length, total, **scope)
    agree(
        lambda q, k, v, *sinks: attend(q, k, v, 0.3, view, softcap=softcap, sinks=sinks[0] if sinks else None),
        lambda q, k, v, *sinks: reference.attend(q, k, v, 0.3, allowed, None, softcap, sinks[0] if sinks else None),
        q,
        k,
        v,
        *([normal(4, seed=3)] if sunk else []),
    )


@pytest.mark.parametrize("name", ["alibi", "t5"])
def test_biases_in_parts(name, monkeypatch):
    """A bias is made for the part of the scores that it is added to."""
    monkeypatch.setattr(softmax, "QUERIES", 16)
    position = randomise(build("position", name, SMALL))
    q, k, v = normal(2, 4, 45, 8), normal(2, 2, 60, 8, seed=1), normal(2, 2, 60, 8, seed=2)
    whole = position.bias(mx.arange(15, 60), mx.arange(60))
    expected = reference.attend(q, k, v, 0.3, reference.allowed(45, 60), whole)
    close(attend(q, k, v, 0.3, CAUSAL, position.bias), expected, 1e-5)


def test_full_causal_attention_makes_no_square(monkeypatch):
    """Neither masks nor scores of T x T are made for it: counted over the operations that make arrays."""
    made, scored = [], []
    for name in ("arange", "where", "ones", "zeros"):
        real = getattr(mx, name)
        monkeypatch.setattr(mx, name, lambda *args, real=real, **given: made.append(real(*args, **given)) or made[-1])
    fused = mx.fast.scaled_dot_product_attention

    def attention(q, k, v, *, mask, **given):
        scored.append((q.shape[2], k.shape[2]))
        made.extend([mask] if isinstance(mask, mx.array) else [])
        return fused(q, k, v, mask=mask, **given)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", attention)
    length = 1024
    mx.eval(attend(normal(1, 4, length, 8), normal(1, 2, length, 8), normal(1, 2, length, 8), 0.3, CAUSAL))
    assert all(sum(size >= length for size in each.shape) < 2 for each in made)
    assert sum(queries for queries, _ in scored) == length
    assert all(queries * keys <= length * length / 16 for queries, keys in scored)


def frequencies(theta, width):
    return [theta ** (-2 * i / width) for i in range(width // 2)]


@pytest.mark.parametrize("theta", [100.0, 500_000.0])
@pytest.mark.parametrize("offset", [0, 11])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_rope(theta, offset, interleaved, fraction):
    chosen = spec("rope", interleaved=interleaved, fraction=fraction)
    position = build("position", chosen, attrs.evolve(SMALL, rope_theta=theta))
    q, k = normal(2, 4, 9, 16), normal(2, 2, 9, 16, seed=1)
    turned = frequencies(theta, int(16 * fraction))
    for i, x in enumerate((q, k)):
        agree(
            lambda x, i=i: position.rotate(x, x, offset)[i],
            lambda x: reference.rotate(x, turned, list(range(offset, offset + 9)), interleaved),
            x,
        )


PACKED = [[3, 4, 5, 0, 1], [8, 0, 1, 2, 3]]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("offset", [[3, 8], PACKED], ids=["rows", "tokens"])
def test_rows_with_offsets_of_their_own_are_rotated_alone(offset, interleaved):
    """Each row from a position of its own, or each token at one, as where several texts are packed in a row."""
    position = build("position", spec("rope", interleaved=interleaved, fraction=0.5), SMALL)
    q = normal(2, 4, 5, 16)
    both = position.rotate(q, q, mx.array(offset))[0]
    for row, places in enumerate(offset if offset is PACKED else [range(start, start + 5) for start in offset]):
        alone = reference.rotate(q[row : row + 1], frequencies(10_000.0, 8), [*places], interleaved)
        close(both[row : row + 1], alone, 1e-5)


def test_relative_buckets():
    position = build("position", spec("t5", n_buckets=8, max_distance=20), SMALL)
    expected = [reference.relative_bucket(distance, 8, 20) for distance in range(60)]
    assert position.buckets(mx.arange(60)).tolist() == expected
    assert len(set(expected)) == 8
    randomise(position)
    bias = position.bias(mx.array([[5, 6], [0, 1]]), mx.arange(7))
    assert bias.shape == (2, 4, 2, 7)
    assert bias[0, 1, 1, 2].item() == position.weight[expected[6 - 2], 1].item()


def test_sinusoids():
    position = build("position", "sinusoidal", SMALL)
    found = position.embed(mx.zeros((1, 40, 64)), 5)[0]
    close(found, mx.array([reference.sinusoids(i + 5, 64) for i in range(40)]), 1e-5)


def test_alibi():
    position = build("position", "alibi", attrs.evolve(SMALL, n_heads=8, n_kv_heads=8))
    close(position.bias(mx.arange(4, 9), mx.arange(9))[0], mx.array(reference.alibi(8, 5, 9)), 1e-6)


def test_alibi_slopes_between_powers_of_two():
    """Twelve heads, as the paper's code has them: those of eight, then every other one of sixteen."""
    position = build("position", "alibi", attrs.evolve(SMALL, n_heads=12, n_kv_heads=12, head_dim=16))
    slopes = [-row[0] for row in position.bias(mx.arange(2), mx.arange(2))[0, :, 1].tolist()]
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
