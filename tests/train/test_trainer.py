"""The loop keeps its budgets, leaves broken updates out, averages, and goes on after a kill as if there had been none."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from lmx_core import LanguageModel, load_model, make_config
from lmx_core.checkpoint import model_directory
from lmx_core.construct import build
from lmx_core.errors import ConfigError, DataError, LmxError
from lmx_core.flops import training_flops
from lmx_core.registry import registry
from lmx_core.testing.runs import BRIEF, brief_trainer
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.ranks import Ranks
from lmx_core.train.run import checkpoints
from lmx_core.train.step import Micro, Step, seed_of
from lmx_core.train.trainer import Callback

from .kept import equal, lines, weights


class Weights(Callback):
    """The parameters after each step, as numpy."""

    def __init__(self):
        self.seen = []

    def note(self, trainer):
        self.seen.append({name: np.array(weight) for name, weight in tree_flatten(trainer.model.parameters())})

    def on_train_begin(self, trainer):
        self.note(trainer)

    def on_step_end(self, trainer, metrics):
        self.note(trainer)


@pytest.fixture
def sometimes():
    """An objective whose loss is no number in the calls that are listed; compiled steps trace it once."""
    usual = registry("objective").get(TrainConfig().objective.name)

    @registry("objective").register("sometimes")
    class Sometimes:
        broken = ()
        seen = 0

        def __init__(self, config):
            self.usual = build("objective", TrainConfig().objective, config)

        def __call__(self, model, batch):
            total, count, metrics = self.usual(model, batch)
            Sometimes.seen += 1
            return total * (mx.nan if Sometimes.seen in Sometimes.broken else 1.0), count, metrics

    yield Sometimes
    registry("objective").unregister("sometimes")
    assert registry("objective").get(TrainConfig().objective.name) is usual


def test_an_update_that_is_not_finite_is_left_out(train, sometimes):
    """Nothing moves, the step counts, and it is told how many were skipped; that those in a row are few is enough."""
    sometimes.broken, looking = (3, 6), Weights()
    job, summary = train(
        "train.objective=sometimes",
        "train.compile=false",
        "train.max_steps=8",
        "train.max_bad_steps=1",
        "train.eval_interval=100",
        watchers=[looking],
    )
    moved = [
        any((after[name] != before[name]).any() for name in before)
        for before, after in zip(looking.seen, looking.seen[1:], strict=False)
    ]
    assert moved == [True, True, False, True, True, False, True, True]
    assert (summary["step"], summary["skipped"]) == (8, 2)
    logged = [line for line in lines(job.path) if "grad_norm" in line]
    assert [line["loss"] is None for line in logged] == [not each for each in moved]
    assert logged[-1]["skipped"] == 2


def stepped(objective, *batches, ranks=None, **settings):
    """The metrics of an update of a small model by batches of its objective, and whether it moved."""
    mx.random.seed(0)
    net = LanguageModel(make_config("llama", size="tiny", d_model=32, n_heads=4, vocab_size=50))
    config = TrainConfig(**settings)
    update = Step(net.train(), objective, build("optimizer", config.optimizer, config), config, ranks)
    before = {path: np.array(weight) for path, weight in tree_flatten(net.parameters())}
    found = update([Micro(batch, seed=0) for batch in batches], 1e-2)
    return found, any((before[path] != np.array(weight)).any() for path, weight in tree_flatten(net.parameters()))


@pytest.mark.parametrize("broken", ["loss", "grad_norm"])
def test_either_of_loss_and_gradient_must_be_finite(broken):
    """A loss may be no number whose gradient is one, and the other way round."""

    def objective(model, batch):
        logits = model(batch["inputs"])[0]
        nothing = 0 * logits.sum()
        added = {"loss": mx.array(mx.nan), "grad_norm": mx.sqrt(nothing), "": nothing}[batch["broken"]]
        return mx.square(logits).sum() + added, logits.shape[1], {}

    for each, moves in ((broken, False), ("", True)):
        found, moved = stepped(objective, {"inputs": mx.array([[1, 2, 3]]), "broken": each}, compile=False)
        assert {name: math.isfinite(found[name]) for name in ("loss", "grad_norm")} == {
            name: name != each for name in ("loss", "grad_norm")
        }
        assert moved == moves


def test_metrics_of_an_objective_are_means_like_its_loss():
    """Of all micro-batches, by how many targets these have; where no target counts, everything is 0."""

    def objective(model, batch):
        x = batch["x"]
        nats = (model(mx.array([[1]]))[0].sum() * 0 + x).sum()
        return nats, x.size, {"twice": 2 * x.sum()} | ({"alone": x.sum()} if x.size == 1 else {})

    found, _ = stepped(objective, {"x": mx.array([3.0])}, {"x": mx.array([1.0, 2.0, 6.0])}, compile=False)
    assert (found["loss"], found["twice"], found["alone"]) == (3.0, 6.0, 0.75)
    found, _ = stepped(objective, {"x": mx.zeros(0)}, compile=False)
    assert (found["loss"], found["grad_norm"], found["twice"]) == (0.0, 0.0, 0.0)


class Twins(Ranks):
    """Two ranks that always have the same."""

    def __init__(self):
        super().__init__()
        self.size = 2

    def sum(self, tree):
        return tree_map(lambda each: 2 * each, tree)


def test_what_components_report_is_averaged_over_batches_and_ranks():
    """Each of which counts as much as another."""

    def objective(model, batch):
        model.layers[0]["_report"] = {"seen": batch["x"].mean()}
        return model(mx.array([[1]]))[0].sum() * 0 + batch["x"].sum(), batch["x"].size, {}

    batches = {"x": mx.array([3.0])}, {"x": mx.array([1.0, 2.0, 6.0])}
    for ranks in (None, Twins()):
        found, _ = stepped(objective, *batches, ranks=ranks, compile=False)
        assert (found["loss"], found["layers.0.seen"]) == (3.0, 3.0)


def test_random_numbers_are_those_of_the_seed_and_of_the_sample():
    """The same in every version: a run that is resumed draws what it would have."""
    seeds = [seed_of(seed, sample) for seed in (0, 1) for sample in (0, 1, 12)]
    assert len(set(seeds)) == 6
    assert seeds[0] == 11807284506806067046
    trainer = brief_trainer(config=TrainConfig(**BRIEF, seed=7, grad_accumulation_steps=2))
    trainer.samples = 20
    assert [micro.seed for micro in trainer._micros()] == [seed_of(7, 20), seed_of(7, 22)]


def test_a_position_is_all_that_is_counted():
    """As JSON, in which checkpoints have it."""
    counted = {
        "step": 5,
        "samples": 40,
        "tokens": 99,
        "skipped": 2,
        "seconds": 1.5,
        "lowest": [2.0, 3.0],
        "stale": 1,
        "bad": 2,
    }
    trainer = brief_trainer()
    trainer.resume(counted)
    assert json.loads(json.dumps(trainer.position)) == counted
    for name in counted:
        with pytest.raises(KeyError, match=name):
            trainer.resume({key: value for key, value in counted.items() if key != name})
        for wrong in (None, "3", -1, float("nan"), {}):
            with pytest.raises(ValueError, match=f"{name} is {wrong!r}"):
                trainer.resume(counted | {name: wrong})


@pytest.mark.parametrize("name", ["inputs", "targets"])
@pytest.mark.parametrize("wrong", [-1, 256])
def test_tokens_that_the_model_does_not_know_are_refused(name, wrong):
    """They would be looked up beyond the embedding. Targets that do not count may be any number."""
    trainer = brief_trainer()
    batch = trainer.source.batch

    def strange(place):
        def changed(samples, step):
            found = batch(samples, step)
            found[name] = found[name].copy()
            found[name][0, place] = wrong
            return found

        return changed

    trainer.source.batch = strange(1)
    with pytest.raises(DataError, match=f"the data has token {wrong}, and the model knows 0 to 255"):
        trainer.run()
    if name == "targets":
        trainer.source.batch = strange(0)
        assert trainer.run()["step"] == 6


def test_time_goes_on_where_it_stood():
    """So that a run that is resumed has no more of it."""
    trainer = brief_trainer(config=TrainConfig(**BRIEF, max_seconds=1000.0, max_steps=9))
    trainer.resume({**trainer.position, "seconds": 1000 - 1e-6})
    summary = trainer.run()
    assert (summary["step"], summary["ended"]) == (1, "budget")
    assert summary["seconds"] > 1000


def test_tokens_of_a_step_are_those_of_all_ranks_and_batches():
    trainer = brief_trainer(config=TrainConfig(**BRIEF, grad_accumulation_steps=3))
    trainer.ranks = SimpleNamespace(size=2)
    assert trainer.tokens_per_step == 2 * 12 * 3 * 2


def test_too_many_broken_updates_in_a_row_end_the_run(train, sometimes, folder):
    sometimes.broken = range(5, 100)
    with pytest.raises(LmxError, match="loss is nan at step 7, and 2 steps before it were skipped for the like"):
        train(
            "train.objective=sometimes", "train.compile=false", "train.max_bad_steps=2", "train.checkpoint_interval=4"
        )
    assert [path.name for path in checkpoints(folder / "runs" / "tiny")] == ["step-00000004"]
    sometimes.broken, sometimes.seen = (), 0
    _, summary = train("train.max_bad_steps=0", resume=folder / "runs" / "tiny")
    assert (summary["step"], summary["skipped"]) == (20, 0)


@pytest.mark.parametrize("compiled", ["true", "false"])
def test_averages_are_kept_evaluated_and_saved(train, compiled):
    """e <- 0.8 e + 0.2 w after each step, from the first weights on; the run trains w."""
    looking = Weights()
    settings = (f"train.compile={compiled}", "train.ema_decay=0.8", "train.max_steps=6", "train.eval_interval=3")
    job, summary = train(*settings, watchers=[looking])
    plain, _ = train(f"train.compile={compiled}", "train.max_steps=6")
    expected = looking.seen[0]
    for after in looking.seen[1:]:
        expected = {name: 0.8 * expected[name] + 0.2 * after[name] for name in expected}
    saved = weights(job.path)
    for name, value in expected.items():
        assert np.abs(np.array(saved[name]) - value).max() < 1e-6, name
    assert equal(mx.load(str(model_directory(job.path) / "weights.safetensors")), weights(plain.path))
    model = load_model(job.path)
    assert summary["val_loss"] == pytest.approx(job.trainer.evaluator(model, True)["val_loss"], abs=1e-6)
    assert summary["val_loss"] != pytest.approx(job.trainer.evaluator(job.trainer.model, True)["val_loss"], abs=1e-4)


def test_a_resumed_run_goes_on_with_its_averages(train):
    settings = ("train.ema_decay=0.9", "train.checkpoint_interval=10")
    straight, _ = train(*settings)

    class StopAtTen(Callback):
        def on_step_end(self, trainer, metrics):
            if trainer.step == 10:
                trainer.stop("for a test")

    stopped, _ = train(*settings, watchers=[StopAtTen()])
    resumed, _ = train(resume=stopped.path)
    assert equal(weights(straight.path), weights(resumed.path))
    with pytest.raises(ConfigError, match="train.ema_decay cannot change"):
        train("train.ema_decay=0.5", resume=stopped.path)


def test_frozen_parameters_stay(train):
    job, _ = train('train.freeze=["embed.*", "layers.0.*"]', "train.max_steps=3")
    last = weights(job.path)
    mx.random.seed(0)
    before = dict(tree_flatten(LanguageModel(job.config.model).parameters()))
    same = {name for name in last if mx.array_equal(before[name], last[name]).item()}
    assert same == {name for name in last if name.startswith(("embed.", "layers.0."))}


@pytest.mark.says_names
def test_patterns_that_match_nothing_are_told(train):
    with pytest.raises(ConfigError, match="train.freeze.*'embd.*'"):
        train('train.freeze=["embd.*"]')
    with pytest.raises(ConfigError, match="groups"):
        train('train.groups=[{match = "embd.*", rate = 0.5}]')


def test_tokens_and_flops_are_budgets(train):
    """Each ends the run after the step that spends it, with its last evaluation and its rate come down."""
    job, summary = train("train.max_tokens=1000", "train.schedule.final_fraction=0.0")
    assert (summary["step"], summary["tokens"], summary["ended"]) == (8, 1024, "budget")
    rates = [line["learning_rate"] for line in lines(job.path) if "loss" in line]
    assert rates[-1] < 0.1 * max(rates)
    assert "val_bpb" in summary
    with pytest.raises(ConfigError, match="budget: --set train.max_steps=16 --set train.max_tokens=2000"):
        train(resume=job.path)
    flops = training_flops(LanguageModel(job.config.model), 32)
    _, summary = train(f"train.max_flops={5.5 * flops * 128}")
    assert summary["step"] == 6


def test_flops_of_training_are_those_of_every_token():
    """Forwards and twice backwards: of each matrix, and of what each token of a sequence looks at."""
    config = make_config("llama", size="tiny", d_model=32, n_heads=4, n_kv_heads=4, n_layers=2, d_ff=48, vocab_size=100)
    matrices = 2 * (4 * 32 * 32 + 3 * 32 * 48) + 32 * 100
    looking = 2 * 4 * 32 * sum(range(1, 11)) / 10
    assert training_flops(LanguageModel(config), 10) == pytest.approx(3 * (2 * matrices + looking))


def test_patience_ends_a_run_that_does_not_get_better(train):
    """After so many evaluations without a new best one; the last evaluation is done, and a resumed run knows it."""
    job, summary = train("train.learning_rate=0", "train.eval_interval=2", "train.patience=3")
    assert (summary["step"], summary["ended"], summary["stopped"]) == (8, "patience", None)
    assert [line["step"] for line in lines(job.path) if "val_bpb" in line] == [2, 4, 6, 8, 8]
    with pytest.raises(ConfigError, match="3 evaluations without a new best val_loss. .* --set train.patience=6"):
        train(resume=job.path)
    assert train("train.patience=6", resume=job.path)[1]["step"] == 14


def test_a_run_that_gets_better_is_not_ended(train):
    _, summary = train("train.learning_rate=1e-2", "train.eval_interval=5", "train.patience=1")
    assert (summary["step"], summary["ended"]) == (20, "budget")


def test_evaluation_at_the_start(train):
    job, _ = train("train.eval_at_start=true", "train.max_steps=3")
    assert [line["step"] for line in lines(job.path) if "val_bpb" in line] == [0, 3]
    other, _ = train("train.max_steps=3")
    assert equal(weights(job.path), weights(other.path))


def test_the_best_checkpoints_stay(train):
    """A run whose rate is far too high from step 8 on keeps what it had before, and its latest."""

    @registry("schedule").register("leap")
    class Leap:
        def __init__(self, config):
            pass

        def __call__(self, step, progress):
            return 3e-3 if step < 8 else 0.5

    try:
        settings = ("train.schedule=leap", "train.eval_interval=2", "train.keep_best=2", "train.keep_checkpoints=1")
        job, _ = train(*settings, "train.checkpoint_interval=5")
    finally:
        registry("schedule").unregister("leap")
    losses = {line["step"]: line["val_loss"] for line in lines(job.path) if line.get("val_bytes") == 200}
    best = sorted(sorted(losses, key=lambda step: losses[step])[:2])
    assert max(best) <= 8
    assert [int(path.name[-8:]) for path in checkpoints(job.path)] == [*best, 20]


def test_who_is_among_the_best_is_kept():
    """Of five evaluations on the way; a tie is no new lowest loss, and the last evaluation is not one of them."""
    losses = iter([9.0, 5.0, 3.0, 4.0, 3.0, 6.0, 0.5])
    kept = []
    watch = SimpleNamespace(on_checkpoint=lambda trainer: kept.append((trainer.step, trainer.evaluated)))
    often = {**BRIEF, "eval_interval": 1, "checkpoint_interval": 5, "eval_at_start": True, "keep_best": 2}
    trainer = brief_trainer([watch], config=TrainConfig(**often, max_steps=6))
    trainer.evaluator = lambda model, final: {"val_loss": next(losses)}
    trainer.run()
    assert kept == [(1, 5.0), (2, 3.0), (3, 4.0), (4, 3.0), (5, 6.0), (6, None)]
    assert (trainer.lowest, trainer.stale) == ([3.0, 3.0], 3)


def test_a_loss_that_is_no_number_is_above_all_others():
    """It is never among the best, and the next number is the lowest."""
    losses = iter([math.nan, 5.0, math.nan, 4.0, math.inf])
    kept, stale = [], []
    watch = SimpleNamespace(
        on_checkpoint=lambda trainer: kept.append(trainer.step),
        on_eval_end=lambda trainer, metrics: stale.append(trainer.stale),
    )
    often = {**BRIEF, "eval_interval": 1, "checkpoint_interval": 100, "keep_best": 3}
    trainer = brief_trainer([watch], config=TrainConfig(**often, max_steps=6))
    trainer.evaluator = lambda model, final: {"val_loss": next(losses, 1.0)}
    trainer.run()
    assert stale[:5] == [0, 0, 1, 0, 1]
    assert kept == [2, 4, 6]


@pytest.mark.parametrize(("begin", "expected"), [(0, [0, 2, 4]), (2, [4])])
def test_evaluations_have_their_steps(begin, expected):
    """A run that goes on is at no start, and the last step is evaluated once."""
    trainer = brief_trainer(config=TrainConfig(**BRIEF, max_steps=4, eval_at_start=True))
    evaluated = []
    trainer.evaluator = lambda model, final: evaluated.append((trainer.step, final)) or {"val_loss": 1.0}
    trainer.resume({**trainer.position, "step": begin})
    trainer.run()
    assert evaluated == [(step, step == 4) for step in expected]


@pytest.mark.parametrize("compiled", [True, False])
def test_ragged_batches_count_by_their_tokens(compiled):
    """Micro-batches with 5, 36 and 1 targets make the update of one batch that has them all."""
    x, y = (mx.random.randint(0, 50, (3, 36), key=mx.random.key(i)) for i in (1, 2))
    mask = mx.arange(36)[None] < mx.array([5, 36, 1])[:, None]
    found = []
    for rows in ([[0, 1, 2]], [[0], [1], [2]]):
        mx.random.seed(0)
        net = LanguageModel(make_config("llama", size="tiny", d_model=32, n_heads=4, vocab_size=50))
        config = TrainConfig(compile=compiled)
        objective, optimizer = (
            build("objective", config.objective, config),
            build("optimizer", config.optimizer, config),
        )
        update = Step(net.train(), objective, optimizer, config)
        micros = [
            Micro({"inputs": x[i,], "targets": y[i,], "mask": mask[i,]}, seed=0)
            for i in (mx.array(row) for row in rows)
        ]
        metrics = update(micros, 1e-2)
        found.append((metrics, dict(tree_flatten(net.parameters()))))
    assert found[0][0]["loss"] == pytest.approx(found[1][0]["loss"], rel=1e-6)
    assert found[0][0]["grad_norm"] == pytest.approx(found[1][0]["grad_norm"], rel=1e-5)


def test_a_run_that_is_killed_at_any_moment_goes_on_to_the_bit(train, folder):
    """kill -9 amid steps of three micro-batches, amid epochs, and amid checkpoints."""
    settings = ["train.grad_accumulation_steps=3", "train.checkpoint_interval=4", "train.max_steps=80"]
    straight, _ = train(*settings)
    assert straight.trainer.samples > 2 * len(straight.trainer.source)  # several epochs
    run = folder / "killed"
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lmx_core.train import main\n"
        "run = Path('killed')\n"
        f"settings = {settings!r}\n"
        "done = run.exists() and any((run / 'checkpoints').glob('step-*'))\n"
        "job = main.resumed(run, []) if done else main.started(Path('tiny.toml'), settings, run, run.exists())\n"
        "job.run()\n"
    )
    killed = 0
    for after in (9, 37, 70):
        process = subprocess.Popen([sys.executable, "-P", "-c", script], cwd=folder, stderr=subprocess.PIPE)
        while process.poll() is None and _newest(run) < after:
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        process.stderr.close()
    assert killed == 3
    resumed, _ = train(resume=run)
    assert equal(weights(straight.path), weights(resumed.path))
    compared = [
        [(line["step"], line["loss"]) for line in lines(path) if "loss" in line] for path in (straight.path, run)
    ]
    assert compared[0] == compared[1]


def _newest(run):
    try:
        return max((json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()), default=0)
    except (OSError, ValueError):
        return 0


def test_training_leaves_the_random_numbers_of_others_alone(train):
    mx.random.seed(5)
    job, _ = train("train.max_steps=1")
    before = mx.random.state[0].tolist()
    job.trainer.update(job.trainer._micros(), 1e-3)
    assert mx.random.state[0].tolist() == before
