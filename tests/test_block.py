"""Blocks and models put together what their configs name, and refuse what would be silently ignored."""

import copy

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from lmx_core import (
    AttentionBase,
    ConfigurableBlock,
    LanguageModel,
    ModelConfig,
    PositionBase,
    attention_registry,
    ffn_registry,
    make_config,
    position_registry,
    spec,
)
from lmx_core.components.positions import token_positions
from lmx_core.errors import ConfigError
from lmx_core.testing import SMALL, checks, randomise
from lmx_core.testing.checks import close

TOKENS = mx.random.randint(0, 50, (2, 12), key=mx.random.key(1))


def model(n_layers=2, **block):
    return ModelConfig(block=attrs.evolve(SMALL, **block), vocab_size=50, n_layers=n_layers)


@pytest.fixture
def register():
    """Register components for one test."""
    added = []

    def add(registry, name, component):
        registry.register(name)(component)
        added.append((registry, name))

    yield add
    for registry, name in added:
        registry.unregister(name)


class Mean(nn.Module):
    """A mixer of another author: three arguments, no base class, nothing of lmx."""

    def __init__(self, config):
        super().__init__()
        self.out = nn.Linear(config.d_model, config.d_model)

    def make_cache(self):
        return None

    def __call__(self, x, mask, cache):
        return self.out(mx.cumsum(x, axis=1) / mx.arange(1, x.shape[1] + 1)[:, None]), cache


class ThreeArguments(AttentionBase):
    """One that uses the position bound to it."""

    def __init__(self, config):
        super().__init__(config)
        self.inner = attention_registry.get("gqa")(config)

    def __call__(self, x, mask=None, cache=None):
        return self.inner(x, mask, cache, position=self._position)


class Wave(PositionBase):
    """An encoding of another author."""

    def embed(self, x, offset=0):
        return x + mx.sin(token_positions(x.shape[1], offset))[..., None].astype(x.dtype)


def test_a_mixer_needs_three_arguments_and_no_base_class(register):
    register(attention_registry, "mean", Mean)
    kept = (
        checks.streams.past_ignores_future,
        checks.modules.gradients_reach_everything,
        checks.modules.weights_round_trip,
    )
    for check in kept:
        check(lambda: LanguageModel(model(attention="mean")))


def test_a_position_that_would_be_ignored_is_refused(register):
    """The error says which layer, which component, and the way out."""
    register(attention_registry, "mean", Mean)
    rotating = attrs.evolve(SMALL, attention="mean", position="rope")
    with pytest.raises(ConfigError) as refused:
        LanguageModel(
            ModelConfig(block=SMALL, vocab_size=50, n_layers=4, block_configs=[SMALL, SMALL, SMALL, rotating])
        )
    none, rope, alibi = (spec(name).name for name in ("none", "rope", "alibi"))  # others with --renamed
    assert str(refused.value) == (
        f"model.block_configs[3]: attention 'mean' takes no position; '{rope}' provides a rotation. Set position = \"none\"."
    )
    with pytest.raises(
        ConfigError, match=f"model.block: attention '{none}' takes no position; '{alibi}' provides a bias"
    ):
        LanguageModel(model(attention="none", position="alibi"))


def test_a_mixer_says_what_it_takes(register):
    class OnlyRotated(ThreeArguments):
        takes = frozenset({"rotate"})

    register(attention_registry, "only_rotated", OnlyRotated)
    LanguageModel(model(attention="only_rotated", position="rope"))
    alibi = spec("alibi").name
    with pytest.raises(ConfigError, match=f"'only_rotated' takes no such position; '{alibi}' provides a bias"):
        LanguageModel(model(attention="only_rotated", position="alibi"))


@pytest.mark.parametrize("position", ["rope", "alibi", "learned"])
def test_the_position_reaches_a_mixer_by_either_way(register, position):
    """By keyword or bound: the same logits."""
    register(attention_registry, "three", ThreeArguments)
    ours = randomise(LanguageModel(model(position=position)))
    theirs = LanguageModel(model(attention="three", position=position))
    theirs.load_weights(
        [(name.replace("attention.", "attention.inner."), w) for name, w in tree_flatten(ours.parameters())]
    )
    close(theirs(TOKENS)[0], ours(TOKENS)[0], 0.0)


def test_an_encoding_of_another_author_is_applied(register):
    register(position_registry, "wave", Wave)
    for check in checks.MODEL:
        check(lambda: LanguageModel(model(position="wave")))


def test_an_ffn_of_another_author_is_named_in_a_config(register):
    @ffn_registry.register("relu2")
    class ReLU2(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.up, self.down = nn.Linear(config.d_model, config.d_ff), nn.Linear(config.d_ff, config.d_model)

        def __call__(self, x):
            return self.down(mx.square(nn.relu(self.up(x))))

    try:
        for check in checks.FFN:
            check(lambda: ReLU2(SMALL))
        assert LanguageModel(model(ffn="relu2"))(TOKENS)[0].shape == (2, 12, 50)
    finally:
        ffn_registry.unregister("relu2")


def test_layers_share_one_position():
    """A learned table exists, is counted and is saved once; blocks that ask for another theta get their own."""
    shared = LanguageModel(model(position="learned", n_layers=3))
    assert [name for name, _ in tree_flatten(shared.parameters()) if "position" in name] == ["positions.0.weight"]
    blocks = [
        attrs.evolve(SMALL, position="rope", d_ff=d_ff, rope_theta=theta)
        for d_ff, theta in ((32, 1e4), (64, 1e4), (64, 500.0))
    ]
    two = LanguageModel(ModelConfig(block=SMALL, vocab_size=50, n_layers=3, block_configs=blocks))
    assert len(two.positions) == 2


def test_a_copy_shares_nothing():
    """A deep copy of a model keeps its own positions, as a frozen reference model needs."""
    first = randomise(LanguageModel(model(position="rope")))
    second = copy.deepcopy(first)
    assert second.layers[0].__dict__["_position"] is second.positions[0]
    before = second(TOKENS)[0]
    mx.eval(before)
    randomise(first, seed=9)
    close(second(TOKENS)[0], before, 0.0)


def test_mha_refuses_shared_heads():
    with pytest.raises(ConfigError, match='n_kv_heads=2 needs attention = "gqa"'):
        LanguageModel(model(attention="mha"))


def test_encodings_in_pairs_refuse_odd_widths():
    with pytest.raises(ConfigError, match="head_dim=15 is odd"):
        LanguageModel(model(position="rope", head_dim=15))
    with pytest.raises(ConfigError, match="d_model=63 is odd"):
        LanguageModel(model(position="sinusoidal", d_model=63, head_dim=16))


def test_a_table_of_positions_ends():
    tiny = LanguageModel(make_config("gpt", size="tiny", max_seq_len=8))
    cache = tiny.make_cache()
    tiny(TOKENS[:, :8], cache=cache)
    with pytest.raises(ConfigError, match="9 tokens do not fit position 'learned' of max_seq_len=8"):
        tiny(TOKENS[:, 8:9], cache=cache)


def test_post_norm_adds_no_final_norm():
    """The last block's output is already normalised."""
    assert "norm" not in LanguageModel(model(layout="post_norm"))
    assert "norm" in LanguageModel(model(layout="pre_norm"))


def test_an_absent_sublayer_keeps_no_norm():
    block = ConfigurableBlock(attrs.evolve(SMALL, ffn="none"))
    assert {name.rpartition(".")[0] for name, _ in tree_flatten(block.layout.parameters())} == {"attention_norm"}


def test_dropout_acts_while_training_only():
    """At three places a block: the embedding and both sublayers."""
    net = randomise(LanguageModel(model(dropout=0.5, n_layers=1)))
    still = [net.eval()(TOKENS)[0] for _ in range(2)]
    close(still[0], still[1], 0.0)
    moving = [net.train()(TOKENS)[0] for _ in range(2)]
    assert mx.abs(moving[0] - moving[1]).max().item() > 0.1
    for layout in ("pre_norm", "post_norm"):
        for sublayer in ("attention", "ffn"):
            block = randomise(
                ConfigurableBlock(attrs.evolve(SMALL, dropout=0.5, layout=layout, **{sublayer: "none"}))
            ).train()
            x = mx.random.normal((1, 4, 64))
            assert mx.abs(block(x)[0] - block(x)[0]).max().item() > 0.01


def test_options_reach_the_component():
    """Another activation is another function."""
    nets = [randomise(LanguageModel(model(ffn=spec("gated", activation=name)))) for name in ("silu", "relu")]
    assert mx.abs(nets[0](TOKENS)[0] - nets[1](TOKENS)[0]).max().item() > 1e-3


def test_logits_come_without_a_cache_unless_asked():
    net = LanguageModel(model())
    assert net(TOKENS)[1] is None
    cache = net.make_cache()
    logits, kept = net(TOKENS, cache=cache)
    assert logits.shape == (2, 12, 50)
    assert [a is b for a, b in zip(kept, cache, strict=True)] == [True, True]


def test_a_cache_grows_in_steps_and_tells_its_bytes():
    net = LanguageModel(model(n_layers=1))
    cache = net.make_cache()
    for _ in range(30):
        net(TOKENS, cache=cache)
    assert cache[0].offset == 360
    assert cache[0].nbytes == 2 * 2 * 2 * 512 * 16 * 4
