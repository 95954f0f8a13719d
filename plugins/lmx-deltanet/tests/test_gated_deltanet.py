"""What the gated delta rule promises beyond what every mixer does."""

import itertools
from pathlib import Path

import attrs
import mlx.core as mx
import pytest

from lmx_core import BlockConfig, ConfigurableBlock, LanguageModel, ModelConfig, build, generate, load_model, spec
from lmx_core.census import census
from lmx_core.errors import ConfigError
from lmx_core.protocols import Cache
from lmx_core.testing import SMALL, close, conformance, randomise
from lmx_core.train import main
from lmx_deltanet import GatedDeltaNet, GatedDeltaNetOptions, RecurrentCache, reference
from lmx_deltanet.convolution import ShortConvolution
from lmx_deltanet.mixer import unit
from lmx_deltanet.rule import gated_delta_rule, unit_lower_inverse

HERE = Path(__file__).parent
GROUPED = {"n_key_heads": 2, "n_value_heads": 6, "key_head_dim": 8, "value_head_dim": 16, "conv_size": 3}


@conformance("attention.lmx-deltanet/gated_deltanet", config={"bias": True})
def test_gated_deltanet_keeps_the_promises_of_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/gated_deltanet", options=GROUPED)
def test_key_heads_that_serve_several_values_keep_them(check):
    check()


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def inputs(length, fading=1.0, batch=2, heads=3, keys=8, values=5):
    """Queries, keys, values, decays, betas and a state, as the mixer makes them."""
    q, k = unit(normal(batch, heads, length, keys)), unit(normal(batch, heads, length, keys, seed=1))
    decay = -fading * mx.random.uniform(shape=(batch, heads, length), key=mx.random.key(2))
    beta = mx.sigmoid(2 * normal(batch, heads, length, seed=3))
    return q, k, normal(batch, heads, length, values, seed=4), decay, beta, normal(batch, heads, keys, values, seed=5)


def outputs_and_gradients(rule, arrays):
    """Outputs, the last state, and the gradients of a random projection of both in every input."""
    y, state = rule(*arrays)
    weights = normal(*y.shape, seed=6), normal(*state.shape, seed=7)

    def projected(*arrays):
        return sum((part * weight).sum() for part, weight in zip(rule(*arrays), weights, strict=True))

    return y, state, *mx.grad(projected, argnums=list(range(6)))(*arrays)


@pytest.mark.parametrize("fading", [0.0, 0.1, 50.0])
@pytest.mark.parametrize("length", [1, 7, 63, 64, 65, 200])
def test_chunks_follow_the_recurrence(length, fading):
    """The chunked rule and its token-by-token reference agree in outputs, states and all gradients."""
    arrays = inputs(length, fading)
    for fast, slow in zip(*(outputs_and_gradients(rule, arrays) for rule in (gated_delta_rule, reference.gated_delta_rule)),
                          strict=True):  # fmt: skip
        assert mx.isfinite(fast).all()
        close(fast, slow)


@pytest.mark.parametrize("size", [1, 5, 16, 64, 100])
def test_any_chunk_length_gives_the_same(size):
    arrays = inputs(70)
    for ours, theirs in zip(gated_delta_rule(*arrays, size=size), reference.gated_delta_rule(*arrays), strict=True):
        close(ours, theirs)


def test_a_key_that_comes_again_and_again():
    """The worst case for the triangular system: one key throughout, which is overwritten with all force."""
    q, _, v, decay, beta, state = inputs(128)
    k = mx.broadcast_to(unit(normal(8)), q.shape)
    arrays = q, k, v, mx.zeros_like(decay), mx.ones_like(beta), state
    for fast, slow in zip(*(outputs_and_gradients(rule, arrays) for rule in (gated_delta_rule, reference.gated_delta_rule)),
                          strict=True):  # fmt: skip
        close(fast, slow)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 64])
def test_triangular_systems_are_solved(size):
    a = mx.tril(normal(3, size, size) / max(size, 2) ** 0.5, k=-1)
    close(unit_lower_inverse(a) @ (mx.eye(size) + a), mx.broadcast_to(mx.eye(size), a.shape), 1e-5)


@pytest.mark.parametrize("cut", [1, 2, 6])
def test_the_convolution_follows_the_sum(cut):
    """In one call, and in two with the tail of the first."""
    convolution, x = randomise(ShortConvolution(6, 4)), normal(2, 9, 6)
    expected = reference.convolution(x, convolution.weight)
    close(convolution(x)[0], expected, 1e-5)
    first, tail = convolution(x[:, :cut])
    close(mx.concatenate([first, convolution(x[:, cut:], tail)[0]], axis=1), expected, 1e-5)


def test_a_layer_of_qwen3_5():
    """The first layer of a Qwen3.5 gives the numbers that transformers 5.23 computes with the same weights.

    Its norms before the sublayers are stored as what is added to 1.
    """
    weights = mx.load(str(HERE / "qwen3_5.safetensors"))
    options = {"n_key_heads": 2, "n_value_heads": 6, "key_head_dim": 8, "value_head_dim": 12}
    block = ConfigurableBlock(
        BlockConfig(attention=spec("gated_deltanet", **options), ffn="gated", norm="rms_norm", position="none", bias=False,
                    d_model=48, n_heads=4, d_ff=80, norm_eps=1e-3)
    )  # fmt: skip
    names = {"qkv_proj": "in_proj_qkv", "gate_proj": "in_proj_z", "beta_proj": "in_proj_b", "decay_proj": "in_proj_a",
             "norm": "norm", "out_proj": "out_proj"}  # fmt: skip
    theirs = {f"attention.{ours}.weight": weights[f"linear_attn.{name}.weight"] for ours, name in names.items()}
    theirs |= {f"attention.{name}": weights[f"linear_attn.{name}"] for name in ("A_log", "dt_bias")}
    theirs["attention.convolution.weight"] = weights["linear_attn.conv1d.weight"][:, 0]
    theirs |= {f"ffn.{name}.weight": weights[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")}
    theirs["layout.attention_norm.weight"] = 1 + weights["input_layernorm.weight"]
    theirs["layout.ffn_norm.weight"] = 1 + weights["post_attention_layernorm.weight"]
    block.load_weights(list(theirs.items()))
    x, expected = weights["input"], weights["output"]

    close(block(x, "causal")[0], expected, 2e-5)
    cache = block.make_cache()
    close(mx.concatenate([block(x[:, t : t + 1], None, cache)[0] for t in range(7)], axis=1), expected, 2e-5)


def test_the_rule_equals_mlx_lms():
    """mlx-lm's gated delta rule gives the same outputs and the same state, which it keeps transposed."""
    theirs = pytest.importorskip("mlx_lm.models.gated_delta", reason="compares with mlx-lm, which is not installed")
    q, k, v, decay, beta, state = inputs(70)
    by_token = [part.swapaxes(1, 2) for part in (q, k, v, mx.exp(decay), beta)]
    y, last = theirs.gated_delta_ops(*by_token, state=state.swapaxes(-1, -2))
    ours = gated_delta_rule(q, k, v, decay, beta, state)
    close(ours[0], y.swapaxes(1, 2))
    close(ours[1], last.swapaxes(-1, -2))


def deltanet(**options):
    return randomise(GatedDeltaNet(SMALL, GatedDeltaNetOptions(**options)))


def test_memory_does_not_grow():
    """The cache holds the state and the tail of the convolution, however many tokens came."""
    module = deltanet(**GROUPED)
    cache, sizes = module.make_cache(), []
    for length in (1, 7, 300):
        module(normal(2, length, 64), "causal" if length > 1 else None, cache)
        sizes.append(sum(part.size for part in cache.state[1:]))
    channels = 2 * (2 * 8) + 6 * 16
    assert sizes == [2 * (6 * 8 * 16 + (3 - 1) * channels)] * 3
    assert cache.offset == 308


def test_a_recurrent_cache_cannot_be_trimmed():
    """It says so, and forgets nothing; a mark taken before brings the earlier state back."""
    module, x = deltanet(), normal(1, 12, 64)
    cache = module.make_cache()
    assert isinstance(cache, Cache)
    module(x[:, :5], "causal", cache)
    mark = cache.checkpoint()
    expected, _ = module(x[:, 5:], "causal", cache)
    assert (cache.is_trimmable(), cache.trim(3), cache.offset) == (False, 0, 12)
    cache.restore(mark)
    assert cache.offset == 5
    close(module(x[:, 5:], "causal", cache)[0], expected, 0.0)


def test_a_mark_of_an_empty_cache():
    """What was there before the first token can be restored too, and saved."""
    module, x = deltanet(), normal(1, 6, 64)
    cache, fresh = module.make_cache(), RecurrentCache()
    mark = cache.checkpoint()
    fresh.state = cache.state
    expected, _ = module(x, "causal", cache)
    cache.restore(mark)
    for empty in (cache, fresh):
        close(module(x, "causal", empty)[0], expected, 0.0)


def test_a_state_stays_in_float32():
    """In bfloat16 a long sum would lose what single tokens add."""
    module = deltanet()
    module.set_dtype(mx.bfloat16)
    y, cache = module(normal(1, 9, 64).astype(mx.bfloat16), "causal", module.make_cache())
    assert (y.dtype, cache.arrays[1].dtype) == (mx.bfloat16, mx.float32)


def test_new_layers_remember():
    """Before training, a head forgets between 0.1 % and 80 % of its state with a token."""
    untrained = GatedDeltaNet(attrs.evolve(SMALL, n_heads=64, n_kv_heads=64, head_dim=4), GatedDeltaNetOptions())
    left = mx.exp(untrained.decay(mx.zeros((1, 1, 64))))
    assert mx.all((left > 0.2) & (left < 0.9991)).item()


def test_a_hybrid_generates_as_in_one_pass():
    """Recurrent layers and attention side by side, each with a cache of its kind."""
    full = attrs.evolve(SMALL, position="rope")
    delta = attrs.evolve(SMALL, attention="gated_deltanet")
    config = ModelConfig(block=full, block_configs=[delta, delta, delta, full], n_layers=4, vocab_size=50)
    model = randomise(LanguageModel(config)).eval()
    tokens = mx.random.randint(0, 50, (2, 90), key=mx.random.key(1))
    cache = model.make_cache()
    cuts = [0, 70, 71, 72, 90]
    parts = [model(tokens[:, a:b], cache=cache)[0] for a, b in itertools.pairwise(cuts)]
    close(mx.concatenate(parts, axis=1), model(tokens)[0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="n_value_heads=4 is not a multiple of n_key_heads=3"):
        build("attention", spec("gated_deltanet", n_key_heads=3), SMALL)
    with pytest.raises(ConfigError, match="'gated_deltanet' takes no position; 'rope' provides a rotation"):
        ConfigurableBlock(attrs.evolve(SMALL, attention="gated_deltanet", position="rope"))


def test_a_mask_that_it_would_ignore_is_refused():
    with pytest.raises(ConfigError, match="knows no order but the causal one"):
        deltanet()(normal(1, 3, 64), mx.ones((3, 3), mx.bool_))


def test_the_readme_trains(tmp_path, monkeypatch):
    """The README's example runs; its config is trained, saved with the plugin's name, loaded, and generates."""
    monkeypatch.chdir(tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    exec(readme.partition("```python\n")[2].partition("```")[0], {})
    text = readme.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "deltanet.toml").write_text(text)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("to be or not to be, that is the question\n" * 100)
    numbers = {"max_steps": 60, "learning_rate": 0.01, "batch_size": 4, "seq_len": 32, "warmup_steps": 2}
    changes = [f"train.{key}={value}" for key, value in numbers.items()]
    job = main.started(tmp_path / "deltanet.toml", changes, None, False)
    assert job.run()["val_bpb"] < 1, "untrained, a byte takes 8 bits"

    model = load_model(job.path)
    assert model.config.block.attention == spec("gated_deltanet")
    assert bytes(generate(model, list(b"to be or"), max_tokens=24, temperature=0.0)) == b" not to be, that is the "


def test_it_costs_the_same_after_however_many_tokens():
    """A state in float32 and the last `conv_size - 1` tokens in bfloat16; 7 FLOPs for each number of a state."""
    block = attrs.evolve(SMALL, attention=spec("gated_deltanet", **GROUPED), position="none")
    config = ModelConfig(block=block, n_layers=2, vocab_size=50)
    states, channels = 6 * 8 * 16, 2 * 2 * 8 + 6 * 16
    for context in (1, 1000):
        counted = census(config, context)
        assert counted.cache_bytes_per_token == 0
        assert counted.cache_bytes == counted.cache_bytes_fixed == 2 * (4 * states + 2 * 2 * channels)
        assert counted.flops_attention == 2 * 7 * states
