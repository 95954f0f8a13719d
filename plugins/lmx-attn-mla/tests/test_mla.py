"""What multi-head latent attention promises beyond what every mixer does."""

import math
import random
import tomllib
from pathlib import Path

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from lmx_attn_mla import MLA, MLAOptions
from lmx_attn_mla.reference import mla as reference
from lmx_core import (
    BlockConfig,
    ConfigurableBlock,
    KVCache,
    LanguageModel,
    ModelConfig,
    build,
    generate,
    load_model,
    save_model,
    spec,
)
from lmx_core.census import census
from lmx_core.components.masks import causal, padded
from lmx_core.components.reference import allowed
from lmx_core.components.scalings import Rotary
from lmx_core.errors import ConfigError
from lmx_core.quantised import quantise
from lmx_core.testing import SMALL, close, conformance, randomise
from lmx_core.train import main

HERE = Path(__file__).parent
OPTIONS = {"kv_lora_rank": 32, "rope_head_dim": 8}
FORMS = {
    "queries from the input": OPTIONS,
    "queries from a latent": {**OPTIONS, "q_lora_rank": 32},
    "values of another width": {**OPTIONS, "nope_head_dim": 24, "v_head_dim": 16, "rope_head_dim": 4},
}
ROPE = attrs.evolve(SMALL, position="rope", rope_theta=100.0)
YARN = spec("yarn", factor=8.0, original_max_seq_len=4, beta_fast=2.0, mscale=0.7, mscale_all_dim=0.7)
POSITIONS = {
    "halves": spec("rope"),
    "pairs": spec("rope", interleaved=True),
    "yarn": spec("rope", interleaved=True, scaling=YARN),
    "none": spec("none"),
}
DRAWN = random.Random(5)
CHOICES = {
    "kv_lora_rank": (1, 7, 48),
    "q_lora_rank": (None, 5, 40),
    "rope_head_dim": (2, 6, 16),
    "nope_head_dim": (None, 1, 10),
    "v_head_dim": (None, 3, 20),
    "latent_bias": (None, True, False),
    "o_bias": (None, True, False),
    "latent_norm": ("rms_norm", "layer_norm", {"name": "rms_norm", "unit_offset": True}),
    "latent_norm_eps": (1e-6, 1e-2),
    "scale": (None, 0.2),
}
MIXED = [{key: chosen for key, each in CHOICES.items() if (chosen := DRAWN.choice(each)) is not None} for _ in range(4)]
"""Options as they come."""


def mla(config=SMALL, **options):
    return randomise(MLA(config, MLAOptions(**(options or OPTIONS))))


def normal(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


@conformance("attention.lmx-attn-mla/mla", options=OPTIONS)
def test_mla_keeps_the_promises_of_a_mixer(check):
    check()


@conformance("attention.lmx-attn-mla/mla", options=FORMS["queries from a latent"], config={"bias": True})
def test_queries_from_a_latent_keep_them(check):
    check()


@conformance("attention.lmx-attn-mla/mla", options=FORMS["values of another width"])
def test_values_of_another_width_keep_them(check):
    check()


@conformance("attention.lmx-attn-mla/mla", options=MIXED[0])
def test_a_mixture_of_options_keeps_them(check):
    check()


@conformance("attention.lmx-attn-mla/mla", options=MIXED[1], config={"n_heads": 1, "n_kv_heads": 1})
def test_another_mixture_with_one_head_keeps_them(check):
    check()


@conformance("attention.lmx-attn-mla/mla", options=MIXED[2], config={"n_heads": 8, "n_kv_heads": 8, "bias": False})
def test_another_mixture_with_eight_heads_keeps_them(check):
    check()


@conformance("attention.lmx-attn-mla/mla", options=MIXED[3])
def test_another_mixture_keeps_them(check):
    check()


@pytest.mark.parametrize("position", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_it_follows_the_equations(options, position):
    """One pass equals the paper's equations, computed token by token and head by head, gradients included."""
    module = mla(ROPE, **options)
    placed, x, weights = build("position", position, ROPE), normal(9, 64), normal(9, 64, seed=1)
    width = options["rope_head_dim"]
    turns = [100.0 ** (-2 * i / width) if position.name == "rope" else 0.0 for i in range(width // 2)]
    slower, factor = turns, 1.0
    if "scaling" in position.options:
        rotary = Rotary(width=width, head_dim=width, theta=100.0, max_seq_len=2048)
        slower, factor = build("scaling", YARN, rotary).frequencies(1)[0], (0.07 * math.log(8) + 1) ** 2
        assert slower != turns
    pairs = bool(position.options.get("interleaved"))

    def slow(x):
        return reference(module, x, slower, pairs, factor)

    def fast(x):
        return module(x[None], "causal", position=placed)[0][0]

    close(fast(x), slow(x))
    ours, theirs = (value_and_grad(module, lambda x, run=run: (run(x) * weights).sum())(x)[1] for run in (fast, slow))
    for (name, our), (_, their) in zip(tree_flatten(ours), tree_flatten(theirs), strict=True):
        assert mx.abs(their).max() > 0, name
        close(our, their)


@pytest.mark.parametrize("rank", [1, 32], ids=["absorbed", "expanded"])
@pytest.mark.parametrize("position", ["halves", "yarn"])
def test_documents_of_a_row_are_apart(position, rank):
    """In either form each is what it is alone, beyond the parts in which queries go, too."""
    options = {**OPTIONS, "kv_lora_rank": rank}
    block = attrs.evolve(ROPE, attention=spec("mla", **options), position=POSITIONS[position])
    model = randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2))).eval()
    assert model.layers[0].attention.absorbs(100, 100) == (rank == 1)
    tokens = mx.random.randint(0, 50, (2, 100), key=mx.random.key(1))
    rows = [[70, 1, 29], [35, 65]]
    numbers = mx.array([[i for i, n in enumerate(row) for _ in range(n)] for row in rows])
    y = model(tokens, segments=numbers)[0]
    for i, row in enumerate(rows):
        starts = [sum(row[:j]) for j in range(len(row))]
        alone = [model(tokens[i : i + 1, start : start + n])[0] for start, n in zip(starts, row, strict=True)]
        close(y[i : i + 1], mx.concatenate(alone, axis=1), 1e-5)


SEEN = 12
MASKS = {"causal": lambda new: "causal", "rows that begin later": lambda new: padded(new, SEEN - new, (0, 5))}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("new", range(1, SEEN + 1))
def test_both_forms_are_one_attention(new, mask):
    """Latents that are expanded and latents that are attended to directly give the same values and gradients."""
    module = mla(**FORMS["values of another width"])
    inputs = (
        normal(2, 4, new, 24),
        normal(2, 4, new, 4, seed=1),
        normal(2, 1, SEEN, 32, seed=2),
        normal(2, 1, SEEN, 4, seed=3),
    )
    weights = normal(2, 4, new, 16, seed=4)

    def values_and_gradients(form):
        def run(maps, *inputs):
            module.update(maps)
            return form(*inputs, 0.3, mask(new))

        maps = module.trainable_parameters()
        gradients = mx.grad(lambda *each: (run(*each) * weights).sum(), argnums=[0, 1, 2, 3, 4])(maps, *inputs)
        return run(maps, *inputs), dict(tree_flatten(gradients))

    (ours, our), (theirs, their) = map(values_and_gradients, (module.absorbed, module.expanded))
    close(ours, theirs)
    assert {name for name, each in their.items() if mx.abs(each).max() > 0} >= {"0.k_up.weight", "0.v_up.weight", "3"}
    for name, each in our.items():
        close(each, their[name])


def test_the_form_is_chosen_by_the_number_of_new_tokens():
    """Fewer multiplications decide: with DeepSeek-V2's widths up to 169 of many tokens are answered from the latents."""
    module = MLA(attrs.evolve(SMALL, d_model=8, head_dim=128), MLAOptions())
    assert [module.absorbs(new, 32_768) for new in (1, 169, 170, 32_768)] == [True, True, False, False]
    assert not any(module.absorbs(length, length) for length in (1, 10, 1000)), "a whole sequence is expanded"


def test_decoding_does_not_expand_the_past(monkeypatch):
    """A token after many is answered from the latents; a whole sequence is expanded once."""
    module, cache, lengths = mla(), KVCache(), []
    expand = type(module.k_up).__call__
    monkeypatch.setattr(
        type(module.k_up), "__call__", lambda self, x: (lengths.append((x.shape[1], x.shape[2])), expand(self, x))[1]
    )
    module(normal(1, 50, 64), "causal", cache)
    assert lengths == [(1, 50), (1, 50)], "keys and values of 50 tokens"
    lengths.clear()
    module(normal(1, 1, 64), None, cache)
    assert lengths == [(4, 1)], "the values of one sum of latents for each head"


KINDS = {
    "a window": ("rotating", {"max_size": 9}, 1e-4),
    "a window and the first tokens": ("rotating", {"max_size": 9, "keep": 3}, 1e-4),
    "8 bits": ("quantised", {"group_size": 32}, 0.05),
    "8 bits and a window": ("quantised", {"group_size": 32, "max_size": 9}, 0.05),
    "8 bits in groups that are wider than what is held": ("quantised", {"group_size": 128}, 0.05),
}


def cached(position="rope", seed=0, **options):
    """A block whose widths are no multiples of a group."""
    options = {"kv_lora_rank": 36, "rope_head_dim": 6, **options}
    config = attrs.evolve(ROPE, attention=spec("mla", **options), position=position, ffn="none", norm="none")
    return randomise(ConfigurableBlock(config), seed)


@pytest.mark.parametrize(("kind", "options", "tolerance"), KINDS.values(), ids=KINDS)
def test_other_caches_hold_latents_too(kind, options, tolerance):
    """Token by token after a prompt, with a window that is a mask over the whole sequence; and once more after a trim."""
    block, x = cached(), normal(2, 30, 64)
    window = allowed(30, 30, window=options.get("max_size"), keep=options.get("keep", 0))
    expected = block(x, window)[0]
    cache = block.make_cache(kind, **options)
    found = [block(x[:, :20], "causal", cache)[0], *(block(x[:, t : t + 1], None, cache)[0] for t in range(20, 30))]
    close(mx.concatenate(found, axis=1), expected, tolerance)
    assert cache.trim(2) == 2
    close(block(x[:, 28:29], None, cache)[0], expected[:, 28:29], tolerance)


@pytest.mark.parametrize("kind", [None, "quantised"])
def test_rows_of_different_lengths_decode_together(kind):
    """Caches of two sequences become one batch, whose rows are answered from the latents as each is alone."""
    block, x = cached(), normal(2, 30, 64)
    alone = [block.make_cache(kind, **({"group_size": 32} if kind else {})) for _ in range(2)]
    for row, (cache, length) in enumerate(zip(alone, (25, 7), strict=True)):
        block(x[row : row + 1, :length], "causal", cache)
    batch = type(alone[0]).merge(alone)
    for step in range(3):
        new = mx.stack([x[0, 25 + step : 26 + step], x[1, 7 + step : 8 + step]])
        together = block(new, padded(1, batch.columns, batch.padding), batch)[0]
        for row, cache in enumerate(alone):
            close(together[row : row + 1], block(new[row : row + 1], None, cache)[0])


@pytest.mark.parametrize("tokens", [1, 70])
def test_the_cache_holds_the_latent_only(tokens):
    """A token costs kv_lora_rank + rope_head_dim numbers, whatever the number of heads."""
    for heads in (2, 8):
        config = attrs.evolve(SMALL, n_heads=heads, n_kv_heads=heads)
        _, cache = mla(config)(normal(1, tokens, 64), "causal", MLA(config, MLAOptions()).make_cache())
        assert sum(part.size for part in cache.state[:-1]) == tokens * (32 + 8)


def test_the_cache_of_deepseek_v2_is_57_times_smaller():
    """Bytes of real caches with 128 heads of 128 numbers, against those of multi-head attention."""
    config = attrs.evolve(SMALL, n_heads=128, n_kv_heads=128, head_dim=128, bias=False)
    held = {}
    for name in ("mha", "mla"):
        mixer = build("attention", name, config)
        held[name] = mixer.make_cache()
        mixer(normal(1, 256, 64), "causal", held[name])
    assert held["mla"].nbytes == 4 * 256 * (512 + 64)
    assert held["mha"].nbytes / held["mla"].nbytes == 2 * 128 * 128 / (512 + 64) == pytest.approx(56.9, abs=0.02)


def test_biases_are_those_of_the_latents_and_the_output():
    """As DeepSeek's `attention_bias`: the maps to the heads have none."""
    names = {"q_down.bias", "kv_down.bias", "o_proj.bias"}
    for changes, expected in (
        ({"bias": True}, names),
        ({"bias": False}, set()),
        ({"bias": False, "latent_bias": True}, names - {"o_proj.bias"}),
        ({"bias": True, "latent_bias": False}, {"o_proj.bias"}),
        ({"bias": True, "q_lora_rank": None}, names - {"q_down.bias"}),
    ):
        options = {**FORMS["queries from a latent"], **changes}
        module = mla(attrs.evolve(SMALL, bias=options.pop("bias")), **options)
        assert {name for name, _ in tree_flatten(module.parameters()) if name.endswith("bias")} == expected


def test_latents_are_normed_as_chosen():
    """The norm and its epsilon are options, and the config's epsilon is that of other norms."""
    config = attrs.evolve(SMALL, norm_eps=0.5)
    plain, other = mla(config), mla(config, **OPTIONS, latent_norm="layer_norm", latent_norm_eps=0.1)
    assert (type(plain.kv_norm).__name__, plain.kv_norm.eps) == ("RMSNorm", 1e-6)
    assert (type(other.kv_norm).__name__, other.kv_norm.eps) == ("LayerNorm", 0.1)
    assert "kv_norm.weight" not in dict(tree_flatten(mla(**OPTIONS, latent_norm="none").parameters()))


def test_a_scale_takes_the_place_of_the_usual_one():
    """Twice the scale is twice the queries; yarn's factor for whole scores comes on top."""
    module, x = mla(ROPE), normal(1, 9, 64)
    twice = mla(ROPE, **OPTIONS, scale=2 * module.scale)
    for position in ("rope", POSITIONS["yarn"]):
        placed = build("position", position, ROPE)
        expected = twice(x, "causal", position=placed)[0]
        module.q_proj.weight = 2 * twice.q_proj.weight
        close(module(x, "causal", position=placed)[0], expected)


def test_without_a_position_the_part_for_it_stays():
    """Kimi Linear: the shared key is there, and is not turned; order is told by the causal mask alone."""
    block, x = cached(position="none"), normal(1, 9, 64)
    shuffled = x[:, mx.array([3, 1, 0, 2, 4, 5, 6, 7, 8])]
    close(block(x, "causal")[0][:, 4:], block(shuffled, "causal")[0][:, 4:], 1e-5)
    before = block(x, "causal")[0]
    block.attention.kv_down.weight[36:] = 0
    assert mx.abs(block(x, "causal")[0] - before).max() > 0.01, "the shared key has no say"


def test_a_layer_of_deepseek_v2():
    """The first layer of a DeepSeek-V2-Lite gives the numbers that transformers 5.23 computes with the same weights."""
    weights = mx.load(str(HERE / "deepseek_v2_lite.safetensors"))
    latent, nope, rope, width, heads = 24, 12, 8, 10, 4
    options = {"kv_lora_rank": latent, "nope_head_dim": nope, "rope_head_dim": rope, "v_head_dim": width}
    attention = spec("mla", **options, latent_bias=True, o_bias=True)
    block = ConfigurableBlock(
        BlockConfig(attention=attention, ffn="gated", norm="rms_norm", position=spec("rope", interleaved=True),
                    d_model=48, n_heads=heads, d_ff=80, bias=False, norm_eps=1e-3, rope_theta=1234.0)
    )  # fmt: skip
    k_up, v_up = mx.split(weights["self_attn.kv_b_proj.weight"].reshape(heads, nope + width, latent), [nope], axis=1)
    theirs = {
        "attention.q_proj.weight": weights["self_attn.q_proj.weight"],
        "attention.kv_down.weight": weights["self_attn.kv_a_proj_with_mqa.weight"],
        "attention.kv_down.bias": weights["self_attn.kv_a_proj_with_mqa.bias"],
        "attention.kv_norm.weight": weights["self_attn.kv_a_layernorm.weight"],
        "attention.k_up.weight": k_up,
        "attention.v_up.weight": v_up,
        "attention.o_proj.weight": weights["self_attn.o_proj.weight"],
        "attention.o_proj.bias": weights["self_attn.o_proj.bias"],
        "layout.attention_norm.weight": weights["input_layernorm.weight"],
        "layout.ffn_norm.weight": weights["post_attention_layernorm.weight"],
        **{f"ffn.{name}.weight": weights[f"mlp.{name}_proj.weight"] for name in ("gate", "up", "down")},
    }
    block.load_weights(list(theirs.items()))
    x, expected = weights["input"], weights["output"]

    close(block(x, "causal")[0], expected, 2e-5)
    cache = block.make_cache()
    close(mx.concatenate([block(x[:, t : t + 1], None, cache)[0] for t in range(7)], axis=1), expected, 2e-5)


def test_queries_from_a_latent_equal_mlx_lms():
    """The same weights give what mlx-lm's DeepSeek-V3 attention gives, in one pass and token by token."""
    deepseek = pytest.importorskip("mlx_lm.models.deepseek_v3", reason="compares with mlx-lm, which is not installed")
    config = attrs.evolve(SMALL, bias=True)
    ours = mla(config, kv_lora_rank=32, q_lora_rank=20, nope_head_dim=12, rope_head_dim=8, v_head_dim=10)
    theirs = deepseek.DeepseekV3Attention(
        deepseek.ModelArgs(hidden_size=64, num_attention_heads=4, kv_lora_rank=32, q_lora_rank=20, qk_nope_head_dim=12,
                           qk_rope_head_dim=8, v_head_dim=10, attention_bias=True)
    )  # fmt: skip
    names = {"q_down": "q_a_proj", "q_norm": "q_a_layernorm", "q_up": "q_b_proj", "kv_down": "kv_a_proj_with_mqa",
             "kv_norm": "kv_a_layernorm", "k_up": "embed_q", "v_up": "unembed_out", "o_proj": "o_proj"}  # fmt: skip
    weights = []
    for name, weight in tree_flatten(ours.parameters()):
        part, _, rest = name.partition(".")
        weights.append((f"{names[part]}.{rest}", weight.swapaxes(-1, -2) if part == "k_up" else weight))
    theirs.load_weights(weights)
    theirs.rope = nn.RoPE(8, traditional=False, base=100.0)
    rope, x, cache = build("position", "rope", ROPE), normal(2, 9, 64), ours.make_cache()

    expected = theirs(x, causal(9))
    close(ours(x, "causal", position=rope)[0], expected)
    tokens = [ours(x[:, t : t + 1], None, cache, position=rope)[0] for t in range(9)]
    close(mx.concatenate(tokens, axis=1), expected)


def test_a_position_that_biases_scores_is_refused():
    config = attrs.evolve(SMALL, attention=spec("mla", **OPTIONS), position="alibi")
    with pytest.raises(ConfigError, match="attention 'mla' takes no such position; 'alibi' provides a bias"):
        ConfigurableBlock(config)


def test_what_is_wrong_with_options_is_said():
    chosen = spec("mla", kv_lora_rnk=16, rope_head_dim=7)
    with pytest.raises(ConfigError) as caught:
        build("attention", chosen, SMALL)
    assert "kv_lora_rnk: unknown option; did you mean 'kv_lora_rank'?" in str(caught.value)
    assert "rope_head_dim: must be even, since rotation turns pairs of numbers, got 7" in str(caught.value)


def test_the_defaults_are_a_mixer():
    """Without options it fits any width and any number of heads."""
    for width, heads in ((24, 3), (512, 8)):
        config = BlockConfig(attention="mla", d_model=width, n_heads=heads, position="rope", norm="rms_norm")
        assert ConfigurableBlock(config)(normal(1, 3, width), "causal")[0].shape == (1, 3, width)


def test_the_readme_trains(tmp_path, monkeypatch):
    """The README's example runs; its config is trained on less, saved with the plugin's name, loaded, and generates."""
    monkeypatch.chdir(tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    exec(readme.partition("```python\n")[2].partition("```")[0], {})
    fragment, text = (block.partition("```")[0] for block in readme.split("```toml\n")[1:])
    assert tomllib.loads(fragment)["model"]["block"]["attention"]["name"] == "mla"
    (tmp_path / "mla.toml").write_text(text)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("to be or not to be, that is the question\n" * 100)
    smaller = ["model.d_model=64", "model.n_layers=2", "model.n_dense_layers=2", "train.max_steps=60", "train.seq_len=32",
               "train.batch_size=4", "train.learning_rate=0.01", "train.warmup_steps=2", "train.max_seconds=none",
               'data.dataset={name = "text", paths = ["notes/"]}']  # fmt: skip
    job = main.started(tmp_path / "mla.toml", smaller, None, False)
    assert job.run()["val_bpb"] < 1, "untrained, a byte takes 8 bits"

    model = load_model(job.path)
    assert model.config.block.attention.options["kv_lora_rank"] == 48
    assert bytes(generate(model, list(b"to be or"), max_tokens=24, temperature=0.0)) == b" not to be, that is the "


def test_it_is_counted_as_deepseek_v2_lite():
    """`kv_lora_rank + rope_head_dim` numbers a token and layer; scores over N + P numbers a head, sums over V."""
    options = {"kv_lora_rank": 512, "rope_head_dim": 64, "nope_head_dim": 128, "v_head_dim": 128}
    block = BlockConfig(attention=spec("mla", **options), ffn="gated", norm="rms_norm", position="rope", bias=False,
                        d_model=2048, n_heads=16, d_ff=10_944)  # fmt: skip
    counted = census(ModelConfig(block=block, n_layers=27, vocab_size=102_400, tie_embeddings=False), 1000)
    assert counted.cache_bytes_per_token == 2 * 27 * (512 + 64)
    assert counted.cache_bytes == 1000 * counted.cache_bytes_per_token
    assert counted.flops_attention == 27 * 2 * 16 * (128 + 64 + 128) * 1000
    assert counted.flops_unknown == []


@pytest.mark.parametrize("added", [False, True])
def test_one_token_obeys_a_mask_for_each_head(added):
    """Of True and False, or of what is added to scores: the last row of what the whole sequence gives."""
    block, x = (
        ConfigurableBlock(attrs.evolve(SMALL, attention=spec("mla", **OPTIONS), position="rope")),
        normal(2, 9, 64),
    )
    randomise(block).eval()
    seen = mx.random.uniform(shape=(2, SMALL.n_heads, 9, 9), key=mx.random.key(5)) < 0.6
    seen = (seen & mx.tri(9, dtype=mx.bool_)) | (mx.eye(9) > 0)
    mask = mx.where(seen, 0.0, -1e9) if added else seen
    cache = block.make_cache()
    block(x[:, :8], "causal", cache)
    close(block(x[:, 8:], mask[:, :, 8:], cache)[0], block(x, mask)[0][:, 8:], 1e-4)


def test_a_packed_model_is_saved_and_read(tmp_path):
    """The maps of each head, which decoding uses backwards too, stay dense."""
    block = attrs.evolve(ROPE, d_ff=128, attention=spec("mla", kv_lora_rank=64, q_lora_rank=32, rope_head_dim=8))
    net = randomise(LanguageModel(ModelConfig(block=block, n_layers=1, vocab_size=50))).eval()
    done = quantise(net, 8, 32)
    maps = ("k_up", "v_up")
    assert done.dense == {f"layers.0.attention.{name}": "HeadLinear has no packed form" for name in maps}
    save_model(net, tmp_path)
    again, tokens = load_model(tmp_path), mx.arange(24).reshape(2, 12)
    assert mx.array_equal(net(tokens)[0], again(tokens)[0])
    cache = again.make_cache()
    steps = [again(tokens[:, i : i + 1], cache=cache)[0] for i in range(12)]
    close(mx.concatenate(steps, axis=1), net(tokens)[0], 1e-3)
