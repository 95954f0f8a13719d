"""Rows side by side give what they give one after the other."""

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten, tree_map

from lmx_core import LanguageModel, make_config
from lmx_core.components import vectorised
from lmx_core.testing.checks import close
from lmx_core.train import abreast

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
