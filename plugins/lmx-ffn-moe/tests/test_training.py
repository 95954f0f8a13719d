"""A mixture learns: under compilation, recomputation and accumulation, with and without a loss that balances it."""

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from lmx_core import LanguageModel, ModelConfig, load_model, save_model, spec
from lmx_core.construct import build
from lmx_core.testing import SMALL, close, randomise
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step

X, Y = (mx.random.randint(0, 50, (4, 24), key=mx.random.key(i)) for i in (1, 2))
CORRECTED = {"n_experts": 4, "router": "sigmoid", "correction_bias": True, "n_shared_experts": 1}


def model(**moe):
    block = attrs.evolve(SMALL, ffn=spec("moe", **moe), position="rope", bias=False)
    return randomise(LanguageModel(ModelConfig(block=block, vocab_size=50, n_layers=2)))


def step(net, **settings):
    config = TrainConfig(optimizer=spec("adamw", eps=1e-3), **settings)
    parts = (build(kind, getattr(config, kind), config) for kind in ("objective", "optimizer"))
    update = Step(net.train(), *parts, config)
    return lambda batches, rate: update([Micro({"inputs": x, "targets": y}, seed=0) for x, y in batches], rate)


def flat(net):
    return dict(tree_flatten(net.parameters()))


def trained(batches, moe, **settings):
    net = model(**moe)
    update = step(net, **settings)
    metrics = [update(batches, 1e-3) for _ in range(3)][-1]
    return metrics, flat(net)


@pytest.mark.parametrize("moe", [CORRECTED, {"n_experts": 3, "top_k": 1}], ids=["corrected", "one expert"])
@pytest.mark.parametrize("settings", [{}, {"recompute_every": 1}, {"recompute_every": 2}], ids=str)
def test_compiled_and_recomputed_steps_are_those_of_an_eager_one(settings, moe):
    """Losses, statistics and every parameter, the corrections included, after three updates."""
    expected, weights = trained([(X, Y)], moe, compile=False)
    for compiled in (False, True):
        metrics, found = trained([(X, Y)], moe, compile=compiled, **settings)
        assert metrics == pytest.approx(expected, rel=1e-4)
        for name, weight in weights.items():
            close(found[name], weight, 2e-5)


def test_equal_batches_accumulate_to_the_same_update():
    """The losses of a mixture are means over the tokens of a batch: twice the same batch is the same as once."""
    once, weights = trained([(X, Y)], CORRECTED)
    twice, found = trained([(X, Y), (X, Y)], CORRECTED)
    assert twice == pytest.approx(once, rel=1e-4)
    for name, weight in weights.items():
        close(found[name], weight, 2e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_the_correction_follows_the_load_and_nothing_else(compiled):
    """It moves by the sign of what an expert lacks, once an update; nothing else touches it, thawed by mistake or not."""
    net = model(**CORRECTED, bias_update_rate=0.25)
    router = net.layers[0].ffn.router
    assert not any("correction" in name for name, _ in tree_flatten(net.trainable_parameters()))
    net.unfreeze()
    update = step(net, compile=compiled, weight_decay=0.5)
    for _ in range(3):
        before = np.array(router.correction)
        net.eval()
        states, _ = net.hidden(X, return_all=True)
        seen = net.layers[0].layout.ffn_norm(states[0] + net.layers[0].attention(
            net.layers[0].layout.attention_norm(states[0]), "causal", position=net.positions[0])[0])  # fmt: skip
        load = np.array(router(seen.flatten(0, 1)).load)
        net.train()
        update([(X, Y)], 1e-3)
        assert np.allclose(np.array(router.correction) - before, 0.25 * np.sign(0.25 - load), atol=1e-6)


def test_corrections_even_the_load_without_a_loss(tmp_path):
    """A router that prefers one expert comes to use all, though its weights stay; the corrections are saved."""
    net = model(n_experts=4, top_k=1, correction_bias=True, bias_update_rate=0.02, balance_loss=0.0, z_loss=0.0)
    router = net.layers[1].ffn.router
    router.correction = mx.array([0.9, 0.0, 0.0, 0.0])
    net.freeze()
    net.norm.unfreeze()
    update = step(net)
    metrics = [update([(X, Y)], 0.0) for _ in range(60)]
    assert metrics[0]["layers.1.ffn.load_entropy"] < 0.5
    assert metrics[-1]["layers.1.ffn.load_entropy"] > 0.95
    assert "layers.1.ffn.load" not in metrics[0]
    save_model(net, tmp_path)
    close(load_model(tmp_path).layers[1].ffn.router.correction, router.correction, 0.0)


def test_evaluation_reports_nothing():
    """What nobody reads would be computed for every token that is generated."""
    net = model(n_experts=4)
    net.eval()
    net(X)
    assert not any("_report" in layer.ffn for layer in net.layers)


def test_the_router_stays_whole_in_half_precision():
    """As many tokens go to each expert as in float32: neither its weights nor its corrections are rounded."""
    loads = []
    for dtype in ("float32", "bfloat16"):
        net = model(**CORRECTED)
        seen = []
        routed = type(net.layers[0].ffn.router).__call__

        def spied(self, x, seen=seen, routed=routed):
            seen.append((self.weight.dtype, self.correction.dtype))
            return routed(self, x)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(net.layers[0].ffn.router), "__call__", spied)
            loads.append(step(net, dtype=dtype, compile=False)([(X, Y)], 1e-3)["layers.0.ffn.load_entropy"])
        assert {*seen} == {(mx.float32, mx.float32)}
    assert loads[1] == pytest.approx(loads[0], abs=0.05)


def test_corrections_move_in_half_precision_too():
    """A step of 0.001 at 1 is less than bfloat16 can tell."""
    router = model(n_experts=4, correction_bias=True, bias_update_rate=0.001).layers[0].ffn.router
    router.correction = mx.ones((4,), mx.bfloat16)
    for _ in range(100):
        router.settle(mx.array([0.7, 0.1, 0.1, 0.1]))
    close(router.correction, mx.array([0.9, 1.1, 1.1, 1.1]), 1e-3)
