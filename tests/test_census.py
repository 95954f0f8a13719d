"""A model is counted by its shapes, as one counts by hand."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn

from lmx_core import BlockConfig, LanguageModel, ModelConfig, attention_registry, ffn_registry, make_config, spec
from lmx_core.census import active_parameters, census
from lmx_core.components.masks import Scope
from lmx_core.errors import ConfigError
from lmx_core.testing import SMALL


def test_llama_7b_by_hand():
    """Published: 6,738,415,616 parameters (arXiv:2307.09288); 2 x 32 layers x 4096 numbers are cached a token."""
    counted = census(make_config("llama", size="7b"))
    layer = 4 * 4096**2 + 3 * 4096 * 11008
    matrices = 32 * layer + 4096 * 32000  # the head, not the embedding
    assert counted.total == counted.active == 6_738_415_616 == matrices + 4096 * 32000 + 65 * 4096
    assert counted.parts == {"embed": 131_072_000, "layers": 32 * (layer + 8192), "norm": 4096, "head": 131_072_000}
    assert counted.context == 4096
    assert counted.flops_attention == 32 * 4 * 32 * 128 * 4096
    assert counted.flops_forward == 2 * matrices + counted.flops_attention == 15_361_638_400
    assert counted.flops_backward == 2 * counted.flops_forward
    assert counted.flops_unknown == []
    assert counted.cache_bytes_per_token == 2 * 2 * 32 * 4096 == 524_288
    assert (counted.cache_bytes_fixed, counted.cache_bytes) == (0, 2 << 30)
    assert counted.memory_bytes_fp32 == 4 * counted.total
    assert counted.memory_bytes_bf16 == 2 * counted.total
    quantised = counted.total - 65 * 4096
    assert counted.memory_bytes_4bit == quantised * 9 // 16 + 2 * 65 * 4096
    (layers,) = counted.layers
    assert (layers.name, layers.layers, layers.parameters) == ("block", list(range(32)), 202_383_360)
    assert (layers.cache_bytes_per_token, layers.cache_bytes) == (16_384, 64 << 20)


def test_gpt2_by_hand():
    """Its head is the embedding, and counts among the FLOPs; its positions are looked up."""
    counted = census(make_config("gpt"))
    layer = 12 * 768**2 + 13 * 768
    assert counted.total == 124_439_808 == 50257 * 768 + 1024 * 768 + 12 * layer + 2 * 768
    matrices = 12 * 12 * 768**2 + 50257 * 768
    assert counted.flops_forward == 2 * matrices + 12 * 4 * 768 * 1024
    assert counted.cache_bytes_per_token == 2 * 2 * 12 * 768
    in_bf16 = 1024 * 768 + 2 * 768 + 12 * 13 * 768
    assert counted.memory_bytes_4bit == (counted.total - in_bf16) * 9 // 16 + 2 * in_bf16


def test_a_window_bounds_what_is_looked_at_and_kept():
    """As in Mistral 7B with its 8 key heads: 4096 tokens are kept of however many there were."""
    llama = make_config("llama", n_kv_heads=8)
    config = attrs.evolve(llama, block=attrs.evolve(llama.block, attention=spec("sliding_window", window=4096)))
    counted = census(config, 1_000_000)
    assert counted.cache_bytes_per_token == 2 * 2 * 32 * 1024
    assert counted.cache_bytes == 4096 * counted.cache_bytes_per_token
    assert counted.flops_attention == 32 * 4 * 4096 * 4096
    assert census(config, 100).cache_bytes == 100 * counted.cache_bytes_per_token


@pytest.mark.parametrize(
    ("scope", "n", "seen"),
    [
        (Scope(), 10, 10),
        (Scope(window=4), 3, 3),
        (Scope(window=4), 10, 4),
        (Scope(chunk=4), 4, 4),
        (Scope(chunk=4), 5, 1),
        (Scope(window=4, keep=2), 10, 6),
        (Scope(window=4, keep=2), 5, 5),
    ],
)
def test_a_scope_knows_how_many_it_sees(scope, n, seen):
    allowed = scope.allows(mx.array([[n - 1]]), mx.arange(n)[None])
    assert scope.seen(n) == seen == (n if allowed is None else allowed.sum().item())


def mixed(**options):
    """Three layers of one block, and one of another."""
    other = attrs.evolve(SMALL, attention="none", position="none", d_ff=96)
    return ModelConfig(
        block=SMALL,
        blocks={"usual": SMALL, "other": other},
        block_pattern=["usual", "other"],
        n_layers=5,
        vocab_size=50,
        **options,
    )


def test_layers_that_differ_are_counted_apart():
    counted = census(mixed())
    assert [(each.name, each.layers) for each in counted.layers] == [
        ("blocks.usual", [0, 2, 4]),
        ("blocks.other", [1, 3]),
    ]
    usual, other = counted.layers
    assert (other.flops_attention, other.cache_bytes_per_token, other.cache_bytes_fixed) == (0, 0, 0)
    assert counted.cache_bytes_per_token == 3 * usual.cache_bytes_per_token > 0
    assert counted.parts["layers"] == 3 * usual.parameters + 2 * other.parameters
    assert counted.total == LanguageModel(mixed()).count_parameters()


def test_every_part_of_the_model_is_counted():
    """Maps beside the embedding are matrices; the head's bias and a norm of the embeddings are not."""
    plain = census(ModelConfig(block=SMALL, vocab_size=50))
    parts = census(
        ModelConfig(block=SMALL, vocab_size=50, embedding_dim=16, head_bias=True, embedding_norm="layer_norm")
    )
    assert {"project_in", "project_out", "head_bias", "embedding_norm"} <= parts.parts.keys()
    width = SMALL.d_model
    assert plain.flops_forward - parts.flops_forward == 2 * (50 * width - 50 * 16 - 2 * 16 * width)


def test_nothing_is_computed_for_it():
    """The largest LLaMA is counted without the memory of one of its matrices."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    counted = census(make_config("llama", size="3.1-405b"))
    assert counted.total == 405_853_388_800
    assert mx.get_peak_memory() - before < 50 << 20


def test_positions_that_end_refuse_a_longer_context():
    assert census(make_config("gpt"), 1024).context == 1024
    with pytest.raises(ConfigError, match="context=1025 .* 1024 tokens"):
        census(make_config("gpt"), 1025)


@pytest.fixture
def register():
    added = []

    def add(registry, name, component):
        registry.register(name)(component)
        added.append((registry, name))

    yield add
    for registry, name in added:
        registry.unregister(name)


class Sums(nn.Module):
    """Remembers a sum of all tokens in float32, and the last one."""

    takes = frozenset()

    def __init__(self, config):
        super().__init__()
        self.out = nn.Linear(config.d_model, config.d_model, bias=False)

    def make_cache(self):
        return SumsCache()

    def __call__(self, x, mask=None, cache=None):
        cache.state = [mx.array(1), x.astype(mx.float32).sum(axis=1), x[:, -1]]
        return self.out(x), cache


class SumsCache:
    offset, state = 0, ()


def test_a_mixer_of_another_author(register):
    """What it remembers is read off its cache; what it does not say of its FLOPs is said to be missing."""
    register(attention_registry, "sums", Sums)
    counted = census(ModelConfig(block=attrs.evolve(SMALL, attention="sums", position="none"), n_layers=3))
    assert (counted.cache_bytes_per_token, counted.cache_bytes_fixed) == (0, 3 * 6 * SMALL.d_model)
    assert counted.flops_unknown == ["sums"]
    assert counted.flops_attention == 0


class Half(nn.Module):
    """Uses one of two halves, by the token."""

    def __init__(self, config):
        super().__init__()
        self.inner = nn.Linear(config.d_model, config.d_model)

    def __call__(self, x):
        return self.inner(x)

    def active_parameters(self):
        return {"inner.weight": self.inner.weight.size // 2}


def test_a_module_says_what_of_it_a_token_uses(register):
    register(ffn_registry, "half", Half)
    config = ModelConfig(block=attrs.evolve(SMALL, ffn="half"), n_layers=2)
    unused = 2 * SMALL.d_model**2 // 2
    counted, whole = census(config), census(attrs.evolve(config, block=attrs.evolve(SMALL, ffn="none")))
    assert counted.total - counted.active == unused
    assert sum(active_parameters(LanguageModel(config)).values()) == counted.active
    assert counted.flops_forward - whole.flops_forward == 2 * unused


def test_a_norm_for_each_head_is_no_matrix():
    """Weights (heads, 1, width) are vectors."""
    block = BlockConfig(
        attention=spec("mha", qk_norm=spec("rms_norm", weight=False), qk_norm_over="each_head"), d_model=64, n_heads=4
    )
    plain = attrs.evolve(block, attention="mha")
    normed, without = census(ModelConfig(block=block)), census(ModelConfig(block=plain))
    assert normed.total > without.total
    assert normed.flops_forward == without.flops_forward
