"""Configs hold what they say, refuse what they cannot hold, and say why."""

import copy
import pickle

import attrs
import pytest

from lmx_core import BlockConfig, ModelConfig, make_config, spec
from lmx_core.errors import ComponentError, ConfigError
from lmx_core.registry import registry


def test_a_block_config_is_short_to_write():
    """The seed page's example: names, and defaults for the rest."""
    block = BlockConfig(attention="mha", ffn="standard", norm="layer_norm", position="sinusoidal")
    assert ModelConfig(block=block, vocab_size=50257, n_layers=12).block.attention == spec("mha")
    assert (block.d_model, block.n_heads, block.d_ff, block.bias, block.max_seq_len) == (512, 8, 2048, True, 2048)


def test_heads_follow_from_the_width_unless_given():
    block = BlockConfig(d_model=64, n_heads=4)
    assert (block.head_dim, block.n_kv_heads) == (16, 4)
    assert attrs.evolve(block, d_model=128).head_dim == 32
    assert BlockConfig(d_model=65, n_heads=4, head_dim=8, n_kv_heads=2).head_dim == 8


def test_pre_norm_is_short_for_a_layout():
    assert BlockConfig(pre_norm=False).layout == spec("post_norm")
    assert BlockConfig().pre_norm
    assert not BlockConfig(layout="post_norm").pre_norm
    assert not attrs.evolve(BlockConfig(), layout="post_norm").pre_norm
    with pytest.raises(ConfigError, match=r"pre_norm=True means layout='pre_norm', got layout=post_norm"):
        BlockConfig(pre_norm=True, layout="post_norm")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"d_model": "512"}, r"d_model: expected int, got '512' \(str\)"),
        ({"d_model": 512.0}, r"d_model: expected int, got 512.0 \(float\)"),
        ({"d_model": True}, r"d_model: expected int, got True \(bool\)"),
        ({"bias": "false"}, r"bias: expected bool, got 'false' \(str\)"),
        ({"dropout": 1.0}, "dropout: must be < 1, got 1.0"),
        ({"n_heads": 0}, "n_heads: must be > 0, got 0"),
        ({"attention": 3}, r"attention: expected ComponentSpec, got 3 \(int\)"),
        ({"d_model": 65}, "d_model=65 is not a multiple of n_heads=8"),
        ({"n_kv_heads": 3}, "n_heads=8 is not a multiple of n_kv_heads=3"),
        ({"d_modl": 64}, "no 'd_modl'. Did you mean 'd_model'"),
    ],
)
def test_what_a_block_cannot_be_is_refused(bad, message):
    with pytest.raises(ConfigError, match=message):
        BlockConfig(**bad)


def test_whole_numbers_are_good_floats():
    assert BlockConfig(dropout=0, rope_theta=500_000).rope_theta == 500_000


def test_a_spec_cannot_be_changed_from_outside():
    """Options are copied when they are given, and read-only after."""
    given = {"sizes": [1, 2], "inner": {"a": 1}}
    made = spec("x", **given)
    given["sizes"].append(3)
    given["inner"]["a"] = 2
    assert made == spec("x", sizes=[1, 2], inner={"a": 1})
    with pytest.raises(TypeError):
        made.options["sizes"] = ()
    with pytest.raises(TypeError):
        made.options["inner"]["a"] = 3


def test_configs_are_values():
    """They compare, hash, copy and pickle by what they hold."""
    config = make_config("gpt", size="tiny")
    for same in (copy.deepcopy(config), pickle.loads(pickle.dumps(config)), make_config("gpt", size="tiny")):
        assert same == config
        assert hash(same) == hash(config)
    assert attrs.evolve(config, n_layers=3) != config
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.n_layers = 3


def test_layers_can_differ():
    blocks = [BlockConfig(d_ff=64 * (i + 1)) for i in range(3)]
    config = ModelConfig(n_layers=3, block_configs=blocks)
    assert [config.get_block_config(i).d_ff for i in (0, 1, 2, -1)] == [64, 128, 192, 192]
    assert ModelConfig(n_layers=3).get_block_config(2) == BlockConfig()
    with pytest.raises(ConfigError, match="layer 3 of a model with n_layers=3"):
        config.get_block_config(3)
    with pytest.raises(ConfigError, match="block_configs has 3 entries for n_layers=4"):
        ModelConfig(n_layers=4, block_configs=blocks)
    with pytest.raises(ConfigError, match=r"block_configs\[1\].d_model=64 differs from block.d_model=512"):
        ModelConfig(n_layers=2, block_configs=[BlockConfig(), BlockConfig(d_model=64)])


def test_make_config_knows_the_arguments():
    """By name, at a size, with changes; and what a factory does not take is said with the near miss."""
    assert make_config("llama", size="tiny", n_layers=4).n_layers == 4
    assert make_config("llama", size="70b").block.n_kv_heads == 8
    with pytest.raises(ConfigError) as refused:
        make_config("llama", size="tny", d_modl=3, n_layers="4")
    assert str(refused.value).splitlines()[0] == "3 problems in the arguments of llama"
    assert "size: llama has no size 'tny'. Did you mean 'tiny'? Sizes: tiny, " in str(refused.value)
    assert "d_modl: unknown argument. Did you mean 'd_model'?" in str(refused.value)
    assert "n_layers: expected int, got '4' (str)" in str(refused.value)


@pytest.fixture
def offered():
    """Offer architectures to this test alone."""
    names = []

    def offer(name, factory):
        names.append(name)
        registry("config").register(name)(factory)

    yield offer
    for name in names:
        registry("config").unregister(name)


def test_an_architecture_that_gives_no_config_is_named(offered):
    """Whatever comes back or is raised, the message names whose it is."""
    offered("an_int", lambda **numbers: 3)
    with pytest.raises(
        ComponentError, match=r"config.an_int from session 0 returned a value of type int, not a ModelConfig"
    ):
        make_config("an_int", n_layers=2)
    offered("fails", lambda: [][0])
    with pytest.raises(
        ComponentError, match=r"config.fails from session 0 failed: IndexError: list index out of range"
    ):
        make_config("fails")
    offered("refuses", lambda: ModelConfig(n_layers=0))
    with pytest.raises(ConfigError, match="n_layers: must be > 0, got 0"):
        make_config("refuses")


def test_arguments_are_those_that_can_be_given_by_name(offered):
    """An annotation that means nothing at run time asks for nothing."""

    def odd(first, *rest, second: "NoSuch" = 2, **kwargs: int) -> ModelConfig:
        return ModelConfig(n_layers=first)

    offered("odd", odd)
    assert make_config("odd", first=3, second="x", rest=1, kwargs="any name").n_layers == 3
    with pytest.raises(ConfigError, match="first: is missing"):
        make_config("odd", rest=1)


def test_the_factories_have_the_published_numbers():
    """As the papers and the released checkpoints count them."""
    from lmx_core import LanguageModel

    counts = {
        ("gpt", "small"): 124_439_808,
        ("gpt", "medium"): 354_823_168,
        ("gpt", "large"): 774_030_080,
        ("gpt", "xl"): 1_557_611_200,
        ("llama", "7b"): 6_738_415_616,
        ("llama", "13b"): 13_015_864_320,
        ("llama", "70b"): 68_976_648_192,
    }
    for (name, size), number in counts.items():
        assert LanguageModel(make_config(name, size=size)).count_parameters() == number
