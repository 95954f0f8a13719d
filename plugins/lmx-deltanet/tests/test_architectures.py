"""Architectures with linear attention. Their numbers are compared with transformers' in tests/architectures."""

import importlib.util

import mlx.core as mx
import pytest

from lmx_core import LanguageModel, generate, make_config, spec
from lmx_core.errors import ConfigError
from lmx_core.testing import close, conformance, randomise

moe, mla = (
    pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"its published sizes have components of {name}")
    for name in ("lmx_ffn_moe", "lmx_attn_mla")
)

DENSE = {
    "qwen3_next": {"n_experts": None},
    "qwen3_5": {"n_experts": None},
    "olmo_hybrid": {},
    "kimi_linear": {"n_experts": None},
}
"""Of each factory, what leaves experts away."""
factories = pytest.mark.parametrize("factory", DENSE)


@moe
@conformance("config.lmx-deltanet/qwen3_next")
def test_qwen3_next(check):
    check()


@moe
@conformance("config.lmx-deltanet/qwen3_5")
def test_qwen3_5(check):
    check()


@conformance("config.lmx-deltanet/olmo_hybrid")
def test_olmo_hybrid(check):
    check()


@moe
@mla
@conformance("config.lmx-deltanet/kimi_linear")
def test_kimi_linear(check):
    check()


def mixers(config):
    return [config.get_block_config(i).attention.name for i in range(config.n_layers)]


@pytest.mark.parametrize("linear", [1, 2, 3, 4])
@factories
def test_any_ratio_of_layers(factory, linear):
    """Said by one period of the pattern, which the config keeps."""
    pattern = ["linear"] * linear + ["full"]
    config = make_config(factory, size="tiny", pattern=pattern, n_layers=2 * (linear + 1), **DENSE[factory])
    full, delta = {"kimi_linear": ("mla", "kda")}.get(factory, ("gqa", "gated_deltanet"))
    assert mixers(config) == 2 * ([delta] * linear + [full])
    assert len(config.block_pattern) == linear + 1
    assert {config.get_block_config(i).position.name for i in range(linear)} == {"none"}


@factories
def test_all_layers_can_be_linear(factory):
    """Then nothing that a layer remembers grows, and no other plugin is needed."""
    model = randomise(LanguageModel(make_config(factory, size="tiny", pattern=["linear"], **DENSE[factory]))).eval()
    tokens, cache = mx.random.randint(0, 256, (1, 43), key=mx.random.key(1)), model.make_cache()
    first = model(tokens[:, :3], cache=cache)[0]
    before = [memory.nbytes for memory in cache]
    close(mx.concatenate([first, model(tokens[:, 3:], cache=cache)[0]], axis=1), model(tokens)[0])
    assert [memory.nbytes for memory in cache] == before


def test_layers_can_be_sparse_and_dense():
    """Whatever attention they have; experts are named, and may be missing until a model is built."""
    config = make_config("qwen3_next", size="tiny", n_experts=4, ffns=["sparse", "dense", "dense"], n_layers=6)
    assert [config.get_block_config(i).ffn.name for i in range(6)] == 2 * ["moe", "gated", "gated"]
    assert mixers(config) == 3 * ["gated_deltanet", "gqa"]
    kimi = make_config("kimi_linear", size="tiny", n_dense_layers=2, n_layers=4)
    assert [kimi.get_block_config(i).ffn.name for i in range(4)] == ["gated", "gated", "moe", "moe"]
    assert kimi.get_block_config(3).ffn.options["router"] == "sigmoid"


@pytest.mark.parametrize("nothing", ["pattern", "ffns"])
def test_an_empty_pattern_is_refused(nothing):
    with pytest.raises(ConfigError, match="pattern and ffns say of at least one layer what it is"):
        make_config("qwen3_next", size="tiny", n_experts=4, **{nothing: []})


def test_olmo_hybrid_may_have_a_rope():
    """In its layers of attention; the published model has none."""
    bare, turned = (make_config("olmo_hybrid", size="tiny", rope_theta=theta) for theta in (None, 5000.0))
    assert [bare.get_block_config(i).position.name for i in (0, 1)] == ["none", "none"]
    assert [turned.get_block_config(i).position.name for i in (0, 1)] == ["none", "rope"]
    assert turned.get_block_config(1).rope_theta == 5000.0
    assert [bare.get_block_config(i).layout for i in (0, 1)] == [spec("pre_norm"), spec("output_norm")]


def test_a_hybrid_generates_what_one_pass_says():
    """Recurrent layers and attention side by side, each with a cache of its kind."""
    model = randomise(LanguageModel(make_config("qwen3_5", size="tiny", n_layers=4))).eval()
    prompt = list(range(70))
    answer = generate(model, prompt, max_tokens=5, temperature=0.0)
    logits = model(mx.array([prompt + answer]))[0][0]
    assert logits[69:-1].argmax(axis=-1).tolist() == answer
    cache = model.make_cache()
    parts = [model(mx.array([prompt[i : i + 13]]), cache=cache)[0] for i in range(0, 70, 13)]
    close(mx.concatenate(parts, axis=1)[0], logits[:70])
