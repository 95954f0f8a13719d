"""What the sparse architectures promise."""

import pytest

from lmx_core import make_config, spec
from lmx_core.census import census
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.testing import cases

DIST = "lmx-ffn-moe"
FACTORIES = [name for name in registry("config").names() if registry("config").find(name).dist == DIST]
CASES = [
    pytest.param(case.run, id=f"{name}-{case.name}") for name in FACTORIES for case in cases(f"config.{DIST}/{name}")
]
ACTIVE = {
    ("dbrx", "132b"): 36e9,
    ("llama4", "maverick-17b-128e"): 17e9,
    ("llama4", "scout-17b-16e"): 17e9,
    ("mixtral", "8x22b"): 39e9,
    ("mixtral", "8x7b"): 12.9e9,
    ("olmoe", "1b-7b"): 1.3e9,
    ("qwen2_moe", "1.5-a2.7b"): 2.7e9,
    ("qwen2_moe", "2-57b-a14b"): 14e9,
    ("qwen3_moe", "235b-a22b"): 22e9,
    ("qwen3_moe", "30b-a3b"): 3.3e9,
    ("qwen3_moe", "coder-480b-a35b"): 35e9,
}
"""Parameters that a token uses, as their authors give them."""
ACTIVE_BEHIND_THE_EMBEDDING = {
    ("glm4_moe", "4.5"): 32e9,
    ("gpt_oss", "120b"): 5.13e9,
    ("gpt_oss", "20b"): 3.61e9,
    ("minimax_m2", "m2"): 10e9,
}
"""Those of authors who leave the embedding out."""


@pytest.mark.parametrize("check", CASES)
def test_every_architecture_keeps_the_promises_of_its_kind(check):
    check()


@pytest.mark.parametrize(("name", "size"), [*ACTIVE, *ACTIVE_BEHIND_THE_EMBEDDING])
def test_a_token_uses_as_much_as_was_published(name, size):
    """Experts that are chosen, shared ones and dense layers are those of the papers, up to their rounding."""
    counted = census(make_config(name, size=size))
    active, published = counted.active, ACTIVE.get((name, size))
    if published is None:
        active, published = active - counted.parts["embed"], ACTIVE_BEHIND_THE_EMBEDDING[name, size]
    assert active == pytest.approx(published, rel=0.05)


def test_layers_differ_in_attention_and_ffn():
    """The two orders go on over each other: the shortest pattern that has both is the model's."""
    config = make_config(
        "qwen2_moe", size="tiny", n_layers=12, window=8, pattern=("full", "sliding"), ffns=("dense", "sparse", "sparse")
    )
    assert config.block_pattern == (
        *("full_dense", "sliding_sparse", "full_sparse"),
        *("sliding_dense", "full_sparse", "sliding_sparse"),
    )
    moe = config.get_block_config(1)
    assert moe.ffn.name == "moe"
    assert moe.attention == spec("sliding_window", qkv_bias=True, window=8)
    assert config.get_block_config(0).ffn == spec("gated")
    with pytest.raises(ConfigError, match="ffns says of at least one layer"):
        make_config("qwen2_moe", ffns=())


def test_the_first_layers_of_glm_are_dense():
    """As many as are asked for, wider than an expert."""
    config = make_config("glm4_moe", size="4.5")
    assert [config.get_block_config(i).ffn.name for i in range(5)] == ["gated"] * 3 + ["moe"] * 2
    assert config.get_block_config(0).d_ff == 12_288
    assert config.get_block_config(91).ffn.options["d_ff"] == 1536


def test_llama4_sees_far_without_position():
    """Chunks have a rope; every fourth layer has neither, and queries that grow."""
    config = make_config("llama4", size="maverick-17b-128e")
    kinds = [(block.attention.name, block.position.name) for block in map(config.get_block_config, range(8))]
    assert kinds == [*[("chunked", "rope")] * 3, ("gqa", "none")] * 2
    assert config.get_block_config(3).attention.options["query_growth"] == 0.1
