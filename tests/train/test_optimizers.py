"""Optimisers move parameters as torch's do, or as their papers say; groups and patterns, around any of them."""

from pathlib import Path

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx import optimizers as optim
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from lmx_core import LanguageModel, ModelConfig, spec
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.registry import registry
from lmx_core.testing import SMALL, randomise
from lmx_core.train.config import ParameterGroup, TrainConfig
from lmx_core.train.groups import frozen_by, groups_problem, optimizer_for
from lmx_core.train.optimizers.muon import orthogonal

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "optim.npz"
NAMES = ["adamw", "adam", "sgd", "lion", "adafactor", "muon"]
EVERYTHING = ParameterGroup(match="b", weight_decay=0.1)
"""torch decays vectors too; the matrices are left to the optimizer."""


class Parts(nn.Module):
    """Parameters by name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self[name] = mx.array(part)


def flat(net):
    return {name: np.array(weight) for name, weight in tree_flatten(net.parameters())}


def trained(module, gradients, **settings):
    """The parameters after an update with each of the gradients."""
    optimizer = optimizer_for(module, TrainConfig(**settings))
    optimizer.init(module.trainable_parameters())
    for each in gradients:
        optimizer.update(module, {name: mx.array(gradient) for name, gradient in each.items()})
    return flat(module)


def small(learning_rate=0.05, **settings):
    """Four updates of a matrix and a vector."""
    start, numbers = np.sin(np.arange(1, 10)).astype(np.float32), np.arange(9, dtype=np.float32)
    gradients = [np.cos(t + numbers) for t in range(1, 5)]
    module = Parts(w=start[:6].reshape(3, 2), b=start[6:])
    updates = [{"w": g[:6].reshape(3, 2), "b": g[6:]} for g in gradients]
    found = trained(module, updates, learning_rate=learning_rate, **settings)
    return [*found["w"].flatten().tolist(), *found["b"].tolist()]


@pytest.mark.parametrize(
    ("optimizer", "decay", "expected"),
    [
        ("adamw", 0.1, [0.827294, 1.06634, 0.265762, -0.722699, -1.115063, -0.411663, 0.616661, 1.163188, 0.560657]),
        ("adam", 0.1, [0.843889, 1.086219, 0.269249, -0.737427, -1.136181, -0.41793, 0.617201, 1.164088, 0.560014]),
        ("sgd", 0.0, [0.931685, 1.162911, 0.324962, -0.811756, -1.202149, -0.487292, 0.675579, 1.217326, 0.639868]),
        (
            spec("sgd", nesterov=True),
            0.0,
            [0.998638, 1.226356, 0.326568, -0.873465, -1.270438, -0.499376, 0.73081, 1.289093, 0.66219],
        ),
        ("adafactor", 0.1, [0.894447, 0.9899, 0.151486, -0.82113, -1.029204, -0.294143, 0.726443, 1.1163, 0.437181]),
    ],
    ids=str,
)
def test_updates_are_torchs(optimizer, decay, expected):
    """Numbers of torch 2 in float64, its decay on the matrix alone; Adam has none, whatever the config says."""
    assert small(optimizer=optimizer, weight_decay=decay) == pytest.approx(expected, abs=2e-6)


def test_an_update_is_lion():
    """Algorithm 2 of arXiv:2302.06675."""
    start, numbers = np.sin(np.arange(1, 10)), np.arange(9)
    momentum, decays = np.zeros(9), np.array([0.2] * 6 + [0.0] * 3)
    for t in range(1, 5):
        gradient = np.cos(t + numbers)
        start = start - 0.05 * (np.sign(0.9 * momentum + 0.1 * gradient) + decays * start)
        momentum = 0.99 * momentum + 0.01 * gradient
    assert small(optimizer="lion", weight_decay=0.2) == pytest.approx(start.tolist(), abs=1e-6)


def quintic(x, iterations=5):
    """Newton-Schulz of one matrix as its author writes it."""
    x = x.T if len(x) > len(x[0]) else x
    x = x / np.linalg.norm(x)
    for _ in range(iterations):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(("scale", "factor"), [("original", 1.5**0.5), ("match_rms_adamw", 0.2 * 3**0.5)])
def test_an_update_is_muon(nesterov, scale, factor):
    """In numpy, float64; the vector is AdamW's, at its own rate and those numbers of torch."""
    weight, momentum = np.sin(np.arange(1, 7)).reshape(3, 2), 0.0
    for t in range(1, 5):
        gradient = np.cos(t + np.arange(6)).reshape(3, 2)
        momentum = 0.95 * momentum + gradient
        update = quintic(gradient + 0.95 * momentum if nesterov else momentum).T
        weight = weight * (1 - 0.05 * 0.1) - 0.05 * factor * update
    found = small(optimizer=spec("muon", nesterov=nesterov, scale=scale), weight_decay=0.1)
    assert found[:6] == pytest.approx(weight.flatten().tolist(), abs=1e-5)
    assert found[6:] == pytest.approx([0.616661, 1.163188, 0.560657], abs=2e-6)


def test_options_of_muon_and_of_its_adamw():
    """Steps of Newton-Schulz for the matrix, what is added to the root for the vector: a first update by the formulas."""
    gradient, numbers = np.cos(1 + np.arange(9)), np.sin(np.arange(1, 10))
    expected = numbers[:6].reshape(3, 2) - 0.05 * 0.2 * 3**0.5 * quintic(1.95 * gradient[:6].reshape(3, 2), 2).T
    module = Parts(w=numbers[:6].reshape(3, 2), b=numbers[6:])
    chosen = spec("muon", iterations=2, eps=0.5)
    updates = [{"w": gradient[:6].reshape(3, 2), "b": gradient[6:]}]
    found = trained(module, updates, optimizer=chosen, learning_rate=0.05, weight_decay=0.0)
    np.testing.assert_allclose(found["w"], expected, atol=1e-5)
    np.testing.assert_allclose(found["b"], numbers[6:] - 0.05 * gradient[6:] / (np.abs(gradient[6:]) + 0.5), atol=1e-6)


def test_an_update_is_adafactor():
    """With options of its own: floors that are reached, updates that are shortened, and a rate above 1 / sqrt(step)."""
    options = {"beta2_decay": -0.5, "eps": 0.5, "smallest": 2.0, "clip": 0.25}

    def size(x):
        return np.sqrt((x**2).mean())

    start, numbers = np.sin(np.arange(1, 10)), np.arange(9)
    weights, means = [start[:6].reshape(3, 2), start[6:]], [[0.0, 0.0], [0.0]]
    for t in range(1, 5):
        gradient = np.cos(t + numbers)
        for i, g in enumerate((gradient[:6].reshape(3, 2), gradient[6:])):
            new = [(g**2).mean(1, keepdims=True), (g**2).mean(0, keepdims=True)] if g.ndim > 1 else [g**2]
            means[i] = found = [old + t**-0.5 * (each - old) for old, each in zip(means[i], new, strict=True)]
            squares = found[0] * found[1] / max(found[0].mean(), 0.5) if g.ndim > 1 else found[0]
            update = g / np.sqrt(np.maximum(squares, 0.25))
            rate = min(0.9, t**-0.5) * max(size(weights[i]), 2.0) / max(1, size(update) / 0.25)
            weights[i] = weights[i] - rate * update
    found = small(optimizer=spec("adafactor", **options), weight_decay=0.0, learning_rate=0.9)
    assert found == pytest.approx(np.concatenate([weights[0].ravel(), weights[1]]).tolist(), abs=1e-5)


def test_singular_values_come_near_1():
    """Of each matrix of a stack by itself, wide or tall, whatever its size."""
    for shape in ((3, 24, 8), (2, 3, 8, 24), (16, 16)):
        x = mx.random.normal(shape, key=mx.random.key(0)) * 1e-3
        found = np.array(orthogonal(x))
        values = np.linalg.svd(found, compute_uv=False)
        assert values.max() < 1.3
        assert np.median(values) > 0.6
        alone = np.array(orthogonal(x[(0,) * (len(shape) - 2)])) if len(shape) > 2 else found
        assert np.abs(found[(0,) * (len(shape) - 2)] - alone).max() < 1e-5


def test_muon_is_for_matrices_inside_the_model():
    """What has which state shows whose it is; the head's matrix is AdamW's, and so are tables and a convolution's kernel."""
    model = LanguageModel(
        ModelConfig(
            block=attrs.evolve(SMALL, position="learned", norm="layer_norm", max_seq_len=8),
            vocab_size=50,
            n_layers=1,
            tie_embeddings=False,
            embedding_dim=16,
        )
    )
    model.layers[0].short_convolution = nn.Conv1d(8, 8, 4)
    optimizer = build("optimizer", "muon", TrainConfig())
    optimizer.init(model.trainable_parameters())
    hidden, others = (
        {path.rpartition(".")[0] for path, _ in tree_flatten(each["states"][i]) if "." in path}
        for each in [optimizer.state]
        for i in (0, 1)
    )
    names = {f"layers.0.attention.{each}_proj.weight" for each in "qkvo"}
    names |= {f"layers.0.ffn.{each}.weight" for each in ("up", "gate", "down")}
    assert hidden == names | {"project_in.weight", "project_out.weight"}
    assert hidden | others == set(flat(model))
    assert not hidden & others
    assert [optimizer.is_hidden("w", mx.zeros(shape)) for shape in ((2, 8), (1, 8), (8, 1))] == [True, False, False]


def test_both_parts_of_muon_follow_the_schedule():
    """AdamW's rate stays in its ratio to the other."""
    optimizer = build("optimizer", spec("muon", adamw_learning_rate=0.004), TrainConfig(learning_rate=0.02))
    for rate in (0.02, 0.005, 0.0):
        optimizer.learning_rate = rate
        assert [each.learning_rate.item() for each in optimizer.optimizers] == pytest.approx([rate, rate / 5])
        assert optimizer.learning_rate.item() == pytest.approx(rate)


@pytest.mark.skipif(not VECTORS.exists(), reason="the reference numbers are not beside the project")
@pytest.mark.parametrize(
    ("key", "optimizer", "rate", "decay"),
    [
        ("adamw", "adamw", 0.01, 0.1),
        ("adam", "adam", 0.01, 0.0),
        ("sgd_nesterov", spec("sgd", nesterov=True), 0.01, 0.0),
        ("adamw_clip1", "adamw", 0.01, 0.1),
        ("adafactor", "adafactor", 0.01, 0.0),
        ("lion", "lion", 0.001, 0.1),
        ("muon_original", spec("muon", scale="original"), 0.02, 0.1),
        ("muon_match_rms_adamw", "muon", 0.02, 0.1),
    ],
)
def test_reference_numbers(key, optimizer, rate, decay):
    with np.load(VECTORS) as file:
        data = dict(file)
    module = Parts(**{name: data[f"in.p0.{name}"] for name in "wvb"})
    gradients = [{name: mx.array(data[f"in.grads.{name}"][t]) for name in "wvb"} for t in range(5)]
    if key == "adamw_clip1":
        clipped = [optim.clip_grad_norm(each, 1.0) for each in gradients]
        gradients = [each for each, _ in clipped]
        norms = [data[f"out.{key}.gnorm{t}"] for t in range(5)]
        np.testing.assert_allclose([norm.item() for _, norm in clipped], norms, 1e-4)
    groups = (EVERYTHING,) if decay else ()
    found = trained(module, gradients, optimizer=optimizer, learning_rate=rate, weight_decay=decay, groups=groups)
    compared = [name for name in "wvb" if f"out.{key}.{name}" in data]
    assert len(compared) >= 2
    for name in compared:
        np.testing.assert_allclose(found[name], data[f"out.{key}.{name}"], 1e-4, 1e-6, err_msg=name)


@pytest.mark.skipif(not VECTORS.exists(), reason="the reference numbers are not beside the project")
def test_reference_numbers_of_newton_schulz():
    with np.load(VECTORS) as data:
        for name in "wv":
            found = np.array(orthogonal(mx.array(data[f"in.grads.{name}"][0])))
            np.testing.assert_allclose(found, data[f"out.newton_schulz.{name}"], 1e-4, 1e-5)


# Groups


def model(**config):
    return randomise(LanguageModel(ModelConfig(block=SMALL, vocab_size=50, n_layers=2, **config)))


def moved(optimizer, *groups, decay=0.1, **settings):
    """How far each parameter of a model went in one update at rate 0.01 with gradients of one size, and the beginning."""
    net = model(tie_embeddings=False)
    before = flat(net)
    made = optimizer_for(net, TrainConfig(optimizer=optimizer, weight_decay=decay, groups=groups, **settings))
    made.init(net.trainable_parameters())
    made.learning_rate = 0.01
    made.update(net, tree_map(lambda weight: mx.full(weight.shape, 0.01), net.trainable_parameters()))
    return {path: weight - before[path] for path, weight in flat(net).items()}, before


@pytest.mark.parametrize("name", NAMES)
def test_groups_have_rates_and_decay_of_their_own(name):
    """The first that matches counts; a decay that is stated is that of norms, too, and nothing else changes."""
    usual, before = moved(name, decay=0.0)
    groups = [
        ParameterGroup(match="layers.0.*", rate=0.5),
        ParameterGroup(match=["layers.*.layout.*", "embed.*"], rate=2.0, weight_decay=0.0 if name == "adam" else 0.3),
        ParameterGroup(match="head.*", rate=0.0),
    ]
    found, _ = moved(name, *groups, decay=0.0)
    for path, far in usual.items():
        expected = far
        if path.startswith("layers.0."):
            expected = 0.5 * far
        elif path.startswith(("layers.1.layout", "embed")):
            expected = 2 * far - (0 if name == "adam" else 0.02 * 0.3) * before[path]
        elif path.startswith("head"):
            expected = 0 * far
        np.testing.assert_allclose(found[path], expected, atol=2e-6, err_msg=path)


def test_a_group_without_decay_decays_as_ever():
    found, before = moved("adamw", ParameterGroup(match="layers.*", rate=0.5), decay=0.2)
    usual, _ = moved("adamw", decay=0.0)
    name = "layers.1.ffn.up.weight"
    np.testing.assert_allclose(found[name], 0.5 * usual[name] - 0.005 * 0.2 * before[name], atol=2e-6)
    name = "layers.1.layout.ffn_norm.weight"
    np.testing.assert_allclose(found[name], 0.5 * usual[name], atol=2e-6)


def test_a_stated_decay_is_in_place_of_the_usual_one():
    found, before = moved("adamw", ParameterGroup(match="embed.*", weight_decay=0.3), decay=0.2)
    usual, _ = moved("adamw", decay=0.0)
    for name, decay in (("embed.weight", 0.3), ("layers.1.ffn.up.weight", 0.2)):
        np.testing.assert_allclose(found[name], usual[name] - 0.01 * decay * before[name], atol=2e-6)


def test_groups_go_around_an_optimizer_that_knows_nothing_of_them():
    """Another author's, registered by the program."""

    class Plain(optim.SGD):
        def __init__(self, config):
            super().__init__(config.learning_rate)

    registry("optimizer").register("plain")(Plain)
    try:
        found, before = moved("plain", ParameterGroup(match="embed.*", rate=3.0, weight_decay=0.5))
    finally:
        registry("optimizer").unregister("plain")
    np.testing.assert_allclose(found["embed.weight"], -0.03 * (0.01 + 0.5 * before["embed.weight"]), atol=1e-7)
    np.testing.assert_allclose(found["norm.weight"], np.full(64, -1e-4), atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_compiled_groups_are_the_same(name):
    """Rates that change between updates reach each group."""
    groups = (ParameterGroup(match="w", rate=0.5), ParameterGroup(match="b", weight_decay=0.3))
    found = []
    for compiled in (False, True):
        net = randomise(Parts(w=np.zeros((6, 4)), v=np.zeros((4, 6)), b=np.zeros(5)))
        optimizer = optimizer_for(net, TrainConfig(optimizer=name, groups=groups))
        optimizer.init(net.trainable_parameters())
        state = [net.state, optimizer.state]

        def update(scale, net=net, optimizer=optimizer):
            optimizer.update(net, tree_map(lambda weight: mx.sin(scale * (1 + weight)), net.trainable_parameters()))

        update = mx.compile(update, inputs=state, outputs=state) if compiled else update
        for i, rate in enumerate((0.01, 0.03, 0.001)):
            optimizer.learning_rate = rate
            update(mx.array(1.0 + i))
            mx.eval(state)
        found.append(flat(net))
    for path, weight in found[0].items():
        np.testing.assert_allclose(found[1][path], weight, atol=5e-6, err_msg=path)


def test_a_saved_state_of_groups_continues(tmp_path):
    """To the bit, in another optimizer of the same config."""
    config = TrainConfig(optimizer="muon", groups=(ParameterGroup(match="layers.1.*", rate=0.5),))
    net = model()
    gradients = [tree_map(lambda weight, t=t: mx.sin(t + weight), net.trainable_parameters()) for t in range(4)]
    first = optimizer_for(net, config)
    for gradient in gradients[:2]:
        first.update(net, gradient)
    mx.save_safetensors(str(tmp_path / "state.safetensors"), dict(tree_flatten(first.state)))
    other = model()
    other.update(net.parameters())
    second = optimizer_for(other, config)
    second.state = tree_unflatten(list(mx.load(str(tmp_path / "state.safetensors")).items()))
    second.init(other.trainable_parameters())
    for gradient in gradients[2:]:
        first.update(net, gradient)
        second.update(other, gradient)
    for path, weight in flat(net).items():
        assert np.array_equal(flat(other)[path], weight), path


def test_a_pattern_that_matches_nothing_is_an_error():
    """It names what was meant, and what there is."""
    for pattern, meant in (
        ("embedd.*", "embed.*"),
        ("layers.0.atention.*", "layers.*.attention.*"),
        ("layers.*.ffn.up.weigth", "layers.*.ffn.up.weight"),
    ):
        config = TrainConfig(groups=(ParameterGroup(match="norm.*"), ParameterGroup(match=["norm.*", pattern])))
        problem = groups_problem(model(), config)
        assert problem is not None
        assert f"train.groups[1].match has {pattern!r}" in problem
        assert f"Did you mean {meant!r}?" in problem
        assert "embed.*, layers.*, norm.*" in problem
        with pytest.raises(ConfigError, match="groups"):
            optimizer_for(model(), config)
    assert groups_problem(model(), TrainConfig(groups=(ParameterGroup(match="*"),))) is None


@pytest.mark.says_names
def test_decay_that_is_asked_of_an_optimizer_without_is_an_error():
    config = TrainConfig(optimizer="adam", groups=(ParameterGroup(match="*", weight_decay=0.1),))
    assert "'adam' never decays" in str(groups_problem(model(), config))


def test_patterns_freeze():
    net = model()
    frozen = frozen_by(net, ["embed.*", "layers.*.attention.[qk]_proj.weight"])
    assert len(frozen) == 5
    left = {path for path, _ in tree_flatten(net.trainable_parameters())}
    assert left == set(flat(net)) - set(frozen)
    assert frozen_by(net, ()) == []
    with pytest.raises(ConfigError, match=r"train.freeze has 'layer\.\*', .* Did you mean 'layers\.\*'"):
        frozen_by(net, "layer.*")
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        frozen_by(net, ["*"])


def test_options_that_contradict_each_other():
    with pytest.raises(ConfigError, match="nesterov = true .* momentum = 0"):
        build("optimizer", spec("sgd", nesterov=True, momentum=0.0), TrainConfig())
