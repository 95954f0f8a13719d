"""The architectures with latent attention; those with experts, where lmx-ffn-moe is installed, with experts too."""

import importlib.util

import mlx.core as mx
import pytest

from lmx_attn_mla import MLA, deepseek_config
from lmx_core import LanguageModel, make_config, spec
from lmx_core.errors import ConfigError, UnknownComponentError
from lmx_core.testing import close, conformance, randomise

moe = pytest.mark.skipif(importlib.util.find_spec("lmx_ffn_moe") is None, reason="experts are those of lmx-ffn-moe")
FACTORIES = ("deepseek", "deepseek_v3", "minicpm3")


@moe
@conformance("config.lmx-attn-mla/deepseek")
def test_deepseek_keeps_the_promises_of_an_architecture(check):
    check()


@moe
@conformance("config.lmx-attn-mla/deepseek_v3")
def test_deepseek_v3_keeps_them(check):
    check()


@conformance("config.lmx-attn-mla/minicpm3")
def test_minicpm3_keeps_them(check):
    check()


def without_experts(name, **numbers):
    return make_config(name, size="tiny", **({} if name == "minicpm3" else {"n_experts": None}), **numbers)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_model_without_experts_needs_no_other_plugin(name):
    """Every layer has the dense FFN; token by token its logits are those of one pass, and it has gradients."""
    config = without_experts(name)
    assert config.blocks is None
    model = randomise(LanguageModel(config)).eval()
    tokens, cache = mx.random.randint(0, 256, (2, 20), key=mx.random.key(1)), model.make_cache()
    expected = model(tokens)[0]
    found = [model(tokens[:, t : t + 1], cache=cache)[0] for t in range(20)]
    close(mx.concatenate(found, axis=1), expected)
    gradients = mx.grad(lambda maps: model.update(maps)(tokens)[0].square().sum())(model.trainable_parameters())
    up = gradients["layers"][1]["attention"]["k_up"]["weight"]
    assert mx.isfinite(up).all()
    assert mx.abs(up).max() > 0


def test_deepseek_is_as_the_paper_states_it():
    """Table 1 and section 3.1 of arXiv:2405.04434, whichever of the numbers are written out."""
    config = deepseek_config(d_model=5120, n_heads=128, n_layers=60, kv_lora_rank=512)
    assert config == make_config("deepseek", size="236b")
    assert config.block_pattern == ("dense", *["sparse"] * 59)
    dense, sparse = config.get_block_config(0), config.get_block_config(59)
    assert (dense.ffn, dense.d_ff) == (spec("gated"), 12_288)
    for block in (dense, sparse):
        options = block.attention.options
        assert (options["q_lora_rank"], options["nope_head_dim"], options["rope_head_dim"]) == (1536, 128, 64)
    experts = sparse.ffn.options
    assert (experts["n_experts"], experts["top_k"], experts["n_shared_experts"], experts["d_ff"]) == (160, 6, 2, 1536)


def test_experts_begin_where_they_are_said_to():
    assert make_config("deepseek", size="tiny", n_dense_layers=0).blocks is None
    assert make_config("deepseek", size="tiny", n_dense_layers=0).block.ffn.name == "moe"
    assert make_config("deepseek", size="tiny", n_dense_layers=9).block.ffn.name == "gated"
    both = make_config("deepseek_v3", size="tiny", n_dense_layers=1, n_layers=3)
    assert both.block_pattern == ("dense", "sparse", "sparse")
    assert both.blocks["sparse"].ffn.options["router"] == "sigmoid"
    with pytest.raises(ConfigError, match="n_dense_layers: expected int"):
        make_config("deepseek", size="tiny", n_dense_layers="1")


def test_the_plugin_of_the_experts_is_asked_for(plugins):
    """Without it the model cannot be built, and the error says what to install."""
    plugins.register("attention", "mla", MLA)
    config = deepseek_config(**deepseek_config.sizes["tiny"])
    with pytest.raises(UnknownComponentError, match="lmx-ffn-moe provides it: pip install lmx-ffn-moe"):
        LanguageModel(config)


def test_scores_of_the_published_models_have_yarns_factor():
    """m(mscale_all_dim) ** 2 on the whole score, 1 / sqrt(192) before it; MiniCPM3 has none."""
    for name, size, factor in (
        ("deepseek", "lite-16b", (0.0707 * 3.6888795 + 1) ** 2),
        ("deepseek_v3", "671b", (0.1 * 3.6888795 + 1) ** 2),
        ("deepseek_v3", "moonlight-16b", 1.0),
        ("minicpm3", "4b", 1.0),
    ):
        more = {} if name == "minicpm3" else {"n_experts": None}
        numbers = {"n_layers": 1, "d_model": 64, "d_ff": 64, "vocab_size": 64}
        model = LanguageModel(make_config(name, size=size, **more, **numbers))
        assert model.positions[0].score_factor == pytest.approx(factor), (name, size)
