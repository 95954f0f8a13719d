"""What a step makes smaller."""

import attrs
import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from lmx_core import LanguageModel, ModelConfig, spec
from lmx_core.construct import build
from lmx_core.errors import ConfigError
from lmx_core.losses import hidden_logps, logits_cross_entropy
from lmx_core.testing import SMALL, cases, randomise
from lmx_core.testing.checks import close
from lmx_core.train.config import TrainConfig

BATCH = {name: mx.random.randint(0, 50, (3, 12), key=mx.random.key(i)) for i, name in enumerate(("inputs", "targets"))}
MASK = mx.random.bernoulli(0.5, (3, 12), key=mx.random.key(2))


def model(**block):
    return randomise(LanguageModel(ModelConfig(block=attrs.evolve(SMALL, **block), vocab_size=50, n_layers=1)))


def objective(**options):
    config = TrainConfig(objective=spec("next_token", **options))
    return build("objective", config.objective, config)


def test_plainly_it_is_cross_entropy():
    """Of every target, or of those that the mask lets through."""
    net = model()
    logits = net(BATCH["inputs"])[0]
    for batch, weights, counted in ((BATCH, None, 36), ({**BATCH, "mask": MASK}, MASK, MASK.sum().item())):
        loss, count, metrics = objective()(net, batch)
        close(loss, nn.losses.cross_entropy(logits, BATCH["targets"], weights, reduction="sum"), 1e-5)
        assert (count.item(), metrics) == (counted, {})


def test_documents_of_a_row_are_predicted_each_by_itself():
    net = model(position="rope")
    found = objective()(net, {**BATCH, "segments": mx.arange(12)[None] // 5 + mx.zeros((3, 1), mx.int32)})[0]
    parts = [{name: value[:, i : i + 5] for name, value in BATCH.items()} for i in (0, 5, 10)]
    close(found, sum(objective()(net, part)[0] for part in parts), 1e-5)
    assert found.item() != pytest.approx(objective()(net, BATCH)[0].item(), rel=1e-3)


@pytest.mark.parametrize("chunk", [None, 5])
@pytest.mark.parametrize(
    "chosen", [{"label_smoothing": 0.1}, {"z_loss": 1e-3}, {"label_smoothing": 0.1, "z_loss": 1e-3}]
)
def test_what_is_added_is_told(chosen, chunk):
    """The metric `nats` is without it; gradients are with it."""
    net = model()

    def found(loss):
        return nn.value_and_grad(net, loss)()

    expected = found(lambda: logits_cross_entropy(net(BATCH["inputs"])[0], BATCH["targets"], MASK, **chosen).loss)
    mine = found(lambda: objective(chunk=chunk, **chosen)(net, {**BATCH, "mask": MASK})[0])
    close(mine[0], expected[0], 1e-5)
    others = dict(tree_flatten(mine[1]))
    for name, gradient in tree_flatten(expected[1]):
        close(others[name], gradient, 1e-4)
    loss, count, metrics = objective(chunk=chunk, **chosen)(net, {**BATCH, "mask": MASK})
    plain, _, _ = objective()(net, {**BATCH, "mask": MASK})
    assert metrics.keys() == {"nats", *({"z_loss"} & chosen.keys())}
    assert metrics["nats"].item() == pytest.approx(plain.item(), rel=1e-5)
    assert loss.item() != pytest.approx(plain.item(), rel=1e-4)
    assert count.item() == MASK.sum().item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"z_loss": -1.0}, "z_loss"),
        ({"chunk": 0}, "chunk"),
        ({"chunk": 2.5}, "chunk"),
        ({"smoothing": 0.1}, "smoothing"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        objective(**options)


class Pairs:
    """Makes one of two rows of tokens likelier than the other."""

    def __init__(self, config):
        pass

    def example(self, rows):
        keys = mx.random.split(mx.random.key(rows), 2)
        return {
            name: mx.random.randint(0, 50, (rows, 9), key=key) for name, key in zip(("good", "bad"), keys, strict=True)
        }

    def __call__(self, model, batch):
        sums = [
            hidden_logps(model, model.hidden(batch[name][:, :-1])[0], batch[name][:, 1:]).sum(-1)
            for name in ("good", "bad")
        ]
        return mx.logaddexp(0, sums[1] - sums[0]).sum(), mx.array(len(sums[0])), {"margin": (sums[0] - sums[1]).sum()}


def test_one_that_reads_no_text_says_what_it_reads():
    """The kit tries it with its own example, the same for each check."""
    suite = cases("objective", Pairs)
    assert len(suite) > 6
    for case in suite:
        case.run()
