"""What mixers with a state promise beyond what every mixer does."""

import itertools
import tomllib
from pathlib import Path

import attrs
import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from lmx_core import BlockConfig, ConfigurableBlock, LanguageModel, ModelConfig, build, generate, load_model, spec
from lmx_core.census import census
from lmx_core.components.segments import Segments
from lmx_core.continuations import continuations
from lmx_core.errors import ConfigError
from lmx_core.generation import generate_batch
from lmx_core.protocols import Cache
from lmx_core.testing import SMALL, close, conformance, randomise
from lmx_core.train import main
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step
from lmx_deltanet import DeltaNetOptions, GatedDeltaNet, RecurrentCache, fused, mixer, reference
from lmx_deltanet.convolution import ShortConvolution
from lmx_deltanet.rule import linear_attention

HERE = Path(__file__).parent
GROUPED = {"n_key_heads": 2, "n_value_heads": 6, "key_head_dim": 8, "value_head_dim": 16, "conv_size": 3}
SHORT = {"n_key_heads": 2, "n_value_heads": 2, "key_head_dim": 4}
TRY = {
    "deltanet": [{}, {**GROUPED, "negative_eigenvalues": True}],
    "gated_deltanet": [GROUPED, {"negative_eigenvalues": True, "conv_size": None, "norm_eps": 0.01}],
    "gated_linear_attention": [{}, {**GROUPED, "decay_rank": 3, "temperature": 1.0}],
    "kda": [{}, {**GROUPED, "decay_rank": 5, "gate_rank": 7}],
    "linear_attention": [{}, GROUPED],
}
"""Options to try each mixer with."""
mixers = pytest.mark.parametrize("name", TRY)


@conformance("attention.lmx-deltanet/deltanet", options=TRY["deltanet"][0])
def test_deltanet_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/deltanet", options=TRY["deltanet"][1], config={"bias": True})
def test_deltanet_with_groups_and_negative_eigenvalues_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/gated_deltanet", options=TRY["gated_deltanet"][0], config={"bias": True})
def test_gated_deltanet_with_groups_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/gated_deltanet", options=TRY["gated_deltanet"][1], config={"bias": False})
def test_gated_deltanet_without_a_convolution_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/gated_linear_attention", options=TRY["gated_linear_attention"][0])
def test_gated_linear_attention_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/gated_linear_attention", options=TRY["gated_linear_attention"][1])
def test_gated_linear_attention_with_a_convolution_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/kda", options=TRY["kda"][0])
def test_kda_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/kda", options=TRY["kda"][1], config={"bias": False})
def test_kda_with_groups_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/linear_attention", options=TRY["linear_attention"][0], config={"bias": True})
def test_linear_attention_is_a_mixer(check):
    check()


@conformance("attention.lmx-deltanet/linear_attention", options=TRY["linear_attention"][1])
def test_linear_attention_with_a_convolution_is_a_mixer(check):
    check()


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def made(name, config=SMALL, **options):
    return randomise(build("attention", spec(name, **options), config)).eval()


def deltanet(**options):
    return made("gated_deltanet", **options)


FORMULAS = {
    "deltanet": lambda m, x: (None, 2 * mx.sigmoid(m.beta_proj(x)), 1),
    "gated_deltanet": lambda m, x: (
        -mx.exp(m.A_log) * mx.log1p(mx.exp(m.decay_proj(x) + m.dt_bias)),
        mx.sigmoid(m.beta_proj(x)),
        sigmoid_times(m.gate_proj(x)),
    ),
    "gated_linear_attention": lambda m, x: (
        mx.log(mx.sigmoid(m.decay_proj.up(m.decay_proj.down(x)))) / 3,
        None,
        sigmoid_times(m.gate_proj(x)),
    ),
    "kda": lambda m, x: (
        -mx.repeat(mx.exp(m.A_log), 8) * mx.log1p(mx.exp(m.decay_proj.up(m.decay_proj.down(x)) + m.dt_bias)),
        mx.sigmoid(m.beta_proj(x)),
        mx.sigmoid(m.gate_proj.up(m.gate_proj.down(x))),
    ),
    "linear_attention": lambda m, x: (None, None, 1),
}
"""Decay, beta and gate of each, as (B, L, heads and channels), by the formulas of its papers."""
OPTIONS = {"deltanet": {"negative_eigenvalues": True}, "gated_linear_attention": {"temperature": 3.0, "conv_size": 3}}


def sigmoid_times(x):
    return x * mx.sigmoid(x)


@mixers
def test_a_mixer_follows_its_formulas(name):
    """Written out from the papers: projections, convolution, features, decays, the recurrence, norm and gate."""
    module, x = made(name, **{**GROUPED, **OPTIONS.get(name, {})}), normal(2, 11, 64, seed=9)
    split = lambda part, heads: part.reshape(2, 11, heads, -1).swapaxes(1, 2)  # noqa: E731
    q, k, v = mx.split(
        sigmoid_times(reference.convolution(module.qkv_proj(x), module.convolution.weight)), [16, 32], axis=-1
    )
    feature = {
        "linear_attention": lambda part: mx.where(part > 0, part + 1, mx.exp(part)),
        "gated_linear_attention": lambda part: part,
    }.get(name, lambda part: part / mx.sqrt((part * part).sum(axis=-1, keepdims=True) + 1e-6))
    q, k = (mx.repeat(feature(split(part, 2)), 3, axis=1) for part in (q, k))
    decay, beta, gate = FORMULAS[name](module, x)
    decay = None if decay is None else split(decay, 6)
    beta = None if beta is None else beta.swapaxes(1, 2)
    y, _ = reference.linear_attention(q / 8**0.5, k, split(v, 6), decay, beta, mx.zeros((2, 6, 8, 16)))
    y = y / mx.sqrt((y * y).mean(axis=-1, keepdims=True) + SMALL.norm_eps) * module.norm.weight
    close(module(x, "causal")[0], module.out_proj(y.swapaxes(1, 2).reshape(2, 11, -1) * gate), 2e-5)


@pytest.mark.parametrize("cut", [1, 2, 6])
def test_the_convolution_follows_the_sum(cut):
    """In one call, and in two with the tail of the first."""
    convolution, x = randomise(ShortConvolution(6, 4)), normal(2, 9, 6)
    expected = reference.convolution(x, convolution.weight)
    close(convolution(x)[0], expected, 1e-5)
    first, tail = convolution(x[:, :cut])
    close(mx.concatenate([first, convolution(x[:, cut:], tail)[0]], axis=1), expected, 1e-5)


@pytest.mark.parametrize("width", [2, 4])
def test_the_convolution_looks_at_no_other_document(width):
    """Zeros stand before the first token of each: values and gradients are those of each by itself."""
    module, x = randomise(ShortConvolution(5, width)), normal(1, 12, 5)
    places = mx.array([[0, 1, 2, 3, 4, 0, 0, 1, 0, 1, 2, 3]])

    def together(x, weight):
        module.weight = weight
        return module(x, places=places)[0]

    def alone(x, weight):
        return mx.concatenate([reference.convolution(part, weight) for part in mx.split(x, [5, 6, 8], axis=1)], axis=1)

    weight = module.weight
    close(together(x, weight), alone(x, weight), 1e-6)
    found, expected = (
        mx.grad(lambda *inputs, of=of: (of(*inputs) * normal(1, 12, 5, seed=8)).sum(), argnums=(0, 1))(x, weight)
        for of in (together, alone)
    )
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs, 1e-5)


DOCUMENTS = [[70, 1, 3, 26], [100], [25] * 4]


def packed(name, **options):
    """A model, tokens, and the number of the document of each."""
    block = attrs.evolve(SMALL, attention=spec(name, **options))
    model = randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))).eval()
    tokens = mx.random.randint(0, 50, (3, 100), key=mx.random.key(1))
    return model, tokens, mx.array([[i for i, n in enumerate(row) for _ in range(n)] for row in DOCUMENTS])


@pytest.mark.parametrize("recompute_every", [0, 1])
@mixers
def test_documents_of_a_row_are_apart(name, recompute_every):
    """Beyond a chunk, too, and in training: each comes out as alone."""
    model, tokens, numbers = packed(name, **TRY[name][1])
    model.train()
    model.recompute_every = recompute_every
    y = model(tokens, segments=numbers)[0]
    for i, row in enumerate(DOCUMENTS):
        starts = [sum(row[:j]) for j in range(len(row))]
        alone = [model(tokens[i : i + 1, start : start + n])[0] for start, n in zip(starts, row, strict=True)]
        close(y[i : i + 1], mx.concatenate(alone, axis=1))


def test_the_kernel_of_mlx_is_not_used_for_rows_of_documents(monkeypatch):
    """It leaves a millionth of a state where nothing is to be left."""
    model, tokens, numbers = packed("gated_deltanet")
    y = model(tokens, segments=numbers)[0]
    monkeypatch.setattr(fused, "fits", lambda *arrays: True)
    monkeypatch.setattr(fused, "gated_delta_rule", None)
    close(model(tokens, segments=numbers)[0], y, 0.0)


@mixers
def test_a_mask_beside_that_of_the_documents_is_refused(name):
    segments = Segments(mx.array([[0, 0, 1, 1, 1]]))
    module, x = made(name), normal(1, 5, 64)
    module(x, segments.mask, segments)
    with pytest.raises(ConfigError, match="would ignore a mask of its own"):
        module(x, mx.ones((5, 5), mx.bool_), segments)


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


@pytest.mark.parametrize("scale", [0.0, 1e3])
@mixers
def test_gradients_are_numbers(name, scale):
    """Where every projection is zero, and where exponentials of them would overflow."""
    module, x = made(name, **GROUPED), scale * normal(2, 9, 64)
    gradients = mx.grad(lambda weights, x: mx.square(called(module, weights, x)).sum(), argnums=(0, 1))(
        module.trainable_parameters(), x
    )
    assert all(mx.isfinite(each).all().item() for _, each in tree_flatten(gradients))


def called(module, weights, x):
    module.update(weights)
    return module(x, "causal")[0]


@mixers
def test_memory_does_not_grow(name):
    """The cache holds the state and the tail of the convolution, however many tokens came."""
    module = made(name, **GROUPED)
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
    untrained = GatedDeltaNet(attrs.evolve(SMALL, n_heads=64, n_kv_heads=64, head_dim=4), DeltaNetOptions())
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


@mixers
def test_padding_is_never_read(name):
    """Rows that begin with padding, in one batch, leave the state and the tail that each leaves by itself."""
    module, x = made(name, attrs.evolve(SMALL, bias=True), **GROUPED), normal(2, 9, 64)
    batch = module.make_cache()
    batch.pad([5, 0])
    for part in (slice(0, 2), slice(2, 6), slice(6, 9)):
        module(x[:, part], "causal", batch)
    assert batch.tokens(1) is None
    for row, pad in enumerate((5, 0)):
        alone = module.make_cache()
        module(x[row : row + 1, pad:], "causal", alone)
        for ours, theirs in zip(batch.extract(row).arrays, alone.arrays, strict=True):
            close(ours, theirs, 1e-5)


def test_prompts_of_different_lengths_are_read_in_one_batch(monkeypatch):
    """And continued as each is alone."""
    block = attrs.evolve(SMALL, attention=spec("kda", **SHORT))
    model = randomise(LanguageModel(ModelConfig(block=block, n_layers=2, vocab_size=50))).eval()
    prompts = [[7, 3], list(range(20)), [1] * 9]
    alone = [generate(model, prompt, max_tokens=6, temperature=0.0) for prompt in prompts]
    read = []
    monkeypatch.setattr(mixer, "linear_attention", lambda q, *rest: read.append(q.shape) or linear_attention(q, *rest))
    assert generate_batch(model, prompts, max_tokens=6, temperature=0.0) == alone
    assert {shape[0] for shape in read} == {3}


def test_a_prompt_that_is_continued_several_times_is_read_once(monkeypatch):
    """Its state is then repeated."""
    block = attrs.evolve(SMALL, attention=spec("gated_deltanet", **SHORT))
    model = randomise(LanguageModel(ModelConfig(block=block, n_layers=1, vocab_size=50))).eval()
    prompts, seeds, read = [[7, 3], list(range(20))], [3, 1, 4, 1], []
    alone = [generate(model, prompts[i // 2], max_tokens=6, seed=seed) for i, seed in enumerate(seeds)]
    monkeypatch.setattr(mixer, "linear_attention", lambda q, *rest: read.append(q.shape) or linear_attention(q, *rest))
    found = continuations(model, prompts, repeats=2, max_tokens=6, seeds=seeds)
    assert [each.tokens for each in found] == alone
    assert [shape[0] for shape in read] == [2, *[4] * 5]


def test_the_kernel_of_mlx_is_used_where_it_fits(monkeypatch):
    """In evaluation; training goes through chunks."""
    if not hasattr(mx.fast, "gated_delta_update"):
        pytest.skip("this MLX has no mx.fast.gated_delta_update")
    module, x, calls = deltanet(**GROUPED), normal(2, 9, 64), []
    expected = module(x, "causal")[0]
    monkeypatch.setattr(fused, "fits", lambda *arrays: calls.append(1) or True)
    monkeypatch.setattr(mixer, "linear_attention", None)
    close(module(x, "causal")[0], expected, 1e-5)
    assert calls
    monkeypatch.setattr(mixer, "linear_attention", linear_attention)
    calls.clear()
    module.train()
    close(module(x, "causal")[0], expected, 0.0)
    assert not calls


@mixers
def test_a_mask_that_it_would_ignore_is_refused(name):
    with pytest.raises(ConfigError, match="knows no order but the causal one"):
        made(name)(normal(1, 3, 64), mx.ones((3, 3), mx.bool_))


def test_the_readme_trains(tmp_path, monkeypatch):
    """The README's examples run; its config is trained on less, saved with the plugin's names, loaded, and generates."""
    monkeypatch.chdir(tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    for block in readme.split("```python\n")[1:]:
        exec(block.partition("```")[0], {})
    fragment, text = (block.partition("```")[0] for block in readme.split("```toml\n")[1:])
    assert tomllib.loads(fragment)["model"]["block"]["attention"]["name"] in TRY
    (tmp_path / "deltanet.toml").write_text(text)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("to be or not to be, that is the question\n" * 100)
    smaller = ["model.d_model=64", "model.n_layers=2", 'model.pattern=["linear", "full"]', "train.max_steps=60",
               "train.seq_len=32", "train.batch_size=4", "train.learning_rate=0.01", "train.warmup_steps=2",
               "train.max_seconds=none", 'data.dataset={name = "text", paths = ["notes/"]}']  # fmt: skip
    job = main.started(tmp_path / "deltanet.toml", smaller, None, False)
    assert job.run()["val_bpb"] < 1, "untrained, a byte takes 8 bits"

    model = load_model(job.path)
    assert model.config.get_block_config(0).attention.options["key_head_dim"] == 32
    assert bytes(generate(model, list(b"to be or"), max_tokens=24, temperature=0.0)) == b" not to be, that is the "


@pytest.mark.parametrize(
    ("name", "work"),
    {"linear_attention": 4, "gated_linear_attention": 5, "deltanet": 6, "gated_deltanet": 7, "kda": 7}.items(),
)
def test_it_costs_the_same_after_however_many_tokens(name, work):
    """A state in float32 and the last `conv_size - 1` tokens in bfloat16; a few FLOPs for each number of a state."""
    block = attrs.evolve(SMALL, attention=spec(name, **GROUPED), position="none")
    config = ModelConfig(block=block, n_layers=2, vocab_size=50)
    states, channels = 6 * 8 * 16, 2 * 2 * 8 + 6 * 16
    for context in (1, 1000):
        counted = census(config, context)
        assert counted.cache_bytes_per_token == 0
        assert counted.cache_bytes == counted.cache_bytes_fixed == 2 * (4 * states + 2 * 2 * channels)
        assert counted.flops_attention == 2 * work * states


def test_the_epsilon_of_the_norm_is_its_own():
    x = normal(1, 9, 64) / 100
    for options, eps in (({}, SMALL.norm_eps), ({"norm_eps": 0.5}, 0.5)):
        module = deltanet(**options)
        y = normal(1, 4, 9, 16)
        mean = mx.square(y).mean(axis=-1, keepdims=True)
        close(module.normed(y), module.norm.weight * y / mx.sqrt(mean + eps))
    assert not mx.allclose(deltanet()(x)[0], deltanet(norm_eps=0.5)(x)[0])


@mixers
def test_padding_is_remembered_with_the_state(name):
    """By marks, and in files: what comes after is placed and read as before."""
    module, x, more = made(name, **TRY[name][1]), normal(2, 5, 64), normal(2, 3, 64, seed=1)
    cache, other = module.make_cache(), module.make_cache()
    cache.pad([2, 0])
    mark = cache.checkpoint()
    expected = [module(part, "causal", cache)[0] for part in (x, more)]
    cache.restore(mark)
    close(module(x, "causal", cache)[0], expected[0], 0.0)
    other.state = [mx.array(each) for each in cache.state]
    assert other.offset.tolist() == cache.offset.tolist() == [3, 5]
    close(module(more, "causal", other)[0], expected[1], 0.0)


@mixers
def test_what_adds_up_is_float32_in_half_precision(name):
    """Decays, queries and keys are whole before they meet the state."""
    module, x = made(name, **TRY[name][0]), normal(1, 4, 64).astype(mx.bfloat16)
    module.set_dtype(mx.bfloat16)
    q, k, _ = module.heads(module.qkv_proj(x))
    decay = module.decay(x)
    assert {q.dtype, k.dtype} == {mx.float32}
    assert decay is None or decay.dtype == mx.float32
    lengths = mx.square(k).sum(axis=-1)
    if module.beta(x) is not None:
        close(lengths, mx.ones(lengths.shape), 1e-5)


@mixers
def test_long_sequences_stay_finite_in_float16(name):
    """The answers of what fades slowly, or not at all, are larger than float16 can hold; they are normed before."""
    module = made(name, **TRY[name][0])
    module.set_dtype(mx.float16)
    x = (20 * mx.abs(normal(1, 3000, 64))).astype(mx.float16)
    y, _ = module(x, "causal")
    assert y.dtype == mx.float16
    assert mx.isfinite(y).all().item()


def test_the_pace_of_forgetting_is_trained_in_full_precision(monkeypatch):
    block = attrs.evolve(SMALL, attention="gated_deltanet", position="none")
    net = randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=1))).train()
    config, seen = TrainConfig(dtype="bfloat16", compile=False), []
    fading = mixer.fading

    def spied(step, bias, rate):
        seen.append((step.dtype, bias.dtype, rate.dtype))
        return fading(step, bias, rate)

    monkeypatch.setattr(mixer, "fading", spied)
    tokens = mx.zeros((1, 8), mx.int32)
    parts = (build(kind, getattr(config, kind), config) for kind in ("objective", "optimizer"))
    Step(net, *parts, config)([Micro({"inputs": tokens, "targets": tokens}, seed=0)], 1e-3)
    assert {*seen} == {(mx.bfloat16, mx.float32, mx.float32)}
