"""Rows side by side give what they give one after the other."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from lmx_core import LanguageModel, ModelConfig, build, make_config
from lmx_core.components import vectorised
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close
from lmx_core.train import abreast
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step

pytestmark = pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="needs MLX on a CPU")


def added(a, b):
    return a[0] + b[0], tree_map(mx.add, a[1], b[1])


def test_parts_give_the_gradients_of_the_whole():
    """Loss and gradients as sums, compiled, on streams of their own."""
    mx.random.seed(0)
    model = LanguageModel(make_config("llama", size="tiny"))
    tokens = mx.random.randint(0, model.config.vocab_size, (4, 13))
    weights = model.trainable_parameters()
    batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:]}

    def loss(parameters, batch):
        model.update(parameters)
        return nn.losses.cross_entropy(model(batch["inputs"])[0], batch["targets"], reduction="sum")

    def summed(parts):
        def gradients(weights, batch):
            part = lambda each: mx.value_and_grad(loss)(weights, each)  # noqa: E731
            return abreast.abreast(part, batch, parts, added)

        with abreast.one_core_each(parts):
            found = vectorised.compiled(gradients)(weights, batch)
            mx.eval(found)
        return found

    whole = summed(1)
    for parts in (2, 4):
        value, gradients = summed(parts)
        close(value, whole[0], 1e-4)
        for (_, each), (_, other) in zip(tree_flatten(gradients), tree_flatten(whole[1]), strict=True):
            close(each, other, 1e-4)


@pytest.mark.parametrize(("cores", "rows", "parts"), [(2, 8, 2), (2, 7, 1), (8, 8, 4), (3, 9, 3), (1, 8, 1), (8, 2, 2)])
def test_parts_are_of_equal_size(cores, rows, parts, monkeypatch):
    monkeypatch.setattr(abreast, "_cores", lambda: cores)
    monkeypatch.setattr(abreast, "_setter", lambda: lambda threads: None)
    assert abreast.parts_for(rows) == parts


def test_products_get_all_cores_back(monkeypatch):
    """Also after an error."""
    seen = []
    monkeypatch.setattr(abreast, "_cores", lambda: 6)
    monkeypatch.setattr(abreast, "_setter", lambda: seen.append)
    with pytest.raises(ZeroDivisionError), abreast.one_core_each(2):
        raise ZeroDivisionError
    with abreast.one_core_each(1):
        pass
    assert seen == [3, 6]


def test_a_blas_whose_threads_cannot_be_set_is_left_alone(monkeypatch):
    monkeypatch.setattr(abreast, "_setter", lambda: None)
    assert abreast.parts_for(8) == 1


@pytest.mark.parametrize(
    ("dropout", "rows_alone", "expected"),
    [(0.0, True, 2), (0.1, True, 1), (0.0, False, 1)],
    ids=["plain", "drops", "joint"],
)
def test_rows_are_parted_where_they_have_nothing_to_do_with_each_other(monkeypatch, dropout, rows_alone, expected):
    """Dropout would draw other numbers, and an objective over several rows would see other rows."""
    monkeypatch.setattr(abreast, "_cores", lambda: 2)
    monkeypatch.setattr(abreast, "_setter", lambda: lambda threads: None)
    config = TrainConfig(dtype="float32")
    usual = build("objective", config.objective, config)

    class Objective:
        def __call__(self, model, batch):
            return usual(model, batch)

    Objective.rows_alone = rows_alone
    net = randomise(LanguageModel(ModelConfig(block=attrs.evolve(SMALL, dropout=dropout), vocab_size=50, n_layers=1)))
    update = Step(net.train(), Objective(), build("optimizer", config.optimizer, config), config)
    tokens = mx.random.randint(0, 50, (4, 9), key=mx.random.key(0))
    update([Micro({"inputs": tokens, "targets": tokens}, seed=1)], 1e-3)
    assert update.parts == expected
