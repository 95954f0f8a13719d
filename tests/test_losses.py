"""Losses from hidden states, a few tokens at a time, against logits all at once."""

from pathlib import Path

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx import optimizers as optim
from mlx.utils import tree_flatten, tree_map

from lmx_core import LanguageModel, ModelConfig, losses
from lmx_core.chunks import parts_of
from lmx_core.losses import (
    cross_entropy,
    hidden_logps,
    logits_cross_entropy,
    sequence_means,
    sequence_sums,
    token_entropies,
    token_logps,
)
from lmx_core.testing import SMALL, randomise
from lmx_core.testing.checks import close
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import Micro, Step

pytestmark = pytest.mark.once

VECTORS = Path(__file__).parents[2] / "shared/vectors"
HEADS = {
    "plain": {},
    "tied": {"tie_embeddings": True},
    "biased": {"head_bias": True},
    "tied and biased": {"tie_embeddings": True, "head_bias": True},
    "scaled and capped": {"logit_multiplier": 0.5, "logit_softcap": 3.0},
    "narrow": {"embedding_dim": 24, "tie_embeddings": True},
}
CHOSEN = ({}, {"label_smoothing": 0.1}, {"z_loss": 1e-2}, {"label_smoothing": 0.2, "z_loss": 1e-2})
KEYS = [mx.random.key(i) for i in range(4)]
X, TARGETS = (mx.random.randint(0, 50, (3, 7), key=key) for key in KEYS[:2])
MASK = mx.random.bernoulli(0.6, (3, 7), key=KEYS[2])


def model(**numbers):
    return randomise(
        LanguageModel(
            ModelConfig(**{"block": SMALL, "vocab_size": 50, "n_layers": 1, "tie_embeddings": False, **numbers})
        )
    )


def slopes(net, loss):
    """The loss of hidden states, and its gradients by them and by every trained parameter."""
    hidden = 3 * mx.random.normal((3, 7, SMALL.d_model), key=KEYS[3]).astype(net.embed.weight.dtype)

    def of(parameters, hidden):
        net.update(parameters)
        return loss(hidden)

    before = net.trainable_parameters()
    value, found = mx.value_and_grad(of, argnums=(0, 1))(before, hidden)
    net.update(before)
    return value, dict(tree_flatten(found))


def same(one, other, tolerance=1e-5):
    close(one[0], other[0], tolerance)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert gradient.dtype == other[1][name].dtype, name
        close(gradient, other[1][name], tolerance)


def plain(net, mask=None, **chosen):
    return lambda hidden: logits_cross_entropy(net.logits(hidden), TARGETS, mask, **chosen).loss


def chunked(net, mask=None, chunk=4, **chosen):
    return lambda hidden: cross_entropy(net, hidden, TARGETS, mask, chunk=chunk, **chosen).loss


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
@pytest.mark.parametrize("head", HEADS)
def test_a_chunk_at_a_time_is_all_at_once(head, chosen):
    """Whatever the head is; loss and gradients, with and without a mask, in chunks that divide the tokens and that do not."""
    net = model(**HEADS[head])
    for mask, chunks in ((None, (4, 21)), (MASK, (1, 7))):
        expected = slopes(net, plain(net, mask, **chosen))
        for chunk in chunks:
            same(slopes(net, chunked(net, mask, chunk, **chosen)), expected)


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_compiled_it_is_the_same(chosen):
    net = model(head_bias=True)
    expected = slopes(net, plain(net, MASK, **chosen))
    loss = chunked(net, MASK, **chosen)
    hidden = 3 * mx.random.normal((3, 7, SMALL.d_model), key=KEYS[3])
    before = net.trainable_parameters()

    def of(parameters, hidden):
        net.update(parameters)
        found = mx.value_and_grad(lambda p, h: (net.update(p), loss(h))[1], argnums=(0, 1))(parameters, hidden)
        net.update(before)
        return found

    value, found = mx.compile(of)(before, hidden)
    same((value, dict(tree_flatten(found))), expected)


def test_half_precision_is_summed_whole():
    """Of bfloat16 weights the loss is that of their logits, and gradients differ by the rounding of logits' gradients."""
    net = model(head_bias=True)
    net.set_dtype(mx.bfloat16)
    found, expected = (slopes(net, make(net, MASK)) for make in (chunked, plain))
    assert found[0].dtype == mx.float32
    same(found, expected, 2e-2)
    close(found[0], expected[0], 1e-5)


@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
@pytest.mark.skipif(not hasattr(mx.fast, "cross_entropy"), reason="this mlx has no kernel")
def test_the_kernel_of_a_gpu_is_the_same(monkeypatch, chosen):
    """As far as a CPU can tell, where MLX computes it in other ways."""
    net = model(head_bias=True)
    expected = [slopes(net, plain(net, mask, **chosen)) for mask in (None, MASK)]
    monkeypatch.setattr(losses, "_fused", lambda: mx.fast.cross_entropy)
    for mask, each in zip((None, MASK), expected, strict=True):
        for chunk in (4, 21):
            same(slopes(net, chunked(net, mask, chunk, **chosen)), each)


def test_a_frozen_head_gets_no_gradient():
    """And hidden states get theirs."""
    net = model(head_bias=True)
    net.head.freeze()
    found = slopes(net, chunked(net))
    assert not any("head" in name for name in found[1])
    same(found, slopes(net, plain(net)))


class Bent(LanguageModel):
    """A model whose head has a part that lmx's has not."""

    def __init__(self, config):
        super().__init__(config)
        self.bend = mx.full((config.vocab_size,), 0.5)

    def logits(self, hidden):
        return super().logits(hidden) * self.bend


def test_a_head_may_have_more_parts():
    net = randomise(Bent(ModelConfig(block=SMALL, vocab_size=50, n_layers=1, tie_embeddings=False)))
    expected = slopes(net, plain(net))
    assert mx.abs(expected[1]["0.bend"]).max().item() > 0.1
    same(slopes(net, chunked(net)), expected)


def test_a_packed_head_passes_gradients_on():
    from lmx_core.quantised import quantise

    net = model()
    quantise(net, 8, 32, rules={"embed": False})
    same(slopes(net, chunked(net)), slopes(net, plain(net)))


@pytest.mark.parametrize("chunk", [4, 21])
@pytest.mark.parametrize("chosen", CHOSEN, ids=str)
def test_what_does_not_count_has_no_part_in_it(chosen, chunk):
    """Targets out of range and hidden states that are NaN: exactly zero gradients there, the same elsewhere."""
    net = model(head_bias=True)
    wild = mx.where(MASK, TARGETS, -100)

    def loss(targets, factor):
        def of(hidden):
            return cross_entropy(
                net, mx.where(MASK[..., None], hidden, factor), targets, MASK, chunk=chunk, **chosen
            ).loss

        return of

    expected, found = (slopes(net, loss(*each)) for each in ((TARGETS, 0), (wild, mx.nan)))
    same(found, expected, 0.0)
    raw = slopes(net, chunked(net, MASK, chunk, **chosen))[1]["1"]
    assert not mx.any(mx.where(MASK[..., None], 0, raw)).item()
    assert mx.all(mx.any(raw != 0, axis=-1) == MASK).item()


@pytest.mark.parametrize("chunk", [4, 21])
def test_nothing_that_counts_is_nothing(chunk):
    net = model()
    value, found = slopes(net, chunked(net, mx.zeros_like(MASK), chunk, label_smoothing=0.1, z_loss=0.1))
    assert value.item() == 0
    assert not any(mx.any(gradient != 0).item() for gradient in found.values())


def test_metrics_are_those_of_the_logits():
    """Plain nats beside a smoothed loss, and what the z-loss adds."""
    net, hidden = model(), mx.random.normal((3, 7, SMALL.d_model), key=KEYS[3])
    logits = net.logits(hidden)
    norms = mx.logsumexp(logits, -1)
    for chunk in (4, 21):
        found = cross_entropy(net, hidden, TARGETS, MASK, label_smoothing=0.3, z_loss=0.5, chunk=chunk)
        close(found.nats, nn.losses.cross_entropy(logits, TARGETS, MASK, reduction="sum"), 1e-5)
        close(found.z, (0.5 * norms**2 * MASK).sum(), 1e-5)
        smoothed = nn.losses.cross_entropy(logits, TARGETS, MASK, label_smoothing=0.3, reduction="sum")
        close(found.loss, smoothed + found.z, 1e-5)


def test_products_with_the_hessian_are_right():
    """The gradient of a gradient, which was computed on the way, goes back to the logits."""
    net = model(logit_softcap=3.0)
    direction = tree_map(lambda each: mx.random.normal(each.shape, key=KEYS[0]), net.trainable_parameters())
    hidden = mx.random.normal((3, 7, SMALL.d_model), key=KEYS[3])

    def product(loss):
        def along(parameters):
            def of(parameters):
                net.update(parameters)
                return loss(hidden)

            found, step = tree_flatten(mx.grad(of)(parameters)), dict(tree_flatten(direction))
            return sum((each * step[name]).sum() for name, each in found)

        before = net.trainable_parameters()
        found = mx.grad(along)(before)
        net.update(before)
        return found["head"]["weight"]

    found, expected = (product(make(net, MASK, z_loss=0.1)) for make in (chunked, plain))
    assert mx.abs(expected).max().item() > 0.1
    close(found, expected, 1e-4)


def test_a_model_is_left_as_it_was():
    net = model()
    before = dict(tree_flatten(net.parameters()))
    mx.eval(cross_entropy(net, mx.zeros((3, 7, SMALL.d_model)), TARGETS, chunk=4).loss)
    assert all(weight is before[name] for name, weight in tree_flatten(net.parameters()))


def test_few_logits_are_held():
    """Of 4096 tokens and 4096 words, 64 MiB at once: less than half of the plain loss's peak in memory."""
    net = LanguageModel(ModelConfig(block=attrs.evolve(SMALL, d_model=16), vocab_size=4096, n_layers=1))
    hidden, targets = mx.random.normal((4, 1024, 16)), mx.random.randint(0, 4096, (4, 1024))
    mx.eval(net.parameters(), hidden, targets)

    def peak(loss):
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        mx.eval(mx.grad(loss)(hidden))
        return mx.get_peak_memory() - before

    whole = peak(lambda hidden: logits_cross_entropy(net.logits(hidden), targets).loss)
    assert peak(lambda hidden: cross_entropy(net, hidden, targets, chunk=256).loss) < whole / 2
    assert whole > 2 * targets.size * 4096 * 4


def test_a_chunk_is_worth_the_gradient_of_its_head(monkeypatch):
    """Which is added up once a chunk: it has a quarter as many tokens as the head reads numbers, or more."""
    x = mx.zeros((40, SMALL.d_model))
    assert parts_of(model(), x, None) == [slice(0, 40)]
    assert parts_of(model(), x, 30) == [slice(0, 20), slice(20, 40)]
    monkeypatch.setattr("lmx_core.chunks.CHUNK", 1)
    assert parts_of(model(), x, None) == [slice(0, 14), slice(14, 28), slice(28, 40)]


def test_gradients_of_many_chunks_are_not_lost_in_half_precision():
    """Of 512 tokens that all push one word, one by one: a bfloat16 sum would stand still."""
    net = model()
    net.set_dtype(mx.bfloat16)
    hidden, targets = mx.full((1, 512, 64), 0.5, mx.bfloat16), mx.zeros((1, 512), mx.int32)
    found = []
    for chunk in (1, 512):
        loss = nn.value_and_grad(net, lambda chunk=chunk: cross_entropy(net, hidden, targets, chunk=chunk).loss)
        found.append(loss()[1]["head"]["weight"].astype(mx.float32))
    assert mx.abs(found[0] - found[1]).max().item() < 0.02 * mx.abs(found[1]).max().item()


@pytest.mark.parametrize("head", HEADS)
def test_log_probabilities_in_chunks(head):
    """Values, and gradients of a sum in which each token has a weight of its own."""
    net = model(**HEADS[head])
    weights = mx.random.normal(TARGETS.shape, key=KEYS[0])
    expected = slopes(net, lambda hidden: (token_logps(net.logits(hidden), TARGETS) * weights).sum())
    for chunk in (4, 21, None):
        same(
            slopes(net, lambda hidden, c=chunk: (hidden_logps(net, hidden, TARGETS, chunk=c) * weights).sum()), expected
        )
    hidden = mx.random.normal((3, 7, SMALL.d_model), key=KEYS[3])
    close(hidden_logps(net, hidden, TARGETS, chunk=4), token_logps(net.logits(hidden), TARGETS), 1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_log_probabilities_at_another_temperature(head):
    """Of what is drawn from logits that are divided by it, whatever the head does to them; gradients included."""
    net = model(**HEADS[head])
    weights = mx.random.normal((3, 7), key=KEYS[2])
    expected = slopes(net, lambda hidden: (token_logps(net.logits(hidden) / 0.7, TARGETS) * weights).sum())
    for chunk in (4, 21):
        found = slopes(
            net,
            lambda hidden, c=chunk: (hidden_logps(net, hidden, TARGETS, temperature=0.7, chunk=c) * weights).sum(),
        )
        same(found, expected)


def test_numbers_that_are_known():
    """Logits 0, 1, 2: log-probabilities, their entropy, and the smoothed loss, written out."""
    logits, norm = mx.array([[0.0, 1.0, 2.0]] * 2), np.log(np.exp([0, 1, 2]).sum())
    close(token_logps(logits, mx.array([2, 0])), mx.array([-0.4076059, -2.4076059]), 1e-6)
    close(token_entropies(logits), mx.array([0.8323955] * 2), 1e-6)
    found = logits_cross_entropy(logits, mx.array([2, 0]), label_smoothing=0.3, z_loss=0.1)
    assert found.loss.item() == pytest.approx(0.7 * (2 * norm - 2) + 0.3 * 2 * (norm - 1) + 0.2 * norm**2, rel=1e-6)
    assert token_entropies(mx.array([[0.0, -mx.inf]])).item() == 0
    values, mask = mx.array([[1.0, 2.0, mx.nan], [4.0, 5.0, 6.0]]), mx.array([[True, True, False], [False] * 3])
    assert sequence_sums(values, mask).tolist() == [3, 0]
    assert sequence_means(values, mask).tolist() == [1.5, 0]


def test_micro_batches_of_any_size_are_one_batch():
    """Sums over 3, 11, 1 and 6 targets, by how many these are: a mean of means would be another number."""
    weight, x = (mx.random.normal(shape, key=key) for shape, key in (((7, 5), KEYS[0]), ((21, 5), KEYS[1])))
    targets = mx.random.randint(0, 7, (21,), key=KEYS[2])

    def step(weight, part):
        return logits_cross_entropy(x[part] @ weight.T, targets[part]).loss

    value, gradient = mx.value_and_grad(step)(weight, slice(0, 21))
    parts = [slice(0, 3), slice(3, 14), slice(14, 15), slice(15, 21)]
    found = [mx.value_and_grad(step)(weight, part) for part in parts]
    close(sum(loss for loss, _ in found) / 21, value / 21, 1e-6)
    close(sum(each for _, each in found) / 21, gradient / 21, 1e-6)
    means = sum(loss / (part.stop - part.start) for (loss, _), part in zip(found, parts, strict=True)) / 4
    assert abs(means.item() - value.item() / 21) > 1e-3


def vectors(name):
    file = VECTORS / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not here")
    return dict(np.load(file))


def agree(found, expected):
    assert np.allclose(np.array(found, np.float64), expected, rtol=2e-5, atol=2e-6)


def test_vectors_of_log_probabilities():
    case = vectors("logps")
    logits, ids = mx.array(case["in.logits"]), mx.array(case["in.input_ids"].astype(np.int32))
    mask = mx.array(case["in.completion_mask"].astype(bool))[:, 1:]
    targets = ids[:, 1:]

    def loss(logits):
        return logits_cross_entropy(logits[:, :-1], targets, mask).loss / mask.sum()

    found = token_logps(logits[:, :-1], targets)
    expected = case["out.token_logps"]
    agree(mx.where(mask, found, 0) if (expected[~np.array(mask)] == 0).all() else found, expected)
    agree(sequence_sums(found, mask), case["out.seq_logps"])
    agree(sequence_means(found, mask), case["out.seq_logps_mean"])
    agree(mx.where(mask, token_entropies(logits[:, :-1]), 0), np.where(np.array(mask), case["out.entropy"], 0))
    value, gradient = mx.value_and_grad(loss)(logits)
    agree(value, case["out.ce"])
    agree(gradient, case["out.d_ce_d_logits"])


def test_vectors_of_accumulation():
    """Through the step that trains: four micro-batches in one update."""
    case = vectors("grad_accumulation")

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = mx.array(case["in.weight"])

    def objective(model, batch):
        return logits_cross_entropy(batch["x"] @ model.weight.T, batch["y"]).loss, batch["y"].size, {}

    pairs = [(mx.array(case[f"in.x{i}"]), mx.array(case[f"in.y{i}"].astype(np.int32))) for i in range(4)]
    for compiled in (True, False):
        net, config = Head(), TrainConfig(max_grad_norm=None, compile=compiled)
        update = Step(net, objective, optim.SGD(1.0), config)
        found = update([Micro({"x": x, "y": y}, seed=0) for x, y in pairs], 1.0)
        agree(found["loss"], case["out.loss"])
        agree(mx.array(case["in.weight"]) - net.weight, case["out.d_weight"])
