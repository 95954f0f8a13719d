"""Callbacks measure what their formulas say, at their steps, and leave the run as it was."""

import json
import math
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from lmx_core import ffn_registry, spec
from lmx_core.components.masks import causal
from lmx_core.components.softmax import QUERIES, attend, watching
from lmx_core.construct import build
from lmx_core.data.tokenizers import CharTokenizer, decode
from lmx_core.errors import ConfigError
from lmx_core.flops import training_flops
from lmx_core.generation import generate
from lmx_core.testing.runs import BRIEF, brief_trainer
from lmx_core.train.callback import Callback
from lmx_core.train.callbacks import memory, throughput
from lmx_core.train.callbacks.probe import heard, untouched
from lmx_core.train.callbacks.rank import effective_rank
from lmx_core.train.callbacks.sharpness import hessian_of, largest_eigenvalue
from lmx_core.train.config import TrainConfig

MEASURING = (
    "throughput",
    spec("mfu", peak=1e11),
    "memory",
    "gradient_stats",
    "weight_stats",
    "activation_stats",
    "attention_entropy",
    spec("effective_rank", weights=True),
    spec("sharpness", every=2),
    spec("samples", tokens=5),
)


def config(*callbacks, **settings):
    return TrainConfig(**{**BRIEF, "max_steps": 6, "warmup_steps": 2, "callbacks": callbacks, **settings})


class Watch(Callback):
    """The metrics of each step, as the loggers see them, and whatever `look(trainer)` returns."""

    logs = True

    def __init__(self, look=lambda trainer: None):
        self.seen, self.looks, self.look = {}, {}, look

    def on_step_end(self, trainer, metrics):
        self.seen[trainer.step] = dict(metrics)
        self.looks[trainer.step] = self.look(trainer)


def run(*callbacks, look=lambda trainer: None, path=None, block=None, **settings):
    """A short run with callbacks; the trainer, and the `Watch` that saw it."""
    watch = Watch(look)
    trainer = brief_trainer([watch], path, config(*callbacks, **settings), **(block or {}))
    trainer.run()
    return trainer, watch


def flat(tree):
    return {name: np.array(value) for name, value in tree_flatten(tree) if isinstance(value, mx.array)}


def parts(arrays):
    """By `layers.N`, or the first word of the path."""
    found = {}
    for path, value in arrays.items():
        words = path.split(".")
        found.setdefault(".".join(words[:2]) if words[0] == "layers" else words[0], []).append(value.ravel())
    return {name: np.concatenate(values).astype(np.float64) for name, values in found.items()}


def stats(numbers):
    return {
        "norm": np.sqrt((numbers**2).sum()),
        "mean": numbers.mean(),
        "std": numbers.std(),
        "max": np.abs(numbers).max(),
        "zeros": (numbers == 0).mean(),
    }


def agree(metrics, prefix, expected, tolerance=1e-4):
    """All metrics with the prefix are the expected ones, and no others."""
    found = {name: value for name, value in metrics.items() if name.startswith(prefix)}
    assert found.keys() == {f"{prefix}/{name}" for name in expected}
    for name, value in expected.items():
        assert found[f"{prefix}/{name}"] == pytest.approx(value, rel=tolerance, abs=1e-6), name


# That nothing is moved ---------------------------------------------------------------------------------------------------


class Reporting(nn.Module):
    """An FFN with an auxiliary loss, a number that `settle` moves, and dropout."""

    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_model)
        self.level = mx.zeros(())
        self.freeze(keys=["level"], recurse=False)
        self.drop = nn.Dropout(0.2)

    def __call__(self, x):
        y = self.drop(self.up(x))
        self._report = {"size_loss": 1e-3 * mx.square(y).mean(), "mean": y.mean()}
        return y + self.level

    def settle(self, report):
        self.level = self.level + 0.01 * report["mean"]


@pytest.mark.parametrize("settings", [{}, {"compile": False}, {"grad_accumulation_steps": 2, "ema_decay": 0.9}])
def test_a_run_with_all_of_them_is_the_same_run(settings, tmp_path):
    """Losses, weights, optimizer, averages and reports, to the bit; with dropout, auxiliary losses, and frozen numbers."""
    ffn_registry.register("reporting")(Reporting)
    try:
        block = {"ffn": "reporting", "position": "rope"}
        (alone, bare), (watched, full) = (
            run(*callbacks, path=path, block=block, **settings)
            for callbacks, path in (((), None), (MEASURING, tmp_path))
        )
    finally:
        ffn_registry.unregister("reporting")
    usual = bare.seen[6].keys() - {"tokens_per_second"}
    assert "layers.0.ffn.size_loss" in usual
    for step in range(1, 7):
        assert {n: bare.seen[step][n] for n in usual} == {n: full.seen[step][n] for n in usual}
        assert len(full.seen[step]) > len(bare.seen[step]) + 50
    for one, other in (
        (alone.model.state, watched.model.state),
        (alone.optimizer.state, watched.optimizer.state),
        (alone.update.averages, watched.update.averages),
    ):
        one, other = flat(one), flat(other)
        assert [*one] == [*other]
        assert all(np.array_equal(one[name], other[name]) for name in one)
    assert float(watched.model.layers[0].ffn.level) != 0


def test_steps_stay_compiled():
    """Python runs the model where something is due, and not in the steps between."""
    calls = []

    class Counting(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.up = nn.Linear(config.d_model, config.d_model)

        def __call__(self, x):
            calls.append(1)
            return self.up(x)

    ffn_registry.register("counting")(Counting)
    try:
        due = [each.having(every=4) for each in map(as_every, MEASURING[3:])]
        _, watch = run(*due, look=lambda trainer: len(calls), block={"ffn": "counting"}, max_steps=11, eval_interval=50)
    finally:
        ffn_registry.unregister("counting")
    traced = {step: watch.looks[step] - watch.looks[step - 1] for step in range(2, 12)}
    assert {step for step, number in traced.items() if number} == {4, 8}


def as_every(chosen):
    return spec(chosen) if isinstance(chosen, str) else chosen


def test_untouched_puts_everything_back():
    """Also after an error: weights, what else modules hold, modes that differ, reports, the generator."""
    model = brief_trainer().model
    model.layers[0].eval()
    model.layers[1].ffn["_report"] = {"mean": mx.array(1.0)}
    before, modes = flat(model.state), [module.training for _, module in model.named_modules()]
    mx.random.seed(5)
    drawn = mx.random.normal((3,))
    mx.random.seed(5)

    def disturb():
        assert not any(module.training for _, module in model.named_modules())
        model.embed.weight = model.embed.weight * 2
        model.layers[0].ffn["_more"] = mx.zeros(2)
        model.layers[1].ffn.pop("_report")
        model.layers[1].note = "something"
        mx.eval(mx.random.normal((7,)))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), untouched(model):
        disturb()
    after = flat(model.state)
    assert [*before] == [*after]
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert [module.training for _, module in model.named_modules()] == modes
    assert not hasattr(model.layers[1], "note")
    assert mx.array_equal(mx.random.normal((3,)), drawn)


def test_hearing_ends():
    """Modules are of their own classes again, also after an error, and nothing is told any more."""
    first, second = nn.Linear(3, 4), nn.Linear(3, 4)
    told = []

    def note(name, x, y):
        told.append((name, x.shape, y.shape))

    def listen():
        with heard({"a": first, "b": second}, note):
            assert isinstance(first, nn.Linear)
            second(mx.zeros((2, 3)))
            first(mx.zeros((1, 3)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        listen()
    second(mx.zeros((2, 3)))
    assert type(first) is type(second) is nn.Linear
    assert told == [("b", (2, 3), (2, 4)), ("a", (1, 3), (1, 4))]


# When --------------------------------------------------------------------------------------------------------------------


def test_each_is_measured_at_its_steps():
    """Every `log_interval` steps unless `every` says otherwise; sharpness, which costs most, with evaluations."""
    _, watch = run(
        "weight_stats", spec("gradient_stats", every=3), "sharpness", "memory", log_interval=2, eval_interval=5
    )

    def steps(prefix):
        return [step for step, metrics in watch.seen.items() if any(name.startswith(prefix) for name in metrics)]

    assert [steps(p) for p in ("weight/", "gradient/", "sharpness", "memory/")] == [[2, 4, 6], [3, 6], [5], [2, 4, 6]]


def test_a_config_names_them(folder, train):
    """They are in the run's metrics; a resumed run measures what the run in one piece did, and --force takes all away."""
    chosen = 'train.callbacks=["gradient_stats", "attention_entropy", {name = "samples", tokens = 3}, "memory"]'
    every = ("train.max_steps=8", "train.log_interval=2", "train.eval_interval=4", "train.checkpoint_interval=5")

    def measured(run):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        names = ("gradient/", "entropy/")
        return {row["step"]: {n: v for n, v in row.items() if n.startswith(names)} for row in rows if "loss" in row}

    train(chosen, *every, run_dir=folder / "whole")
    whole = measured(folder / "whole")
    assert list(whole) == [2, 4, 6, 8]
    assert all(len(values) > 20 for values in whole.values())

    job, summary = train(chosen, *every, run_dir=folder / "parts", watchers=[Stopping(5)])
    assert (job.trainer.step, "sample" in summary) == (5, False)
    train(resume=folder / "parts")
    assert measured(folder / "parts") == whole
    assert lines(folder / "parts") == lines(folder / "whole")
    assert [line["step"] for line in lines(folder / "whole")] == [4, 8]
    train(*every, run_dir=folder / "parts", force=True)
    assert not (folder / "parts" / "samples.jsonl").exists()


def test_what_is_measured_between_lines_has_a_line(train):
    """Whatever `log_interval` says."""
    job, _ = train('train.callbacks=[{name = "weight_stats", every = 3}]', "train.log_interval=2", "train.max_steps=7")
    rows = [json.loads(line) for line in (job.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 3, 4, 6]


class Stopping(Callback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, trainer, metrics):
        if trainer.step == self.step:
            trainer.stop("enough")


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (spec("gradient_stats", every=0), "every"),
        (spec("sharpness", iterations=0), "iterations"),
        (spec("samples", prompts=[""]), "expected texts that are not empty"),
        (spec("mfu", peak=-1.0), "peak"),
        (spec("memory", every=2), "has no options"),
    ],
)
def test_wrong_options_are_told_before_training(chosen, says):
    with pytest.raises(ConfigError, match=says):
        brief_trainer([], None, config(chosen))


# What --------------------------------------------------------------------------------------------------------------------


def loss_of(trainer):
    """Written out: the mean over the targets that count, without dropout."""
    batch, model = trainer.batches[-1], trainer.model
    inputs, targets, mask = (batch[name] for name in ("inputs", "targets", "mask"))

    def loss():
        logits = model(inputs)[0]
        nats = mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return (nats * mask).sum() / mask.sum()

    return loss


def gradients(trainer):
    with untouched(trainer.model):
        return flat(nn.value_and_grad(trainer.model, loss_of(trainer))()[1])


def test_gradient_stats():
    _, watch = run("gradient_stats", look=gradients, block={"position": "rope", "bias": True})
    for step in (1, 6):
        values = parts(watch.looks[step])
        agree(
            watch.seen[step],
            "gradient",
            {f"{n}/{what}": x for n in values for what, x in stats(values[n]).items()},
            1e-3,
        )


@pytest.mark.parametrize("every", [1, 2])
def test_weight_stats(every):
    """Means of biases and norms are of numbers that hardly differ: the spread is not lost in rounding."""
    chosen = spec("weight_stats", every=every)
    _, watch = run(chosen, look=lambda trainer: flat(trainer.model.parameters()), block={"bias": True})
    for step in (2, 6):
        new, old = (parts(watch.looks[each]) for each in (step, step - 1))
        expected = {f"{n}/{what}": x for n in new for what, x in stats(new[n]).items()}
        moved = {f"{n}/update": np.linalg.norm(new[n] - old[n]) / np.linalg.norm(new[n]) for n in new}
        agree(watch.seen[step], "weight", expected | moved, 1e-3)


def streams(trainer):
    """After each block, and the hidden units of its FFN."""
    model, found = trainer.model, []
    with untouched(model):
        x = model.embed(trainer.batches[-1]["inputs"])
        for layer in model.layers:
            h = x + layer.attention(layer.layout.attention_norm(x), "causal")[0]
            hidden = nn.relu(layer.ffn.up(layer.layout.ffn_norm(h)))
            x = h + layer.ffn.down(hidden)
            found.append((np.array(x, np.float64), np.array(hidden, np.float64)))
    return found


def test_activation_stats():
    """Tokens whose targets do not count are left out."""
    ffn = spec("standard", activation="relu", bias=True)
    watch = Watch(streams)
    trainer = brief_trainer([watch], None, config("activation_stats"), ffn=ffn)
    trainer.model.layers[0].ffn.up.bias = mx.where(mx.arange(96) < 7, -100.0, 0.1)
    trainer.run()
    mask = np.array(trainer.batches[-1]["mask"])
    expected = {}
    for i, (x, hidden) in enumerate(watch.looks[6]):
        x, hidden = x[mask], hidden[mask]
        values = {**stats(x), "norm": np.linalg.norm(x, axis=-1).mean()}
        values |= {"hidden_zeros": (hidden == 0).mean(), "hidden_dead": (hidden == 0).all(axis=0).mean()}
        expected |= {f"layers.{i}/{what}": value for what, value in values.items()}
    agree(watch.seen[6], "activation", expected)
    assert expected["layers.0/hidden_dead"] >= 7 / 96


def heads_of(layer, x, heads):
    return np.array(layer(x), np.float64).reshape(*x.shape[:2], heads, 16).transpose(0, 2, 1, 3)


def entropies(trainer):
    """By head of each layer, of softmax(q k^T / 4) over what came before."""
    model, mask, found = trainer.model, np.array(trainer.batches[-1]["mask"], np.float64), []
    with untouched(model):
        x = model.embed(trainer.batches[-1]["inputs"])
        for layer in model.layers:
            h = layer.layout.attention_norm(x)
            q = heads_of(layer.attention.q_proj, h, 4)
            k = np.repeat(heads_of(layer.attention.k_proj, h, 2), 2, axis=1)
            p = softmax(np.where(np.tri(x.shape[1]) > 0, q @ k.swapaxes(-1, -2) / 4, -np.inf))
            nats = -(p * np.log(np.where(p > 0, p, 1))).sum(-1)
            found.append((nats * mask[:, None]).sum((0, 2)) / mask.sum())
            x = layer(x, "causal")[0]
    return found


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_attention_entropy():
    _, watch = run("attention_entropy", look=entropies)
    expected = {f"layers.{i}/mean": each.mean() for i, each in enumerate(watch.looks[6])}
    expected |= {f"layers.{i}/head.{h}": nats for i, each in enumerate(watch.looks[6]) for h, nats in enumerate(each)}
    agree(watch.seen[6], "entropy", expected)


def test_mixers_without_weights_have_no_entropy():
    _, watch = run("attention_entropy", block={"attention": "none"})
    assert not any(name.startswith("entropy") for name in watch.seen[6])


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sinks", [None, mx.array([0.5, -1.0, 2.0, 0.0])])
@pytest.mark.parametrize("given", [None, "causal", "boolean", "window", "bias"])
def test_who_watches_sees_the_weights(given, sinks, softcap):
    """In parts of the queries that make up all, with what sinks take; what attention returns is the same."""
    length = QUERIES + 9
    q, k = (mx.random.normal((2, heads, length, 8), key=mx.random.key(i)) for i, heads in enumerate((4, 2)))
    allowed = np.tri(length) > 0
    mask, bias = None, None
    if given is None:
        allowed = np.ones((length, length), bool)
    elif given == "boolean":
        mask = causal(length)
    elif given == "window":
        allowed &= ~(np.tri(length, k=-5) > 0)
        mask = mx.array(allowed)
    else:
        mask = "causal"
    if given == "bias":
        bias = mx.random.normal((1, 4, length, length), key=mx.random.key(9))
    seen = []
    with watching(seen.append):
        watched = attend(q, k, k, 0.3, mask, bias, softcap=softcap, sinks=sinks)
    assert mx.array_equal(watched, attend(q, k, k, 0.3, mask, bias, softcap=softcap, sinks=sinks))
    scores = 0.3 * np.array(q, np.float64) @ np.repeat(np.array(k, np.float64), 2, axis=1).swapaxes(-1, -2)
    scores = scores if softcap is None else softcap * np.tanh(scores / softcap)
    scores = np.where(allowed, scores + (0 if bias is None else np.array(bias, np.float64)), -np.inf)
    if sinks is not None:
        sunk = np.broadcast_to(np.array(sinks)[:, None, None], (2, 4, length, 1))
        scores = np.concatenate([scores, sunk], axis=-1)
    expected, start = softmax(scores), 0
    for part in (np.array(each) for each in seen):
        rows = expected[:, :, start : start + part.shape[2]]
        own, extra = part.shape[-1] - (sinks is not None), sinks is not None
        assert rows[..., own : rows.shape[-1] - extra].sum() == pytest.approx(0, abs=1e-9)
        close = np.concatenate([rows[..., :own], rows[..., rows.shape[-1] - extra :]], axis=-1)
        np.testing.assert_allclose(part, close, atol=1e-5)
        start += part.shape[2]
    assert start == length


def test_effective_rank():
    """Of the streams' rows that count, and of matrices; by numpy's singular values."""

    def look(trainer):
        mask = np.array(trainer.batches[-1]["mask"])
        found = {f"layers.{i}": x[mask] for i, (x, _) in enumerate(streams(trainer))}
        return found | {name: x for name, x in flat(trainer.model.parameters()).items() if x.ndim == 2}

    _, watch = run(spec("effective_rank", weights=True), look=look, block={"ffn": spec("standard", activation="relu")})
    expected = {}
    for name, matrix in watch.looks[6].items():
        p = np.linalg.svd(matrix, compute_uv=False)
        p = p / p.sum()
        expected[name] = np.exp(-(p * np.log(p)).sum())
    assert {"layers.1", "embed.weight"} <= expected.keys()
    agree(watch.seen[6], "rank", expected, 1e-4)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(5), 5.0),
        (np.outer([1.0, 2, 3], [1.0, -1]), 1.0),
        (np.diag([3.0, 1.0]), math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))),
        (np.zeros((3, 4)), 0.0),
        (np.array([[1.0, np.inf]]), math.nan),
    ],
)
def test_effective_rank_of_known_matrices(matrix, expected):
    assert effective_rank(matrix) == pytest.approx(expected, abs=1e-6, nan_ok=True)


# Sharpness ---------------------------------------------------------------------------------------------------------------


class Regression(nn.Module):
    """Logits of 3 classes, linear in 4 numbers."""

    def __init__(self):
        super().__init__()
        self.weight = mx.random.normal((3, 4), key=mx.random.key(3))


def regression():
    """With its objective, and its Hessian written out: the mean of `kron(diag(p) - p p^T, x x^T)`."""
    model, x = Regression(), mx.random.normal((20, 4), key=mx.random.key(4))
    labels = mx.arange(20) % 3

    def objective(model, batch):
        logits = batch["x"] @ model.weight.T
        return nn.losses.cross_entropy(logits, batch["labels"], reduction="sum"), mx.array(20), {}

    p = softmax(np.array(x @ model.weight.T, np.float64))
    outer = [np.kron(np.diag(q) - np.outer(q, q), np.outer(row, row)) for q, row in zip(p, np.array(x), strict=True)]
    trainer = brief_trainer()
    trainer.model, trainer.objective, trainer.batches = model, objective, [{"x": x, "labels": labels}]
    return trainer, np.mean(outer, axis=0)


@pytest.mark.parametrize("differentiable", [True, False])
def test_sharpness_of_a_known_hessian(differentiable, monkeypatch):
    """By gradients of gradients; and by differences of gradients, where MLX says that it has none of the former."""
    trainer, hessian = regression()
    if not differentiable:

        def refused(*_):
            raise ValueError("[Primitive::vjp] Not implemented for Something.")

        monkeypatch.setattr(mx, "vjp", refused)
    product, like = hessian_of(trainer)
    vector = np.random.default_rng(0).normal(size=12)
    found = np.array(product([mx.array(vector.reshape(3, 4), mx.float32)])[0]).ravel()
    np.testing.assert_allclose(found, hessian @ vector, rtol=2e-2, atol=2e-3)
    expected = np.linalg.eigvalsh(hessian)[-1]
    assert largest_eigenvalue(product, like, 12, 1e-5) == pytest.approx(expected, rel=1e-4 if differentiable else 1e-2)


def test_sharpness_is_that_of_auxiliary_losses_too():
    """One of 0.2 w^2 adds 0.4 to each eigenvalue."""
    trainer, hessian = regression()
    usual = trainer.objective

    def reporting(model, batch):
        model["_report"] = {"size_loss": 0.2 * mx.square(model.weight).sum()}
        return usual(model, batch)

    trainer.objective = reporting
    expected = np.linalg.eigvalsh(hessian)[-1] + 0.4
    assert largest_eigenvalue(*hessian_of(trainer), 12, 1e-5) == pytest.approx(expected, rel=1e-4)


def test_another_error_of_the_loss_is_raised():
    trainer, _ = regression()

    def broken(model, batch):
        raise ValueError("no such thing")

    trainer.objective = broken
    with pytest.raises(ValueError, match="no such thing"):
        hessian_of(trainer)


def test_a_loss_in_chunks_has_the_same_hessian():
    """Whose gradient is written by hand, and made on the way."""
    products = []
    for options in ({}, {"chunk": 5}):
        trainer, _ = run(objective=spec("next_token", **options), block={"position": "rope"}, max_steps=1)
        with untouched(trainer.model):
            product, like = hessian_of(trainer)
            products.append(product([mx.random.normal(each.shape, key=mx.random.key(1)) for each in like]))
            mx.eval(products)
    for one, other in zip(*products, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("values", [[5.0, 1.0, -2.0], [2.0, 1.0, -5.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.0]])
def test_the_largest_eigenvalue_is_found(values):
    """Also where another one is farther from 0."""
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    matrix = mx.array(basis @ np.diag(values) @ basis.T, mx.float32)
    found = largest_eigenvalue(lambda vector: [matrix @ vector[0]], [mx.zeros(3)], 20, 1e-7)
    assert found == pytest.approx(max(values), abs=1e-4)


def test_few_products_find_it_in_a_large_matrix():
    """20 of them, though the largest eigenvalue of 400 is hardly larger than the next, and one is far below 0."""
    values = np.concatenate([[-12.0, 9.5, 10.0], np.random.default_rng(2).uniform(-3, 3, 397)])
    matrix = mx.array(np.diag(values), mx.float32)
    products = []

    def product(vector):
        products.append(vector)
        return [matrix @ vector[0]]

    assert largest_eigenvalue(product, [mx.zeros(400)], 20, 1e-3) == pytest.approx(10, rel=1e-3)
    assert len(products) <= 20
    early = largest_eigenvalue(product, [mx.zeros(400)], 3, 0.0)
    assert early < 10


def test_a_hessian_that_is_not_finite():
    assert math.isnan(largest_eigenvalue(lambda v: [v[0] * math.nan], [mx.zeros(3)], 20, 1e-3))


def small_hessian(trainer):
    """Column by column: differences of the gradients, in all parameters of the model."""
    model = trainer.model
    with untouched(model):
        names = [name for name, _ in tree_flatten(model.trainable_parameters())]
        gradient = mx.compile(mx.grad(lambda values: _at(model, names, values, loss_of(trainer))))
        values = [value for _, value in tree_flatten(model.trainable_parameters())]
        columns = []
        for i, value in enumerate(values):
            for j in range(value.size):
                nudge = (mx.arange(value.size) == j).reshape(value.shape) * 4e-3
                sides = [gradient([v + s * nudge if i == n else v for n, v in enumerate(values)]) for s in (1, -1)]
                flat = [np.concatenate([np.array(g, np.float64).ravel() for g in side]) for side in sides]
                columns.append((flat[0] - flat[1]) / 8e-3)
    return np.stack(columns)


def _at(model, names, values, loss):
    model.update(nn.utils.tree_unflatten(list(zip(names, values, strict=True))))
    return loss()


def test_sharpness_of_a_small_model():
    """The explicit Hessian of a model of two blocks, of which queries and one matrix of the FFNs are trained."""
    block = {"d_model": 8, "n_heads": 2, "n_kv_heads": 2, "d_ff": 8, "position": "rope", "bias": False}
    every = [
        f"layers.*.{name}"
        for name in ("attention.k*", "attention.v*", "attention.o*", "ffn.gate*", "ffn.down*", "layout.*")
    ]
    chosen = spec("sharpness", every=2, iterations=60, tolerance=1e-5)
    _, watch = run(
        chosen,
        look=lambda t: t.step == 2 and small_hessian(t),
        block=block,
        max_steps=2,
        freeze=["embed.*", "norm.*", *every],
    )
    hessian = watch.looks[2]
    assert hessian.shape == (2 * 2 * 64, 2 * 2 * 64)
    np.testing.assert_allclose(hessian, hessian.T, atol=2e-3)
    assert watch.seen[2]["sharpness"] == pytest.approx(np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1], rel=1e-2)


# Speed and memory --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr(throughput.time, "monotonic", lambda: now.time)
    return now


def told(callback, trainer, clock, step, seconds):
    trainer.step, trainer.tokens = step, 50 * step
    clock.time += seconds
    metrics = {}
    callback.on_step_end(trainer, metrics)
    return metrics


def test_throughput(clock):
    """Of the last steps, the first, evaluations and checkpoints aside."""
    callback = build("callback", spec("throughput", window=3), config(log_interval=2))
    trainer = brief_trainer()
    callback.on_train_begin(trainer)
    assert told(callback, trainer, clock, 1, 100.0) == {}
    found = told(callback, trainer, clock, 2, 0.5)
    assert found == {"throughput/tokens_per_second": 100.0, "throughput/steps_per_second": 2.0}
    assert told(callback, trainer, clock, 3, 0.5) == {}
    clock.time += 1000
    callback.on_eval_end(trainer, {})
    clock.time += 1000
    callback.on_checkpoint(trainer)
    told(callback, trainer, clock, 4, 1.0)
    told(callback, trainer, clock, 5, 1.0)
    assert told(callback, trainer, clock, 6, 3.0)["throughput/tokens_per_second"] == 150 / 5


def test_mfu(clock):
    """FLOPs of a token, 6 for each parameter of a matrix and 12 width for each token looked at, of 6.5 in the mean."""
    trainer = brief_trainer()
    trainer.ranks = SimpleNamespace(size=2)
    callback = build("callback", spec("mfu", peak=1e9), config())
    callback.on_train_begin(trainer)
    matrices = 256 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)
    each = 6 * matrices + 2 * 12 * 64 * 6.5
    assert callback.flops_of_token == training_flops(trainer.model, 12) == each
    told(callback, trainer, clock, 1, 1.0)
    found = told(callback, trainer, clock, 2, 0.1)
    assert found == pytest.approx(
        {"mfu/mfu": each * 500 / 1e9 / 2, "mfu/flops_per_second": each * 500, "mfu/flops": each * 100}
    )


def test_the_peak_is_that_of_the_fastest_size(monkeypatch):
    """Sizes double until one takes long enough."""
    speeds = {1024: (1e12, 0.002), 2048: (5e12, 0.003), 4096: (4e12, 0.2)}
    monkeypatch.setattr(throughput, "_speed", lambda size, dtype: speeds[size])
    assert throughput.peak_flops(mx.float32) == 5e12


def test_the_speed_of_products_is_measured(monkeypatch):
    monkeypatch.setattr(throughput, "LONG_ENOUGH", 0.0)
    state = mx.random.state[0].tolist()
    speed, seconds = throughput._speed(256, mx.float32)
    assert speed == pytest.approx(2 * 256**3 / seconds)
    assert 0 < throughput.peak_flops(mx.float32) < 1e16
    assert mx.random.state[0].tolist() == state


def test_memory():
    """MLX's numbers follow an array that is made; those of the process are of the same order as what it knows of itself."""
    before = memory.held()
    kept = mx.zeros((1024, 1024))
    mx.eval(kept)
    after = memory.held()
    assert after["active"] - before["active"] == 4 * 2**20
    assert after["peak"] >= after["active"]
    assert after["resident_peak"] > 2**24
    if "resident" in after:
        assert 2**24 < after["resident"] < 1.5 * after["resident_peak"]
    del kept


# Samples -----------------------------------------------------------------------------------------------------------------


def lines(path):
    return [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]


def test_samples(tmp_path):
    """What the model writes at each evaluation, in the run directory and to loggers that take texts."""
    texts = []
    watch = Watch(lambda trainer: None)
    watch.on_text = lambda trainer, found: texts.append((trainer.step, dict(found)))
    chosen = spec("samples", prompts=["ab", "c"], tokens=9, temperature=0.7, seed=3)
    trainer = brief_trainer([watch], tmp_path, config(chosen))
    trainer.run()
    found = lines(tmp_path)
    assert [(line["step"], line["prompt"]) for line in found] == [(s, p) for s in (2, 4, 6) for p in ("ab", "c")]
    assert texts == [(s, {each["prompt"]: each["text"] for each in found if each["step"] == s}) for s in (2, 4, 6)]
    drawn = generate(trainer.model, [97, 98], max_tokens=9, temperature=0.7, seed=3)
    assert found[-2]["text"] == decode(trainer.tokenizer, [97, 98, *drawn])


def test_samples_of_a_resumed_run_are_not_written_twice(tmp_path):
    trainer, _ = run(spec("samples", every=2, tokens=3), path=tmp_path)
    whole = lines(tmp_path)
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"step": 4, "pro')  # what a kill left
    resumed = brief_trainer([], tmp_path, trainer.config)
    resumed.resume({**trainer.position, "step": 3})
    resumed.run()
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 6]
    assert lines(tmp_path)[0] == whole[0]


def test_samples_are_of_the_averaged_weights():
    """Which a checkpoint's model has, where the run keeps them."""
    texts = []
    watch = Watch()
    watch.on_text = lambda trainer, found: texts.append(found["x"])
    trainer = brief_trainer(
        [watch],
        None,
        config(spec("samples", prompts=["x"], tokens=20, temperature=0.0), ema_decay=0.99, learning_rate=0.3),
    )
    trainer.run()
    plain = generate(trainer.model, [120], max_tokens=20, temperature=0.0)
    with trainer.averaged():
        averaged = generate(trainer.model, [120], max_tokens=20, temperature=0.0)
    assert texts[-1] == decode(trainer.tokenizer, [120, *averaged]) != decode(trainer.tokenizer, [120, *plain])


def test_a_prompt_that_is_not_possible_is_told_before_training():
    trainer = brief_trainer([], None, config(spec("samples", prompts=["z"])))
    trainer.tokenizer = CharTokenizer.fit(["abc"])
    with pytest.raises(Exception, match="z"):
        trainer.run()
    trainer.tokenizer = None
    with pytest.raises(ConfigError, match="tokenizer"):
        trainer.run()
    assert trainer.step == 0
