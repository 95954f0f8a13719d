"""muP: what is found at one width holds at others (arXiv:2203.03466)."""

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx import optimizers as optim

from lmx_core import BlockConfig, LanguageModel, ModelConfig, ffn_registry, make_config, mup, spec
from lmx_core.checkpoint import load_model, save_model
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.model import flat_parameters
from lmx_core.registry import registry
from lmx_core.serialize import structure
from lmx_core.train.config import ParameterGroup, TrainConfig
from lmx_core.train.groups import groups_problem, optimizer_for

WIDTHS = (64, 128, 256)
TOKENS = mx.random.randint(0, 64, (2, 9), key=mx.random.key(5))


def model(width, base=64, seed=0, n_layers=2, block=None, **config):
    mx.random.seed(seed)
    sizes = {"d_model": width, "n_heads": width // 16, "head_dim": 16, "d_ff": 2 * width}
    usual = {"attention": "gqa", "ffn": "gated", "norm": "rms_norm", "position": "rope", "bias": False}
    return LanguageModel(
        ModelConfig(
            block=BlockConfig(**{**usual, **sizes, **(block or {})}),
            vocab_size=64,
            n_layers=n_layers,
            mup_base_width=base,
            **config,
        )
    )


def optimizer_of(net, name="adamw", **settings):
    settings = {"learning_rate": 0.01, "weight_decay": 0.0, **settings}
    optimizer = optimizer_for(net, TrainConfig(optimizer=name, **settings))
    optimizer.init(net.trainable_parameters())
    return optimizer


def sizes_while_trained(net, optimizer, steps=4):
    """After each step: the mean size of the stream after each block, and of what has changed in the targets' logits.

    At the beginning logits shrink with the width, and so do the changes of those that nothing is learned about.
    """
    tokens, targets = TOKENS[:, :-1], TOKENS[:, 1:]
    loss = nn.value_and_grad(net, lambda: nn.losses.cross_entropy(net(tokens)[0], targets, reduction="mean"))
    first, found = net(tokens)[0], []
    for _ in range(steps):
        optimizer.update(net, loss()[1])
        states, _ = net.hidden(tokens, return_all=True)
        changed = mx.take_along_axis(net.logits(states[-1]) - first, targets[..., None], axis=-1)
        found.append([mx.abs(each).mean().item() for each in (*states[1:-1], changed)])
    return found


def slopes(base, seeds):
    """Of the logarithm of each size, a mean over seeds, by that of the width: (steps, sizes)."""
    nets = [[model(width, base, seed, n_layers=3) for seed in seeds] for width in WIDTHS]
    sizes = np.array(
        [[sizes_while_trained(net, optimizer_of(net, learning_rate=3e-3)) for net in each] for each in nets]
    ).mean(1)
    return np.polyfit(np.log(WIDTHS), np.log(sizes).reshape(len(WIDTHS), -1), 1)[0].reshape(sizes.shape[1:])


def test_activations_keep_their_size_at_every_width():
    """The coordinate check: with muP no slope is above 0.1, without it sizes grow with the width."""
    with_mup = slopes(64, seeds=range(3))
    assert np.abs(with_mup).max() < 0.1, with_mup.round(2)
    without = slopes(None, seeds=[0])
    assert without.min() > 0.2, without.round(2)
    assert without[-1, 0] > 0.5, without.round(2)


def test_roles_follow_from_the_shapes():
    """Inputs and outputs that grow, of each parameter of a block and of the model."""

    class Mixture(nn.Module):
        """Two experts, a router, a map through 8 numbers, and gains of each expert."""

        def __init__(self, config):
            super().__init__()
            self.router = nn.Linear(config.d_model, 2)
            self.down, self.up = nn.Linear(config.d_model, 8), nn.Linear(8, config.d_model, bias=False)
            self.experts = nn.Module()
            self.experts.weight = mx.zeros((2, config.d_model, config.d_model))
            self.experts.bias = mx.zeros((2, config.d_model))

        def __call__(self, x):
            return x

    ffn_registry.register("mixture-of-two")(Mixture)
    try:
        qk_norm = {"name": "layer_norm", "weight": False, "bias": False}
        attention = spec("gqa", qk_norm=qk_norm, qk_norm_over="each_head", sinks=True)
        block = {"ffn": "mixture-of-two", "position": "learned", "attention": attention, "bias": True}
        net = model(256, tie_embeddings=False, head_bias=True, block={**block, "max_seq_len": 8})
        net.layers[0].added = nn.Linear(4, 4)
        found = {path: (each.fan_in, each.fan_out) for path, each in mup.growths(net).items()}
    finally:
        ffn_registry.unregister("mixture-of-two")
    assert found.keys() == flat_parameters(net).keys()
    expected = {
        "embed.weight": (1, 4),
        "positions.0.weight": (1, 4),
        "norm.weight": (1, 4),
        "head.weight": (1, 4),
        "head.bias": (1, 1),
        "layers.0.attention.q_proj.weight": (4, 4),
        "layers.1.attention.o_proj.weight": (4, 4),
        "layers.1.attention.o_proj.bias": (1, 4),
        "layers.0.attention.q_norm.weight": (1, 4),
        "layers.0.attention.sinks": (1, 4),
        "layers.0.layout.ffn_norm.weight": (1, 4),
        "layers.0.ffn.experts.weight": (4, 4),
        "layers.0.ffn.experts.bias": (1, 4),
        "layers.0.ffn.router.weight": (4, 1),
        "layers.0.ffn.router.bias": (1, 1),
        "layers.0.ffn.down.weight": (4, 1),
        "layers.0.ffn.up.weight": (1, 4),
        "layers.0.added.weight": (4, 4),
        "layers.0.added.bias": (1, 1),
    }
    assert {path: found[path] for path in expected} == expected


@pytest.mark.parametrize(
    ("optimizer", "hidden", "table"),
    [
        ("adamw", 1 / 4, 1),
        ("adam", 1 / 4, 1),
        ("lion", 1 / 4, 1),
        ("sgd", 1, 4),
        (spec("muon", scale="original"), 1, 1),
        ("muon", 1 / 2, 1),
    ],
    ids=str,
)
def test_each_optimizer_has_its_rates(optimizer, hidden, table):
    """Table 8, and for orthogonal updates a spectral norm of `sqrt(out / in)` (arXiv:2310.17813)."""
    net = model(256)
    made = build("optimizer", spec(optimizer) if isinstance(optimizer, str) else optimizer, TrainConfig())
    factors = mup.rate_factors(net, made)
    assert factors["layers.0.ffn.up.weight"] == pytest.approx(hidden)
    assert factors["embed.weight"] == factors["norm.weight"] == table
    assert mup.rate_factors(model(64), made) == {}


@pytest.mark.says_names
def test_optimizers_without_rates_by_width_are_refused():
    """Adafactor's is relative to the weights, for which no rule is published; another author's may say nothing."""

    class Plain(optim.SGD):
        def __init__(self, config):
            super().__init__(config.learning_rate)

    registry("optimizer").register("plain")(Plain)
    try:
        for name in ("adafactor", "plain"):
            config = TrainConfig(optimizer=name)
            assert groups_problem(model(128, base=None), config) is None
            assert f"optimizer {name!r} has no mup_rate" in str(groups_problem(model(128), config))
            with pytest.raises(ConfigError, match="mup_base_width=64"):
                optimizer_for(model(128), config)
    finally:
        registry("optimizer").unregister("plain")


@pytest.mark.parametrize("tied", [True, False])
def test_the_base_width_is_as_without(tied):
    """The same weights, rates and logits, but for the scale of the scores, where none is stated."""
    block = {"attention": spec("gqa", scale=0.3), "bias": True}
    one, other = (model(64, base, tie_embeddings=tied, block=block) for base in (64, None))
    for path, weight in flat_parameters(one).items():
        assert mx.array_equal(weight, flat_parameters(other)[path]), path
    assert mx.array_equal(one(TOKENS)[0], other(TOKENS)[0])
    assert type(optimizer_of(one)) is type(optimizer_of(other))
    assert model(64).layers[0].attention.scale == 8 / 16
    assert model(64, None).layers[0].attention.scale == 16**-0.5


@pytest.mark.parametrize("tied", [True, False])
def test_initial_sizes(tied):
    """Tables, the head and biases as at the base width; matrices by their inputs, as ever."""
    block = {"bias": True, "norm": "layer_norm"}
    plain, wide = (model(1024, base, tie_embeddings=tied, n_layers=1, block=block) for base in (None, 64))
    base = model(64, tie_embeddings=tied, n_layers=1, block=block)
    spread = [{path: mx.std(each).item() for path, each in flat_parameters(net).items()} for net in (base, plain, wide)]
    for path in flat_parameters(wide):
        same = path.startswith(("embed.", "head.")) or (
            path.endswith("_proj.bias") or (".ffn." in path and "bias" in path)
        )
        if same:
            assert spread[2][path] == pytest.approx(spread[0][path], rel=0.25), path
            assert spread[2][path] == pytest.approx(4 * spread[1][path], rel=1e-5), path
        else:
            assert spread[2][path] == spread[1][path], path


def test_comparing_widths_draws_no_random_numbers():
    """What is drawn after a model is built is what would be drawn without muP."""
    drawn = []
    for base in (64, None):
        net = model(128, base)
        mup.growths(net)
        drawn.append(mx.random.normal((3,)))
    assert mx.array_equal(*drawn)


def test_groups_come_on_top_and_decay_is_not_slowed():
    """A rate of a group times that of the width; each step takes the same share of a weight at every width."""
    taken = []
    for decay in (0.0, 0.1):
        net = model(256)
        before = flat_parameters(net)
        groups = (
            ParameterGroup(match="layers.0.*", rate=0.5),
            ParameterGroup(match="layers.1.*", weight_decay=3 * decay),
        )
        optimizer = optimizer_of(net, learning_rate=0.01, weight_decay=decay, groups=groups)
        optimizer.update(net, {"layers": [layer.trainable_parameters() for layer in net.layers]})
        taken.append({path: before[path] - weight for path, weight in flat_parameters(net).items()})
    for layer, rate, decay in ((0, 0.5, 0.1), (1, 1.0, 0.3)):
        name = f"layers.{layer}.ffn.up.weight"
        assert mx.abs(taken[0][name]).max().item() == pytest.approx(0.01 * rate / 4, rel=1e-3)
        share = (taken[1][name] - taken[0][name]) / before[name]
        assert mx.median(share).item() == pytest.approx(0.01 * rate * decay, rel=2e-2)


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_divided_and_biases_are_not(tied):
    net = model(256, tie_embeddings=tied, head_bias=True)
    name = "head_bias" if tied else "head.bias"
    net.load_weights([(name, mx.arange(64.0))], strict=False)
    hidden = mx.random.normal((1, 3, 256), key=mx.random.key(1))
    weights = flat_parameters(net)
    table = weights["embed.weight" if tied else "head.weight"]
    np.testing.assert_allclose(
        np.array(net.logits(hidden)), np.array(hidden @ table.T / 4 + mx.arange(64.0)), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("config", [{}, {"tie_embeddings": False, "head_bias": True}, {"embedding_dim": 32}], ids=str)
def test_a_folded_model_computes_the_same_without_mup(config):
    net = model(128, **config)
    other = mup.folded(net)
    assert other.config.mup_base_width is None
    np.testing.assert_allclose(np.array(other(TOKENS)[0]), np.array(net(TOKENS)[0]), rtol=1e-4, atol=1e-5)
    assert mup.folded(other) is other
    with pytest.raises(ConfigError, match="tied head has a bias"):
        mup.folded(model(128, head_bias=True))


def test_layers_that_differ_are_folded_each():
    blocks = model(128).config.block
    config = attrs.evolve(
        model(128).config,
        blocks={"a": blocks, "b": attrs.evolve(blocks, attention=spec("gqa", scale=0.2))},
        block_pattern=("a", "b"),
    )
    net = LanguageModel(config)
    assert [layer.attention.scale for layer in net.layers] == [0.5, 0.2]
    np.testing.assert_allclose(np.array(mup.folded(net)(TOKENS)[0]), np.array(net(TOKENS)[0]), rtol=1e-4, atol=1e-5)


def test_any_architecture_takes_it():
    """Its factory need not know of it."""
    config = make_config("llama", size="tiny", mup_base_width=32)
    assert config == attrs.evolve(make_config("llama", size="tiny"), mup_base_width=32)
    assert structure({"factory": "llama", "size": "tiny", "mup_base_width": 32}, ModelConfig, "here") == config
    assert structure({"factory": "llama", "size": "tiny", "mup_base_width": "none"}, ModelConfig, "here") == (
        make_config("llama", size="tiny")
    )
    for wrong, problem in (("wide", "mup_base_width: expected int"), (0, "mup_base_width")):
        with pytest.raises(ConfigError, match=problem):
            make_config("llama", size="tiny", mup_base_width=wrong)


def test_a_saved_model_keeps_its_width(tmp_path):
    net = model(128)
    save_model(net, tmp_path / "model")
    other = load_model(tmp_path / "model")
    assert other.config == net.config
    assert mx.array_equal(other(TOKENS)[0], net(TOKENS)[0])
