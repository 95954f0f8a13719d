"""One update does what its options say, against the formulas written out."""

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from lmx_core import LanguageModel, ModelConfig, ffn_registry, spec
from lmx_core.components.embedding import Embedding
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.testing import SMALL, randomise
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step

X, Y = (mx.random.randint(0, 50, (3, 12), key=mx.random.key(i)) for i in (1, 2))


def model(**block):
    return randomise(LanguageModel(ModelConfig(block=attrs.evolve(SMALL, **block), vocab_size=50, n_layers=2)))


def step(net, **settings):
    """An update of the net by batches of inputs and targets."""
    config = TrainConfig(**settings)
    objective = build("objective", config.objective, config)
    update = Step(net.train(), objective, build("optimizer", config.optimizer, config), config)

    def call(batches, rate):
        micros = [Micro({"inputs": x, "targets": y}, seed=i) for i, (x, y) in enumerate(batches)]
        return update(micros, rate)

    return call


def flat(net):
    return {name: np.array(weight.astype(mx.float32)) for name, weight in tree_flatten(net.parameters())}


def gradients(net):
    def loss():
        return nn.losses.cross_entropy(net(X)[0], Y, reduction="mean")

    value, found = nn.value_and_grad(net, loss)()
    return value.item(), {name: np.array(gradient) for name, gradient in tree_flatten(found)}


@pytest.mark.parametrize("compiled", [True, False])
def test_an_update_is_adamw(compiled):
    """Clipped gradients, bias correction, decoupled decay, none of it on norms and biases: three steps in numpy."""
    # rope: without it the keys' bias shifts all scores alike, and its gradient is rounding
    net, twin = (model(bias=True, norm="layer_norm", position="rope") for _ in range(2))
    # With the usual eps a gradient of the size of rounding moves its weight as far as any other.
    update = step(net, compile=compiled, weight_decay=0.2, max_grad_norm=0.5, optimizer=spec("adamw", eps=1e-3))
    first = second = None
    for t, rate in enumerate((1e-2, 5e-3, 1e-3), start=1):
        loss, found = gradients(twin)
        norm = np.sqrt(sum((g**2).sum() for g in found.values()))
        found = {name: g * min(1, 0.5 / norm) for name, g in found.items()}
        first = (
            {name: 0.1 * g + 0.9 * (first or {name: 0})[name] for name, g in found.items()}
            if first
            else {n: 0.1 * g for n, g in found.items()}
        )
        second = (
            {name: 0.05 * g**2 + 0.95 * second[name] for name, g in found.items()}
            if second
            else {n: 0.05 * g**2 for n, g in found.items()}
        )
        weights = flat(twin)
        for name, weight in weights.items():
            decayed = weight * (1 - rate * 0.2) if weight.ndim > 1 else weight
            moved = (first[name] / (1 - 0.9**t)) / (np.sqrt(second[name] / (1 - 0.95**t)) + 1e-3)
            weights[name] = decayed - rate * moved
        twin.load_weights([(name, mx.array(weight)) for name, weight in weights.items()])
        metrics = update([(X, Y)], rate)
        assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
    for name, weight in flat(net).items():
        assert np.abs(weight - flat(twin)[name]).max() < 1e-5, name


def test_without_a_limit_gradients_are_left_alone():
    """A limit below the norm, one far above it, and none."""
    weights = []
    for limit in (1e-3, 1e6, None):
        net = model()
        net.embed.weight = net.embed.weight * 10
        step(net, max_grad_norm=limit, optimizer="adamw", weight_decay=0.0)([(X, Y)], 1e-3)
        weights.append(flat(net)["embed.weight"])
    assert np.array_equal(weights[1], weights[2])
    assert not np.array_equal(weights[0], weights[1])


@pytest.mark.parametrize("compiled", [True, False])
def test_half_precision_computes_in_half_and_keeps_whole_weights(compiled):
    """bfloat16 changes the loss a little, never the type of parameters and optimizer; updates too small for it count."""
    seen = []

    @ffn_registry.register("spy")
    class Spy(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.up = nn.Linear(config.d_model, config.d_model)

        def __call__(self, x):
            seen.append(x.dtype)
            return self.up(x)

    try:
        whole, half = model(ffn="spy"), model(ffn="spy")
        losses = [
            step(net, dtype=dtype, compile=compiled)([(X, Y)], 1e-3)["loss"]
            for net, dtype in ((whole, "float32"), (half, "bfloat16"))
        ]
    finally:
        ffn_registry.unregister("spy")
    assert {str(dtype) for dtype in seen} == {"mlx.core.float32", "mlx.core.bfloat16"}
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]
    assert {weight.dtype for _, weight in tree_flatten(half.parameters())} == {mx.float32}
    before = flat(half)
    step(half, dtype="bfloat16", weight_decay=0.0)([(X, Y)], 1e-6)
    assert (
        0
        < np.abs(
            flat(half)["head.weight" if "head.weight" in before else "embed.weight"] - before["embed.weight"]
        ).max()
        < 1e-5
    )


class Reporting(nn.Module):
    """An FFN with an auxiliary loss and a statistic."""

    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_model)

    def __call__(self, x):
        self._report = {"balance_loss": mx.square(self.up.weight).sum(), "load": mx.array(0.25)}
        return self.up(x)


@pytest.fixture
def reporting():
    ffn_registry.register("reporting")(Reporting)
    yield
    ffn_registry.unregister("reporting")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("pieces", [1, 3])
def test_reports_are_added_once_and_shown(reporting, compiled, pieces):
    """Each layer's auxiliary loss enters the gradient once, however the batch is cut; statistics only show."""
    net, twin = model(ffn="reporting"), model(ffn="reporting")

    def loss():
        nats = nn.losses.cross_entropy(twin(X)[0], Y, reduction="mean")
        return nats + sum(mx.square(layer.ffn.up.weight).sum() for layer in twin.layers)

    _, found = nn.value_and_grad(twin, loss)()
    norm = np.sqrt(sum((np.array(g) ** 2).sum() for _, g in tree_flatten(found)))
    update = step(net, compile=compiled)
    for _ in range(2):
        batches = [(X[i : i + 3 // pieces], Y[i : i + 3 // pieces]) for i in range(0, 3, 3 // pieces)]
        metrics = update(batches, 0.0)
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert metrics["layers.0.ffn.load"] == pytest.approx(0.25)
        expected = np.square(flat(net)["layers.1.ffn.up.weight"]).sum()
        assert metrics["layers.1.ffn.balance_loss"] == pytest.approx(expected, rel=1e-5)
    assert "_report" not in net.layers[0].ffn


class Settling(Reporting):
    """An FFN with a number that no gradient moves, which sums what was reported."""

    def __init__(self, config):
        super().__init__(config)
        self.total = mx.zeros((2,))
        self.freeze(keys=["total"], recurse=False)

    def __call__(self, x):
        y = super().__call__(x)
        self._report["seen"] = mx.stack([mx.array(1.0), x.mean()])
        return y

    def settle(self, report):
        self.total = self.total + report["seen"]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("recompute_every", [0, 1])
def test_who_can_settle_is_told_its_report_once_an_update(compiled, recompute_every):
    """It is averaged over the batches of the update, and arrays are not shown."""
    ffn_registry.register("settling")(Settling)
    try:
        net = model(ffn="settling")
        net.layers[0].ffn.total = net.layers[1].ffn.total = mx.zeros((2,))
        update = step(net, compile=compiled, recompute_every=recompute_every)
        means = []
        for _ in range(2):
            before = flat(net)
            metrics = update([(X[:1], Y[:1]), (X[1:], Y[1:])], 1e-3)
            means.append(flat(net)["layers.1.ffn.total"][1] - before["layers.1.ffn.total"][1])
        assert not any(name.endswith("seen") for name in metrics)
    finally:
        ffn_registry.unregister("settling")
    assert flat(net)["layers.0.ffn.total"][0] == flat(net)["layers.1.ffn.total"][0] == 2
    assert means[0] != means[1]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("recompute_every", [1, 2])
@pytest.mark.parametrize("position", ["rope", "t5", "learned"])
def test_recomputed_blocks_give_the_same_update(reporting, compiled, recompute_every, position):
    """Losses of theirs included, whose gradient would be lost if they were left behind in the first pass, and a position
    that is learned, which is the model's."""
    nets = [model(ffn="reporting", position=position, norm="layer_norm") for _ in range(2)]
    found = [
        step(net, compile=compiled, recompute_every=every)([(X, Y)], 1e-2)
        for net, every in zip(nets, (0, recompute_every), strict=True)
    ]
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-5), name
    for name, weight in flat(nets[0]).items():
        assert np.abs(flat(nets[1])[name] - weight).max() < 1e-6, name


def test_recomputed_blocks_need_less_memory():
    """Of six blocks, what one holds instead of what six hold."""
    tokens, peaks = mx.zeros((8, 128), mx.int32), []
    for every in (0, 1):
        net = LanguageModel(ModelConfig(block=attrs.evolve(SMALL, d_ff=1024), vocab_size=50, n_layers=6))
        update = step(net, compile=False, recompute_every=every)
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        update([(tokens, tokens)], 1e-3)
        peaks.append(mx.get_peak_memory() - before)
    assert peaks[1] < 0.5 * peaks[0]


def test_a_quantised_model_is_recomputed_and_trains_what_is_left():
    """Packed weights are neither rounded nor asked for a gradient."""
    losses = []
    for every, dtype in ((0, "float32"), (1, "float32"), (1, "bfloat16")):
        net = model(position="rope")
        nn.quantize(net, group_size=32, bits=8)
        net.freeze()
        for layer in net.layers:
            layer.layout.unfreeze()
        update = step(net, recompute_every=every, dtype=dtype)
        losses.append([update([(X, Y)], 1e-2)["loss"] for _ in range(3)])
    assert losses[0][2] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[2] == pytest.approx(losses[0], rel=0.03)


class Whole(nn.Module):
    """An FFN one of whose parameters stays whole."""

    full_precision = frozenset({"gain"})

    def __init__(self, config):
        super().__init__()
        self.gain, self.shift = mx.ones((config.d_model,)), mx.ones((config.d_model,))

    def __call__(self, x):
        Whole.seen = self.gain.dtype, self.shift.dtype
        return (self.gain * x + self.shift).astype(x.dtype)


@pytest.mark.parametrize("recompute_every", [0, 1])
def test_what_asks_for_full_precision_keeps_it(recompute_every):
    ffn_registry.register("whole")(Whole)
    try:
        step(model(ffn="whole"), dtype="bfloat16", recompute_every=recompute_every)([(X, Y)], 1e-3)
    finally:
        ffn_registry.unregister("whole")
    assert Whole.seen == (mx.float32, mx.bfloat16)


def test_biases_of_many_experts_do_not_decay():
    """They have two axes, as matrices have."""

    class Stacked(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.weight, self.bias = mx.ones((2, config.d_model)), mx.ones((2, config.d_model))

        def __call__(self, x):
            return x * (self.weight + self.bias).sum(axis=0)

    ffn_registry.register("stacked")(Stacked)
    try:
        nets = [model(ffn="stacked") for _ in range(2)]
        for net, decay in zip(nets, (0.0, 0.5), strict=True):
            step(net, weight_decay=decay)([(X, Y)], 1e-2)
    finally:
        ffn_registry.unregister("stacked")
    plain, decayed = map(flat, nets)
    moved = {name for name in plain if np.abs(plain[name] - decayed[name]).max() > 1e-4}
    assert "layers.0.ffn.weight" in moved
    assert not any(name.endswith("bias") for name in moved)


def test_blocks_with_dropout_cannot_be_recomputed():
    with pytest.raises(ConfigError, match="recompute_every needs dropout = 0, got 0.1"):
        step(model(dropout=0.1), recompute_every=1)([(X, Y)], 1e-3)


def test_options_of_the_optimizer_are_its_own():
    """Another beta2 is another second step."""
    nets = [model() for _ in range(2)]
    for net, beta2 in zip(nets, (0.95, 0.5), strict=True):
        update = step(net, optimizer=spec("adamw", beta2=beta2))
        for batch in ((X, Y), (Y, X)):
            update([batch], 1e-2)
    assert not np.array_equal(flat(nets[0])["embed.weight"], flat(nets[1])["embed.weight"])


def test_a_frequent_token_learns_in_half_precision():
    """The gradients of thousands of equal tokens are summed in float32, not lost in a bfloat16 sum."""
    tokens = mx.zeros((1, 20_000), mx.int32)

    def gradient(dtype):
        table = Embedding(4, 8)
        table.weight = mx.zeros((4, 8), dtype)
        found = nn.value_and_grad(table, lambda: (table(tokens) * 0.01).sum())()[1]
        return found["weight"][0, 0].item()

    found = [gradient(dtype) for dtype in (mx.float32, mx.bfloat16)]
    assert found[0] == pytest.approx(200, rel=1e-3)
    assert found[1] == pytest.approx(200, rel=1e-2)


def test_frozen_parameters_compute_in_the_same_precision():
    """A frozen embedding does not lift what comes after it to float32, and keeps its own type."""
    seen = []

    @ffn_registry.register("spy")
    class Spy(nn.Module):
        def __call__(self, x):
            seen.append(x.dtype)
            return x

        def __init__(self, config):
            super().__init__()

    try:
        net = model(ffn="spy", norm="none")
        net.embed.freeze()
        step(net, dtype="bfloat16", compile=False)([(X, Y)], 0.0)
    finally:
        ffn_registry.unregister("spy")
    assert {str(dtype) for dtype in seen} == {"mlx.core.bfloat16"}
    assert net.embed.weight.dtype == mx.float32


def test_frozen_parameters_stay():
    net = model()
    net.layers[0].freeze()
    before = flat(net)
    step(net)([(X, Y)], 1e-2)
    after = flat(net)
    assert {name for name in before if np.array_equal(before[name], after[name])} == {
        n for n in before if n.startswith("layers.0.")
    }


def test_a_step_that_cannot_be_traced_leaves_the_generator_as_it_was():
    """Else every later draw of this process would fail, whoever asks for it."""

    class Reads(nn.Module):
        def __call__(self, x):
            return x * x.max().item()  # no value while a step is traced

    net = model(dropout=0.1)
    net.layers[0].ffn = Reads()
    mx.random.seed(7)
    expected = mx.random.normal((3,))
    mx.random.seed(7)
    with pytest.raises(ValueError, match="eval"):
        step(net)([(X, Y)], 0.0)
    assert mx.array_equal(mx.random.normal((3,)), expected).item()
