"""What a model does around its blocks, and how layers that differ are written."""

import copy
import math
import pickle
import re
from pathlib import Path

import attrs
import mlx.core as mx
import pytest

from lmx_core import BlockConfig, LanguageModel, ModelConfig, make_config, spec
from lmx_core.components import reference, softmax
from lmx_core.components.scalings import ScalingBase
from lmx_core.construct import build
from lmx_core.errors import ConfigError, LmxError
from lmx_core.factories import patterned, varies, with_sizes
from lmx_core.registry import registry
from lmx_core.serialize import plain, structure
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close

TOKENS = mx.random.randint(0, 50, (2, 12), key=mx.random.key(3))
BLOCK = attrs.evolve(SMALL, position="rope", bias=False)
LOCAL = attrs.evolve(BLOCK, attention=spec("sliding_window", window=4))


def model(**changes):
    return randomise(LanguageModel(ModelConfig(**{"block": BLOCK, "vocab_size": 50, "n_layers": 2, **changes}))).eval()


def same_weights(one, **changes):
    """The model with other settings and the same parameters."""
    other = LanguageModel(attrs.evolve(one.config, **changes)).eval()
    other.update(one.parameters())
    return other


def test_embeddings_stand_in_place_of_tokens():
    net = model(embedding_multiplier=3.0)
    close(net(embeddings=net.embed_tokens(TOKENS))[0], net(TOKENS)[0], 0.0)
    close(net.embed_tokens(TOKENS), 3 * net.embed.weight[TOKENS], 1e-6)
    for wrong in ({}, {"tokens": TOKENS, "embeddings": net.embed_tokens(TOKENS)}):
        with pytest.raises(ConfigError, match="tokens or embeddings in place of them"):
            net(**wrong)


def test_the_last_logits_alone():
    net = model()
    last, cache = net(TOKENS, cache=net.make_cache(), last_only=True)
    assert last.shape == (2, 1, 50)
    close(last, net(TOKENS)[0][:, -1:], 1e-5)
    assert cache[0].offset == 12


def test_hidden_states():
    """Before the first block, after each one, and what the head reads: logits come of the last."""
    net = model(n_layers=3)
    states, _ = net.hidden(TOKENS, return_all=True)
    assert len(states) == 4
    close(states[0], net.embed_tokens(TOKENS), 0.0)
    close(states[1], net.layers[0](states[0], "causal")[0], 1e-6)
    close(net.logits(states[-1]), net(TOKENS)[0], 0.0)
    close(net.hidden(TOKENS)[0], states[-1], 0.0)
    (logits, hidden), _ = net(TOKENS, return_hidden=True)
    close(logits, net(TOKENS)[0], 0.0)
    close(hidden, states[-1], 0.0)


def test_logits_are_multiplied_then_bounded():
    net = model(tie_embeddings=False)
    plain_logits, (changed, _) = net(TOKENS)[0], same_weights(net, logit_multiplier=0.5, logit_softcap=2.0)(TOKENS)
    close(changed, 2 * mx.tanh(0.5 * plain_logits / 2), 1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_may_have_a_bias(tied):
    net = model(tie_embeddings=tied, head_bias=True)
    before = net(TOKENS)[0]
    bias = net.head_bias if tied else net.head.bias
    assert bias.shape == (50,)
    close(before - bias, same_weights_without_bias(net)(TOKENS)[0], 1e-5)


def same_weights_without_bias(net):
    other = copy.deepcopy(net)
    bias = {"head_bias": mx.zeros(50)} if "head_bias" in net else {"head": {"bias": mx.zeros(50)}}
    other.update(bias)
    return other


def test_an_embedding_narrower_than_the_model():
    """Two maps without bias lie between; a tied head reads the narrow width."""
    net = model(embedding_dim=16)
    assert net.embed.weight.shape == (50, 16)
    close(net.embed_tokens(TOKENS), net.embed.weight[TOKENS] @ net.project_in.weight.T, 1e-5)
    hidden = net.hidden(TOKENS)[0]
    close(net.logits(hidden), hidden @ net.project_out.weight.T @ net.embed.weight.T, 1e-5)


def test_norms_around_the_blocks():
    net = model(embedding_norm="rms_norm", final_norm=spec("layer_norm", bias=True))
    states, _ = net.hidden(TOKENS, return_all=True)
    close(states[0], reference.rms_norm(net.embed.weight[TOKENS], net.embedding_norm.weight, 1e-5), 1e-5)
    last = net.layers[1](states[1], "causal")[0]
    close(states[-1], reference.layer_norm(last, net.norm.weight, net.norm.bias, 1e-5), 1e-5)
    assert "norm" not in model(block=attrs.evolve(BLOCK, layout="post_norm"))
    assert "norm" in model(block=attrs.evolve(BLOCK, layout="post_norm"), final_norm="rms_norm")


def test_a_cache_of_another_model_is_refused():
    net = model()
    with pytest.raises(ConfigError, match="a cache for 3 layers was given to a model of 2"):
        net(TOKENS, cache=model(n_layers=3).make_cache())


# Layers that differ -----------------------------------------------------------------------------------------------------


def pattern(**changes):
    given = {"blocks": {"local": LOCAL, "global": BLOCK}, "block_pattern": ["local", "local", "global"], "n_layers": 5}
    return ModelConfig(**{"block": BLOCK, "vocab_size": 50, **given, **changes})


def test_a_pattern_begins_anew():
    config = pattern()
    assert config.block_configs == (LOCAL, LOCAL, BLOCK, LOCAL, LOCAL)
    assert config.get_block_config(-1) == LOCAL
    listed = ModelConfig(block=BLOCK, vocab_size=50, n_layers=5, block_configs=config.block_configs)
    one, other = LanguageModel(config), LanguageModel(listed)
    randomise(one).eval()
    other.eval().update(one.parameters())
    close(one(TOKENS)[0], other(TOKENS)[0], 0.0)


def test_a_pattern_is_plain_data():
    config = pattern()
    assert structure(plain(config), ModelConfig, "it") == config
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert hash(config) == hash(copy.deepcopy(config))
    with pytest.raises(TypeError):
        config.blocks["local"] = BLOCK


def test_in_a_file_a_named_block_says_what_differs():
    block = {"attention": "gqa", "d_model": 64, "n_heads": 4, "position": "rope"}
    table = {
        "n_layers": 2,
        "block": block,
        "block_pattern": ["a", "b"],
        "blocks": {"a": {"attention": {"name": "sliding_window", "window": 8}}, "b": {"position": "none"}},
    }
    config = structure(table, ModelConfig, "it")
    first, second = config.block_configs
    assert first == BlockConfig(**{**block, "attention": spec("sliding_window", window=8)})
    assert second == BlockConfig(**{**block, "position": "none"})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"block_pattern": ["locl"]}, r"names 'locl'. Did you mean 'local'\? blocks has local, global."),
        ({"block_pattern": None}, "blocks is given without block_pattern"),
        ({"blocks": None}, "block_pattern is given without blocks"),
        ({"block_pattern": []}, "blocks is given without block_pattern"),
        ({"block_configs": [BLOCK] * 5}, "both say which block a layer has"),
        ({"block_pattern": ["local"]}, "blocks.global stands nowhere in block_pattern"),
        ({"blocks": {"local": attrs.evolve(BLOCK, d_model=32)}, "block_pattern": ["local"]}, "blocks.local.d_model=32"),
    ],
)
def test_patterns_that_do_not_fit(changes, says):
    with pytest.raises(ConfigError, match=says):
        pattern(**changes)


def test_errors_name_the_block():
    table = {"block_pattern": ["a"], "blocks": {"a": {"attention": {"name": "sliding_window", "windw": 3}}}}
    with pytest.raises(LmxError, match="blocks.a.attention.windw: unknown option; did you mean 'window'"):
        structure(table, ModelConfig, "it", "model", installed=True)
    wrong = pattern(blocks={"local": attrs.evolve(LOCAL, head_dim=15), "global": BLOCK})
    with pytest.raises(ConfigError, match="model.blocks.local: position 'rope' turns pairs"):
        LanguageModel(wrong)


def test_a_problem_of_the_common_block_is_told_once():
    table = {"block": {"d_modl": 3}, "block_pattern": ["a"], "blocks": {"a": {"n_heads": 4}}}
    with pytest.raises(LmxError) as refused:
        structure(table, ModelConfig, "it", "model")
    assert str(refused.value).count("d_modl") == 1


def test_the_shortest_pattern_is_kept():
    config = ModelConfig(block=BLOCK, vocab_size=50, n_layers=6)
    assert patterned(config, "abab", a=BLOCK, b=LOCAL).block_pattern == ("a", "b")
    assert patterned(config, "aab", a=BLOCK, b=LOCAL).block_pattern == ("a", "a", "b")
    alike = patterned(config, "a", a=LOCAL, b=BLOCK)
    assert (alike.block_pattern, alike.block) == (None, LOCAL)
    with pytest.raises(ConfigError, match="names at least one of them"):
        patterned(config, "", a=BLOCK)


# Factories --------------------------------------------------------------------------------------------------------------


def test_a_factory_may_vary_another():
    """Arguments and defaults of both, but those left out; what neither takes is an error with the near miss."""

    @varies(registry("config").get("llama"), "ffn_bias", n_layers=3, rope_theta=7.0)
    def mine(*, deep: int = 1, n_heads: int = 2, **llama):
        return registry("config").get("llama")(n_heads=n_heads, **{**llama, "n_layers": deep * llama["n_layers"]})

    config = with_sizes(tiny={"d_model": 64, "n_kv_heads": 1})(mine)(d_model=64, n_kv_heads=1, deep=2)
    assert (config.n_layers, config.block.rope_theta, config.block.n_heads) == (6, 7.0, 2)
    for wrong in ("ffn_bias", "nonsense"):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{wrong}'"):
            mine(**{wrong: 1})


def test_a_component_of_a_factory_is_given_as_in_a_file():
    table = {"factory": "llama", "size": "tiny", "rope_scaling": {"name": "yarn", "factor": 4.0}}
    config = structure(table, ModelConfig, "it")
    assert config == make_config("llama", "tiny", rope_scaling=spec("yarn", factor=4.0))
    with pytest.raises(LmxError, match="rope_scaling: expected"):
        make_config("llama", "tiny", rope_scaling=3)


@pytest.mark.says_names
def test_no_family_is_named_where_models_are_built():
    import lmx_core.block
    import lmx_core.model

    families = set(registry("config").names()) - {"gpt"}
    for module in (lmx_core.block, lmx_core.model):
        text = Path(module.__file__).read_text(encoding="utf-8").lower()
        assert [name for name in families if re.search(rf"\b{name}\b", text)] == []


def test_most_factories_are_short():
    """The median of core's is under 40 lines, sizes included."""
    import inspect

    names = [name for name in registry("config").names() if registry("config").find(name).dist == "lmx-core"]
    lines = sorted(len(inspect.getsource(registry("config").get(name)).splitlines()) for name in names)
    assert len(lines) >= 35
    assert lines[len(lines) // 2] < 40


def test_softcaps_and_scales_reach_the_scores():
    """One attention layer, written out."""
    block = attrs.evolve(BLOCK, attention=spec("gqa", scale=0.3, softcap=1.5), position="none")
    net = model(block=block, n_layers=1)
    layer = net.layers[0].attention
    x = mx.random.normal((1, 9, 64), key=mx.random.key(1))
    q, k, v = (
        part.reshape(1, 9, -1, 16).transpose(0, 2, 1, 3) for part in (layer.q_proj(x), layer.k_proj(x), layer.v_proj(x))
    )
    seen = reference.attend(q, k, v, 0.3, reference.allowed(9, 9), softcap=1.5)
    close(layer(x, "causal")[0], layer.o_proj(seen.transpose(0, 2, 1, 3).flatten(2)), 1e-5)


def test_queries_grow_with_their_position():
    """By the logarithm of whole stretches of tokens; with a cache too."""
    growing = {"query_growth": 0.5, "query_growth_every": 4}
    net = model(block=attrs.evolve(BLOCK, attention=spec("gqa", **growing), position="none"), n_layers=1)
    q = mx.ones((1, 4, 3, 16))
    found = net.layers[0].attention.grown(q, 7)[0, 0, :, 0].tolist()
    assert found == pytest.approx([1 + 0.5 * math.log(1 + position // 4) for position in (7, 8, 9)])


# Memory -----------------------------------------------------------------------------------------------------------------

LONG = 8192


def peak(function):
    """Bytes at most that were held while it ran, beyond those before."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(function())
    return mx.get_peak_memory() - before


@pytest.mark.once
@pytest.mark.parametrize(
    ("position", "length"), [("rope", LONG), ("learned", LONG), ("alibi", 2 * LONG), ("t5", 2 * LONG)]
)
def test_no_array_is_a_square_of_the_length(position, length):
    """Of full causal attention: not even a mask of one byte for each pair of tokens would fit into what is used."""
    block = BlockConfig(
        attention="mha", position=position, d_model=8, n_heads=1, d_ff=8, norm="none", bias=False, max_seq_len=length
    )
    net = LanguageModel(ModelConfig(block=block, vocab_size=8, n_layers=1)).eval()
    mx.eval(net.parameters())
    assert peak(lambda: net(mx.zeros((1, length), mx.int32), last_only=True)[0]) < length * length


@pytest.mark.once
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_long_attention_takes_a_fraction_of_the_memory(softcap, monkeypatch):
    """In parts at most a quarter of what it takes at once, with the same numbers."""
    q, k, v = (mx.random.normal((1, 2, LONG, 8), key=mx.random.key(i)) for i in range(3))
    mx.eval(q, k, v)
    tail = []

    def attended():
        tail.append(softmax.attend(q, k, v, 0.3, "causal", softcap=softcap)[:, :, -50:])
        return tail[-1]

    parts = peak(attended)
    monkeypatch.setattr(softmax, "QUERIES", LONG)
    assert parts <= peak(attended) / 4
    close(tail[0], tail[1], 1e-5)


# Configs come back ------------------------------------------------------------------------------------------------------


def test_none_is_a_component_where_one_is_named():
    """`final_norm="none"` is no norm, and `"none"` in a file of a number is none."""
    config = ModelConfig(block=BLOCK, vocab_size=50, n_layers=1, final_norm="none", embedding_norm="none")
    again = structure(plain(config), ModelConfig, "it")
    assert again == config
    assert again.final_norm == spec("none")
    assert structure({"logit_softcap": "none"}, ModelConfig, "it").logit_softcap is None
    attention = spec("gqa", qk_norm="none", qk_norm_over="each_head")
    net = LanguageModel(ModelConfig(block=attrs.evolve(BLOCK, attention=attention), vocab_size=50, n_layers=1))
    assert net.layers[0].attention.q_norm.weight.shape == (4, 1, 16)
    off = make_config("llama", "3.2-1b", rope_scaling="none").block
    assert LanguageModel(ModelConfig(block=off, vocab_size=50, n_layers=1)).positions[0].by_length is False


def test_a_named_block_may_have_less_than_the_common_one():
    other = attrs.evolve(BLOCK, n_kv_heads=None, head_dim=None)
    base = attrs.evolve(BLOCK, n_kv_heads=2, head_dim=32)
    config = ModelConfig(
        block=base, blocks={"a": base, "b": other}, block_pattern=["a", "b"], vocab_size=50, n_layers=2
    )
    assert structure(plain(config), ModelConfig, "it") == config


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"qk_norm": "rms_norm", "qk_norm_over": "each_head"}, "brings the weights, but qk_norm=rms_norm has its own"),
        ({"qk_norm": "rms_norm", "qk_norm_over": "all_heads", "qk_norm_after_position": True}, "not over all heads"),
        ({"qk_norm_after_position": True}, "give a qk_norm"),
    ],
)
def test_norms_of_queries_and_keys_that_do_not_fit(options, says):
    with pytest.raises(ConfigError, match=says):
        LanguageModel(ModelConfig(block=attrs.evolve(BLOCK, attention=spec("gqa", **options)), vocab_size=50))


def test_a_factor_that_depends_on_the_length_is_each_rows_own(plugins):
    class Growing(ScalingBase):
        by_length = True

        def frequencies(self, length):
            return self.rotary.frequencies(), 1.0 + length / 10

    plugins.register("scaling", "growing", Growing)
    position = build("position", spec("rope", scaling="growing"), SMALL)
    q = mx.ones((2, 4, 3, 16))
    both = position.rotate(q, q, mx.array([0, 40]))[0]
    close(both[1:], position.rotate(q[1:], q[1:], 40)[0], 1e-5)
    close(both[:1], position.rotate(q[:1], q[:1], 0)[0], 1e-5)
