"""What multi-head latent attention promises beyond what every mixer does."""

from pathlib import Path

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.nn.utils import value_and_grad
from mlx.utils import tree_flatten

from lmx_attn_mla import MLA, MLAOptions
from lmx_attn_mla.reference import mla as reference
from lmx_core import BlockConfig, ConfigurableBlock, KVCache, ModelConfig, build, generate, load_model, spec
from lmx_core.census import census
from lmx_core.components.masks import causal
from lmx_core.errors import ConfigError
from lmx_core.testing import SMALL, close, conformance, randomise
from lmx_core.train import main

HERE = Path(__file__).parent
OPTIONS = {"kv_lora_rank": 32, "rope_head_dim": 8}
FORMS = {
    "queries from the input": OPTIONS,
    "queries from a latent": {**OPTIONS, "q_lora_rank": 32},
    "values of another width": {**OPTIONS, "nope_head_dim": 24, "v_head_dim": 16, "rope_head_dim": 2},
}
ROPE = attrs.evolve(SMALL, position="rope", rope_theta=100.0)


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


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
def test_it_follows_the_equations(options):
    """One pass equals the paper's equations, computed token by token and head by head, gradients included."""
    module = mla(ROPE, **options)
    rope, x, weights = build("position", "rope", ROPE), normal(9, 64), normal(9, 64, seed=1)
    fast = value_and_grad(module, lambda x: (module(x[None], "causal", position=rope)[0][0] * weights).sum())
    slow = value_and_grad(module, lambda x: (reference(module, x, 100.0) * weights).sum())
    close(module(x[None], "causal", position=rope)[0][0], reference(module, x, 100.0))
    for (name, ours), (_, theirs) in zip(tree_flatten(fast(x)[1]), tree_flatten(slow(x)[1]), strict=True):
        assert mx.abs(theirs).max() > 0, name
        close(ours, theirs)


@pytest.mark.parametrize("new", [1, 5, 40])
def test_both_forms_are_one_attention(new):
    """Latents that are expanded and latents that are attended to directly give the same values and gradients."""
    module = mla(**FORMS["values of another width"])
    inputs = (
        normal(2, 4, new, 24),
        normal(2, 4, new, 2, seed=1),
        normal(2, 1, 40, 32, seed=2),
        normal(2, 1, 40, 2, seed=3),
    )
    weights = normal(2, 4, new, 16, seed=4)

    def values_and_gradients(form):
        y = form(*inputs, "causal")
        return y, *mx.grad(lambda *inputs: (form(*inputs, "causal") * weights).sum(), argnums=[0, 1, 2, 3])(*inputs)

    for expanded, absorbed in zip(*map(values_and_gradients, (module.expanded, module.absorbed)), strict=True):
        close(absorbed, expanded)


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


@pytest.mark.parametrize("tokens", [1, 70])
def test_the_cache_holds_the_latent_only(tokens):
    """A token costs kv_lora_rank + rope_head_dim numbers, whatever the number of heads."""
    for heads in (2, 8):
        config = attrs.evolve(SMALL, n_heads=heads, n_kv_heads=heads)
        _, cache = mla(config)(normal(1, tokens, 64), "causal", MLA(config, MLAOptions()).make_cache())
        assert sum(part.size for part in cache.state[:-1]) == tokens * (32 + 8)


def test_a_layer_of_deepseek_v2():
    """The first layer of a DeepSeek-V2-Lite gives the numbers that transformers 5.23 computes with the same weights.

    DeepSeek turns neighbouring pairs, lmx the first half with the second: rows of the maps are put into that order.
    """
    weights = mx.load(str(HERE / "deepseek_v2_lite.safetensors"))
    latent, nope, rope, width, heads = 24, 12, 8, 10, 4
    options = {"kv_lora_rank": latent, "nope_head_dim": nope, "rope_head_dim": rope, "v_head_dim": width}
    block = ConfigurableBlock(
        BlockConfig(attention=spec("mla", **options), ffn="gated", norm="rms_norm", position="rope", d_model=48,
                    n_heads=heads, d_ff=80, norm_eps=1e-3, rope_theta=1234.0)
    )  # fmt: skip
    halves = mx.array([*range(0, rope, 2), *range(1, rope, 2)])

    def reordered(rows, start):
        return mx.concatenate([rows[..., :start, :], rows[..., start + halves, :]], axis=-2)

    k_up, v_up = mx.split(weights["self_attn.kv_b_proj.weight"].reshape(heads, nope + width, latent), [nope], axis=1)
    down = [weights[f"self_attn.kv_a_proj_with_mqa.{part}"] for part in ("weight", "bias")]
    theirs = {
        "attention.q_proj.weight": reordered(
            weights["self_attn.q_proj.weight"].reshape(heads, nope + rope, 48), nope
        ).flatten(0, 1),
        "attention.q_proj.bias": mx.zeros(heads * (nope + rope)),
        "attention.kv_down.weight": reordered(down[0], latent),
        "attention.kv_down.bias": reordered(down[1][:, None], latent)[:, 0],
        "attention.kv_norm.weight": weights["self_attn.kv_a_layernorm.weight"],
        "attention.k_up.weight": k_up,
        "attention.v_up.weight": v_up,
        "attention.o_proj.weight": weights["self_attn.o_proj.weight"],
        "attention.o_proj.bias": weights["self_attn.o_proj.bias"],
        "layout.attention_norm.weight": weights["input_layernorm.weight"],
        "layout.ffn_norm.weight": weights["post_attention_layernorm.weight"],
    }
    for name, size in {"gate": 80, "up": 80, "down": 48}.items():
        theirs[f"ffn.{name}.weight"] = weights[f"mlp.{name}_proj.weight"]
        theirs[f"ffn.{name}.bias"] = mx.zeros(size)
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
    """The README's example runs; its config is trained, saved with the plugin's name, loaded, and generates."""
    monkeypatch.chdir(tmp_path)
    readme = (HERE.parent / "README.md").read_text()
    exec(readme.partition("```python\n")[2].partition("```")[0], {})
    text = readme.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "mla.toml").write_text(text)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("to be or not to be, that is the question\n" * 100)
    numbers = {"max_steps": 60, "learning_rate": 0.01, "batch_size": 4, "seq_len": 32, "warmup_steps": 2}
    job = main.started(tmp_path / "mla.toml", [f"train.{key}={value}" for key, value in numbers.items()], None, False)
    assert job.run()["val_bpb"] < 1, "untrained, a byte takes 8 bits"

    model = load_model(job.path)
    assert model.config.block.attention == spec("mla", kv_lora_rank=32, rope_head_dim=8)
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
