"""What the options of components compute, each formula written out once."""

import math

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from scipy.special import erf

from lmx_core import LanguageModel, make_config, spec
from lmx_core.components.activations import activation
from lmx_core.components.scalings import Rotary
from lmx_core.construct import build
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close

X = np.linspace(-4, 4, 41)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


ACTIVATIONS = {
    "gelu": X * (1 + erf(X / math.sqrt(2))) / 2,
    "gelu_tanh": X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))) / 2,
    "identity": X,
    "mish": X * np.tanh(softplus(X)),
    "quick_gelu": X * sigmoid(1.702 * X),
    "relu": np.maximum(X, 0),
    "relu2": np.maximum(X, 0) ** 2,
    "sigmoid": sigmoid(X),
    "silu": X * sigmoid(X),
    "tanh": np.tanh(X),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    close(activation(name)(mx.array(X, dtype=mx.float32)), mx.array(ACTIVATIONS[name], dtype=mx.float32), 1e-5)


def test_xielu():
    """Equation 10 of arXiv:2411.13010: as it begins, and with other parameters."""
    made = activation("xielu")
    for above, below in ((0.8, 0.8), (1.7, 0.9)):
        made.alpha_p = mx.array([math.log(math.expm1(above))])
        made.alpha_n = mx.array([math.log(math.expm1(below - 0.5))])
        expected = np.where(X > 0, above * X**2 + X / 2, below * (np.expm1(X) - X) + X / 2)
        close(made(mx.array(X, dtype=mx.float32)), mx.array(expected, dtype=mx.float32), 1e-5)
    begin = [activation("xielu").alpha_p.item(), activation("xielu").alpha_n.item()]
    assert begin == pytest.approx([0.2034, -1.0502], abs=1e-4)


LATE, LATER, LATEST = (
    (1 - smooth) / 4 + smooth for smooth in ((8192 * f / (2 * math.pi) - 1) / 999 for f in (0.1, 0.01, 0.001))
)
"""By what a llama3 scaling of 4 multiplies three frequencies between its two limits, 1 and 1000 waves in 8192 tokens."""
ROTARY = Rotary(width=8, head_dim=8, theta=10_000.0, max_seq_len=100)


@pytest.mark.parametrize(
    ("scaling", "length", "expected"),
    [
        (spec("linear", factor=4.0), 50, [10_000 ** (-i / 4) / 4 for i in range(4)]),
        (spec("dynamic", factor=4.0), 100, [10_000 ** (-i / 4) for i in range(4)]),
        (spec("dynamic", factor=4.0), 300, [(10_000 * 9 ** (8 / 6)) ** (-i / 4) for i in range(4)]),
        (spec("dynamic", alpha=50.0), 300, [(10_000 * 50 ** (8 / 6)) ** (-i / 4) for i in range(4)]),
        # waves of 6, 63, 628 and 6283 tokens, of which those longer than 8192 / 100 are stretched: at once, and by and by
        (spec("llama3", factor=4.0, low_freq_factor=100.0, high_freq_factor=100.0), 9, [1.0, 0.1, 0.0025, 0.00025]),
        (
            spec("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=1e3),
            9,
            [1.0, 0.1 * LATE, 0.01 * LATER, 1e-3 * LATEST],
        ),
        (spec("proportional", fraction=0.5, factor=2.0), 9, [0.5, 0.05, 0.0, 0.0]),
        (spec("proportional", fraction=0.75), 9, [1.0, 0.1, 0.01, 0.0]),
    ],
    ids=str,
)
def test_scalings(scaling, length, expected):
    frequencies, factor = build("scaling", scaling, ROTARY).frequencies(length)
    assert frequencies == pytest.approx(expected)
    assert factor == 1


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({}, 0.1 * math.log(4) + 1),
        ({"attention_factor": 1.3}, 1.3),
        ({"mscale": 1.0, "mscale_all_dim": 0.5}, (0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)),
    ],
    ids=str,
)
def test_yarn_sharpens_scores(options, factor):
    assert build("scaling", spec("yarn", factor=4.0, **options), ROTARY).frequencies(1)[1] == pytest.approx(factor)


@pytest.mark.parametrize(
    ("scaling", "factor"),
    [
        (spec("yarn", factor=4.0, mscale=1.0, mscale_all_dim=0.5), (0.05 * math.log(4) + 1) ** 2),
        (spec("yarn", factor=4.0, mscale_all_dim=0.5, attention_factor=1.3), (0.05 * math.log(4) + 1) ** 2),
        (spec("yarn", factor=4.0), 1.0),
        (spec("linear", factor=4.0), 1.0),
    ],
    ids=str,
)
def test_whole_scores_have_a_factor(scaling, factor):
    """For a mixer that lets a part of each head be turned (DeepSeek): `m(mscale_all_dim) ** 2`."""
    assert build("position", spec("rope", scaling=scaling), SMALL).score_factor == pytest.approx(factor)


@pytest.mark.parametrize(("shift", "every"), [(0, 4), (1, 4), (1, 3)])
def test_queries_grow(shift, every):
    chosen = spec("gqa", query_growth=0.5, query_growth_every=every, query_growth_shift=shift)
    found = build("attention", chosen, SMALL).grown(mx.ones((1, 4, 20, 16)), 0)[0, 0, :, 0].tolist()
    assert found == pytest.approx([1 + 0.5 * math.log(1 + (i + shift) // every) for i in range(20)])


def test_a_gate_on_the_output():
    """Number by number, of the input, before the last map."""
    gated = randomise(build("attention", spec("gqa", output_gate=True), SMALL))
    plain = build("attention", "gqa", SMALL)
    plain.load_weights([(key, value) for key, value in tree_flatten(gated.parameters()) if "gate" not in key])
    x, weight, bias = mx.random.normal((2, 7, 64)), gated.o_proj.weight, gated.o_proj.bias
    plain.o_proj.weight, plain.o_proj.bias = mx.eye(64), mx.zeros(64)
    said, gate = plain(x, "causal")[0], x @ gated.gate_proj.weight.T + gated.gate_proj.bias
    close(gated(x, "causal")[0], (said / (1 + mx.exp(-gate))) @ weight.T + bias, 1e-5)


def test_a_norm_after_the_position():
    """Weights of the norm then meet numbers that were turned before."""
    chosen = spec("gqa", qk_norm="rms_norm", qk_norm_after_position=True)
    made = randomise(build("attention", chosen, SMALL))
    position = build("position", "rope", SMALL)
    x = mx.random.normal((1, 9, 64), key=mx.random.key(1))
    q, k, v = (each(x).reshape(1, 9, -1, 16).transpose(0, 2, 1, 3) for each in (made.q_proj, made.k_proj, made.v_proj))
    q, k = position.rotate(q, k, 0)
    y = mx.fast.scaled_dot_product_attention(made.q_norm(q), made.k_norm(k), v, scale=0.25, mask="causal")
    close(made(x, "causal", position=position)[0], made.o_proj(y.transpose(0, 2, 1, 3).flatten(2)), 1e-5)


def test_alibi_in_bfloat16():
    """Slopes and their products with the position of the key are rounded, as Falcon was trained."""
    config = attrs.evolve(SMALL, n_heads=6, n_kv_heads=6, head_dim=16)
    found = build("position", spec("alibi", in_bfloat16=True, scale=0.25), config).bias(
        mx.arange(299, 300), mx.arange(300)
    )
    slopes = mx.array([2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]).astype(mx.bfloat16)
    rounded = (slopes[:, None] * mx.arange(300).astype(mx.bfloat16)).astype(mx.float32)
    close(found[0, :, 0], 0.25 * rounded, 0.0)
    exact = 0.25 * slopes.astype(mx.float32)[:, None] * mx.arange(300)
    assert mx.abs(found[0, :, 0] - exact).max() > 0


def test_alibi_slopes_from_above():
    """Six heads of eight: the second, fourth, ... slope, then the first, third, ..."""
    config = attrs.evolve(SMALL, n_heads=6, n_kv_heads=6, head_dim=16)
    bias = build("position", spec("alibi", from_above=True), config).bias(mx.arange(1, 2), mx.arange(2))
    assert bias[0, :, 0, 0].tolist() == [-(2.0**-i) for i in (2, 4, 6, 8, 1, 3)]


# Architectures that transformers does not have ---------------------------------------------------------------------------


def test_minicpm():
    """What its report says of the 2.4b model: numbers without embeddings, and three multipliers."""
    config = make_config("minicpm", size="2b")
    assert config.embedding_multiplier == 12
    assert config.logit_multiplier == pytest.approx(256 / 2304)
    assert config.block.layout.options["residual_multiplier"] == pytest.approx(1.4 / math.sqrt(40))
    embeddings = config.vocab_size * config.block.d_model
    assert LanguageModel(config).count_parameters() - embeddings == 2_442_057_984
    small = make_config("minicpm", size="1b")
    assert LanguageModel(small).count_parameters() - small.vocab_size * small.block.d_model == 1_247_442_432


@pytest.mark.parametrize(
    ("size", "layers", "width", "heads", "head_dim"),
    [
        ("3-125m", 12, 768, 12, 64),
        ("3-350m", 24, 1024, 16, 64),
        ("3-760m", 24, 1536, 16, 96),
        ("3-1.3b", 24, 2048, 24, 128),
        ("3-2.7b", 32, 2560, 32, 80),
        ("3-6.7b", 32, 4096, 32, 128),
        ("3-13b", 40, 5140, 40, 128),
        ("3-175b", 96, 12_288, 96, 128),
    ],
)
def test_gpt3(size, layers, width, heads, head_dim):
    """Table 2.1 of arXiv:2005.14165."""
    config = make_config("gpt", size=size)
    block = config.block
    assert (config.n_layers, block.d_model, block.n_heads, block.head_dim) == (layers, width, heads, head_dim)
    assert (block.d_ff, block.max_seq_len, config.vocab_size) == (4 * width, 2048, 50_257)
