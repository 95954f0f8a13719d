"""The forms for training on a CPU compute what MLX's kernels do: values, gradients, and gradients of those."""

import math
import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from packaging.version import Version
from scipy.special import erf, expit

from lmx_core import LanguageModel, make_config
from lmx_core.components import vectorised
from lmx_core.components.activations import activation
from lmx_core.components.masks import CAUSAL, causal
from lmx_core.testing.checks import close

pytestmark = pytest.mark.skipif(
    mx.default_device() != mx.Device(mx.cpu) or shutil.which("g++") is None, reason="needs MLX on a CPU, and g++"
)
X = np.concatenate([np.linspace(-30, 30, 4001), [0, -0.0, 1e-30, -1e-30, -87, -88, -200, 200, 1e4, -1e4, 1e10, -1e10]])
DISTRIBUTION, DENSITY = (1 + erf(X / math.sqrt(2))) / 2, np.exp(-np.minimum(X * X, 1e4) / 2) / math.sqrt(2 * math.pi)
BENT = math.sqrt(8 / math.pi) * (X + 0.044715 * X**3)


def of_sigmoid(inner, slope):
    """`x sigmoid(inner)` and its derivative; beyond what exp takes in, the latter's second part is 0."""
    s = expit(inner)
    with np.errstate(over="ignore", invalid="ignore"):
        return X * s, s + np.where(np.abs(inner) > 500, 0, X * s * (1 - s) * slope)


EXACT = {
    "gelu": (X * DISTRIBUTION, DISTRIBUTION + np.where(np.abs(X) > 100, 0, X * DENSITY)),
    "gelu_tanh": of_sigmoid(BENT, math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * X * X)),
    "quick_gelu": of_sigmoid(1.702 * X, 1.702),
    "sigmoid": (expit(X), expit(X) * expit(-X)),
    "silu": of_sigmoid(X, 1),
}
HEADS = {"all": (4, 4), "groups": (6, 2), "one": (3, 1)}


def single(function):
    """The derivative of a function of one number, at each number of an array."""
    return mx.grad(lambda x: function(x).sum())


def weighed(function):
    """The gradients of a function's numbers, weighed so that each counts."""

    def loss(*arguments):
        out = function(*arguments)
        return (out * mx.sin(mx.arange(out.size)).reshape(out.shape)).sum()

    return lambda *arguments: mx.grad(loss, argnums=[*range(len(arguments))])(*arguments)


def compiled(function, *arguments):
    return vectorised.compiled(function)(*arguments)


def drawn(*shapes, scale=1.0):
    mx.random.seed(5)
    return [scale * mx.random.normal(shape) for shape in shapes]


def attended(mask, sinks=None, scale=0.3):
    """Both forms of attention as functions of q, k, v and whatever else they are differentiated by."""

    def plain(q, k, v, *more):
        own = more[0] if more else sinks
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask, sinks=own)

    def fast(q, k, v, *more):
        own = more[0] if more else sinks
        allowed = causal(q.shape[2], k.shape[2] - q.shape[2]) if isinstance(mask, str) else mask
        return at_once(q, k, v, scale, allowed, own)

    return plain, fast


def at_once(q, k, v, scale, mask=None, sinks=None):
    part = vectorised.Part((0, q.shape[2]), (0, k.shape[2]), mask)
    return vectorised.attention(q, k, v, scale, [part], sinks)


def hidden_at_random(*shape):
    """A mask under which every query sees something."""
    mask = np.random.default_rng(0).random(shape) < 0.5
    mask[..., 0] = True
    return mx.array(mask)


def agree(found, expected, tolerance):
    """Trees of arrays."""
    for (path, each), (_, other) in zip(tree_flatten(found), tree_flatten(expected), strict=True):
        assert mx.abs(each - other).max().item() <= tolerance * max(1, mx.abs(other).max().item()), path


MASKS = {
    "none": None,
    "causal": CAUSAL,
    "boolean": hidden_at_random(7, 11),
    "of rows": hidden_at_random(2, 1, 7, 11),
    "added": mx.where(hidden_at_random(2, 1, 7, 11), mx.array(0.5), -mx.inf),
}


@pytest.mark.parametrize("name", EXACT)
def test_activations_and_their_derivatives_are_exact(name):
    """Within 2e-6 of float64, relative above 1, between -30 and 30 and far beyond."""
    assert name in vectorised.ACTIVATIONS
    x, form = mx.array(X, dtype=mx.float32), vectorised.ACTIVATIONS[name]
    for found, exact in zip((compiled(form, x), compiled(single(form), x)), EXACT[name], strict=True):
        error = np.abs(np.array(found, np.float64) - exact) / np.maximum(1, np.abs(exact))
        assert error.max() < 2e-6


def test_every_form_belongs_to_an_activation():
    assert sorted(EXACT) == sorted(vectorised.ACTIVATIONS)
    for name in vectorised.ACTIVATIONS:
        activation(name)


@pytest.mark.parametrize("name", EXACT)
def test_second_derivatives_of_activations(name):
    """Both ways in which curvature is measured: a gradient of a gradient, and a gradient along a direction."""
    x = mx.array(np.linspace(-6, 6, 101), dtype=mx.float32)
    form, plain = vectorised.ACTIVATIONS[name], activation(name)
    expected = single(single(plain))(x)
    close(compiled(single(single(form)), x), expected, 2e-5)
    close(compiled(lambda x: mx.jvp(single(form), [x], [mx.ones_like(x)])[1][0], x), expected, 2e-5)


def test_powers():
    """2^t within 2e-7 of its size where it is a normal number; not a number stays that; what is far below is 0."""
    t = np.concatenate([np.linspace(-86.9, 0, 10_001), np.arange(-86.0, 1)]).astype(np.float32)
    zero = mx.zeros((1,))
    found = np.array(compiled(vectorised.power_below, mx.array(t), zero), np.float64)
    exact = np.exp2(t.astype(np.float64))
    near = t > -60
    assert np.abs(found / exact - 1)[near].max() < 3e-7
    assert np.abs(found - exact).max() < 2e-7
    far = mx.array([-87.0, -87.5, -1e9, -3e38, -math.inf])
    assert np.array_equal(compiled(vectorised.power_below, far, zero), [0, 0, 0, 0, 0])
    odd = mx.array([0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], dtype=mx.uint32).view(mx.float32)
    for found in (compiled(vectorised.power_below, odd, zero), compiled(vectorised.sigmoid, odd)):
        assert np.isnan(found).all()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("sinks", [False, True])
def test_attention_and_its_gradients(mask, heads, sinks):
    h, shared = HEADS[heads]
    q, k, v, sunk = drawn((2, h, 7, 8), (2, shared, 11, 8), (2, shared, 11, 5), (h,), scale=1.5)
    arguments = (q, k, v, sunk) if sinks else (q, k, v)
    plain, fast = attended(MASKS[mask])
    close(compiled(fast, *arguments), plain(*arguments), 2e-6)
    for found, expected in zip(compiled(weighed(fast), *arguments), weighed(plain)(*arguments), strict=True):
        close(found, expected, 1e-5)


def test_bias_of_each_head():
    """A float mask with heads of its own, in groups."""
    q, k, v, bias = drawn((2, 6, 7, 8), (2, 2, 7, 8), (2, 2, 7, 8), (1, 6, 7, 7))
    fast = lambda q, k, v, bias: at_once(q, k, v, 0.3, bias)  # noqa: E731
    plain = lambda q, k, v, bias: mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask=bias)  # noqa: E731
    close(compiled(fast, q, k, v, bias), plain(q, k, v, bias), 2e-6)
    for found, expected in zip(compiled(weighed(fast), q, k, v, bias), weighed(plain)(q, k, v, bias), strict=True):
        close(found, expected, 1e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 100.0, 1e4])
def test_attention_of_small_and_large_scores(scale):
    """Scores of up to 1e8 give what MLX's kernel gives: no overflow, no sum of zeros."""
    q, k, v = drawn((2, 2, 9, 8), (2, 2, 9, 8), (2, 2, 9, 8))
    plain, fast = attended(CAUSAL)
    q, k = q * scale, k * scale
    found, expected = compiled(fast, q, k, v), plain(q, k, v)
    assert mx.isfinite(found).all().item()
    close(found, expected, 1e-4 if scale > 1 else 2e-6)
    assert all(mx.isfinite(each).all().item() for each in compiled(weighed(fast), q, k, v))


def test_a_sink_that_is_far_above_all_scores():
    """It takes nearly all of the weight, and nothing is too large."""
    q, k, v = drawn((1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8))
    plain, fast = attended(CAUSAL)
    for sunk in (mx.array([200.0, -200.0]), mx.array([3.0, 30.0])):
        close(compiled(fast, q, k, v, sunk), plain(q, k, v, sunk), 2e-6)
        for found, expected in zip(compiled(weighed(fast), q, k, v, sunk), weighed(plain)(q, k, v, sunk), strict=True):
            close(found, expected, 1e-5)


def test_a_sigmoid_is_exact_in_its_size():
    """As far as it is a normal number."""
    x = np.linspace(-86, 86, 40_001).astype(np.float32)
    exact = expit(x.astype(np.float64))
    error = np.abs(np.array(compiled(vectorised.sigmoid, mx.array(x)), np.float64) / exact - 1)
    assert (error < 3e-7 + 1e-7 * np.abs(x)).all()


@pytest.mark.parametrize("sinks", [False, True])
def test_parts_over_overlapping_keys(sinks):
    """A window over keys, the last of which nobody sees: the parts together are the whole, gradients included."""
    q, k, v, sunk = drawn((2, 4, 10, 8), (2, 2, 13, 8), (2, 2, 13, 5), (4,), scale=1.5)
    bounds = [((0, 4), (0, 6)), ((4, 7), (2, 9)), ((7, 10), (5, 12))]
    seen = np.zeros((10, 13), bool)
    for queries, keys in bounds:
        seen[slice(*queries), slice(*keys)] = True
    parts = [vectorised.Part(*each) for each in bounds]
    arguments = (q, k, v, sunk) if sinks else (q, k, v)
    fast = lambda q, k, v, *own: vectorised.attention(q, k, v, 0.3, parts, *own)  # noqa: E731
    plain, _ = attended(mx.array(seen))
    close(compiled(fast, *arguments), plain(*arguments), 2e-6)
    for found, expected in zip(compiled(weighed(fast), *arguments), weighed(plain)(*arguments), strict=True):
        close(found, expected, 1e-5)


def test_a_query_that_sees_nothing_stays_finite():
    """As with MLX's kernel it then sees all alike."""
    q, k, v = drawn((1, 2, 3, 8), (1, 2, 3, 8), (1, 2, 3, 8))
    mask = mx.array([[True, False, False], [False, False, False], [True, True, True]])
    plain, fast = attended(mask)
    close(compiled(fast, q, k, v), plain(q, k, v), 2e-6)


def test_what_is_not_a_number_shows():
    """A score that is no number makes its whole row none, and no other row."""
    q, k, v = drawn((1, 1, 3, 8), (1, 1, 3, 8), (1, 1, 3, 8))
    q[0, 0, 1, 0] = math.nan
    found = np.isnan(compiled(lambda q: at_once(q, k, v, 0.3), q)[0, 0]).all(axis=-1)
    assert found.tolist() == [False, True, False]


def test_hidden_keys_count_for_nothing():
    """Not the least bit of a hidden value comes through, however large it is."""
    q, k, v = drawn((1, 2, 9, 8), (1, 2, 9, 8), (1, 2, 9, 8))
    _, fast = attended(CAUSAL)
    before = compiled(fast, q, k, v)
    k[:, :, 5:], v[:, :, 5:] = 1e3, 1e30
    assert mx.array_equal(before[:, :, :5], compiled(fast, q, k, v)[:, :, :5])


@pytest.mark.skipif(Version(mx.__version__) < Version("0.32"), reason="MLX 0.31 differentiates a custom rule wrongly")
def test_curvature_of_attention():
    """A Hessian times a vector, by a gradient of a gradient and along a direction."""
    q, k, v = drawn((1, 4, 7, 8), (1, 2, 7, 8), (1, 2, 7, 8))
    plain, fast = attended(CAUSAL)
    along = drawn(q.shape, k.shape, v.shape, scale=0.7)

    def of_gradient(form):
        return mx.grad(lambda *a: sum((g * t).sum() for g, t in zip(weighed(form)(*a), along, strict=True)), (0, 1, 2))

    def along_direction(form):
        return lambda *a: mx.jvp(lambda *b: list(weighed(form)(*b)), list(a), along)[1]

    expected = along_direction(plain)(q, k, v)
    for way in (of_gradient, along_direction):
        for found, exact in zip(compiled(way(fast), q, k, v), expected, strict=True):
            close(found, exact, 2e-5)


def test_forms_serve_where_a_step_is_compiled_in_float32():
    """Not in plain code, not for other numbers, not on another device."""
    single, half = mx.zeros((2,)), mx.zeros((2,), mx.bfloat16)
    assert not vectorised.active(single)
    with vectorised.tracing():
        assert vectorised.active(single)
        assert not vectorised.active(half)
        assert not vectorised.active(single, half)
    assert not vectorised.active(single)


def test_without_a_compiler_kernels_stay(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    vectorised._fuses.cache_clear()
    try:
        with vectorised.tracing():
            assert not vectorised.active(mx.zeros((2,)))
    finally:
        monkeypatch.undo()
        vectorised._fuses.cache_clear()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_other_numbers_fall_back(dtype):
    """In half precision a compiled function gives what it gives otherwise."""
    (x,) = drawn((64,))
    silu = activation("silu")
    assert mx.array_equal(compiled(silu, x.astype(dtype)), mx.compile(silu)(x.astype(dtype)))


@pytest.mark.parametrize("name", ["gpt", "llama"])
def test_a_model_learns_the_same(name, monkeypatch):
    """Loss and gradients of a whole model, in several parts of its queries."""
    monkeypatch.setattr(vectorised, "QUERIES", 8)
    mx.random.seed(0)
    model = LanguageModel(make_config(name, size="tiny"))
    tokens = mx.random.randint(0, model.config.vocab_size, (2, 21))
    calls = []
    attention = vectorised.attention
    monkeypatch.setattr(vectorised, "attention", lambda *a, **b: calls.append(1) or attention(*a, **b))

    def loss(parameters):
        model.update(parameters)
        logits, _ = model(tokens)
        return (logits * mx.sin(mx.arange(logits.size)).reshape(logits.shape)).sum()

    weights = model.trainable_parameters()
    expected = mx.value_and_grad(loss)(weights)
    assert not calls
    found = vectorised.compiled(mx.value_and_grad(loss))(weights)
    assert len(calls) == model.config.n_layers
    agree(found, expected, 2e-4)
