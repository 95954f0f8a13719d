"""A run that learns from rewards goes on where it was, on any number of ranks, and writes down what the policy wrote."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, nullcontext

import attrs
import mlx.core as mx
import numpy as np
import pytest

from lmx_core import spec
from lmx_core.checkpoint import save_model
from lmx_core.errors import CheckpointError, ConfigError
from lmx_core.train import main
from lmx_core.train.callback import COMPLETIONS, REFERENCE, Callback
from lmx_core.train.parallel import hosts
from lmx_core.train.run import RunDirectory, restore
from lmx_rl.policy import GRPO
from lmx_rl.rewards.judge import RewardSpec

from .answered import MODEL, Metrics, Stop, config_of, material_of, model_of, options_of, same, trainer_of, weights_of

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("rewards")]


COMPARED = {
    "step",
    "loss",
    "grad_norm",
    "kl",
    "ratio",
    "entropy",
    "reward",
    "completion_tokens",
    "truncated",
    "reward/even",
}


EVERY = {"inner_epochs": 2, "beta": 0.1, "max_resamples": 2, "rollout_size": 32}


class Run:
    """A run in a directory, with or without an end before its end."""

    def __init__(self, options, folder, stop=None, **train):
        self.recipe = GRPO(config_of(**train), options)
        self.material, self.folder = material_of(), folder
        self.trainer = self.recipe.trainer(model_of(), self.material)
        self.metrics = Metrics()
        self.trainer.callbacks.append(self.metrics)
        if stop:
            self.trainer.callbacks.append(Stop(stop))

    def go_on(self):
        restore(self.trainer, self.folder, self.material)
        return self

    def run(self):
        self.folder.mkdir(exist_ok=True)
        self.trainer.path = self.folder
        self.trainer.callbacks.append(RunDirectory(self.folder, self.recipe.config, self.material))
        self.trainer.run()
        return [{name: each[name] for name in each if name in COMPARED} for each in self.metrics.steps]

    @property
    def lines(self):
        return [json.loads(line) for line in (self.folder / COMPLETIONS).read_text().splitlines()]


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_run_goes_on_in_the_middle_of_a_rollout(tmp_path, stop):
    """Bit for bit: weights, metrics and the table of completions, of which no line is there twice."""
    options = options_of(**EVERY)
    whole = Run(options, tmp_path / "whole", max_steps=10)
    expected = whole.run()
    first = Run(options, tmp_path / "parts", stop=stop, max_steps=10)
    found = first.run()
    with (tmp_path / "parts" / COMPLETIONS).open("a") as file:
        file.write('{"step": 99, "prompt"')  # as a kill leaves it
    second = Run(options, tmp_path / "parts", max_steps=10).go_on()
    assert found + second.run() == expected
    assert same(weights_of(second.trainer.model), weights_of(whole.trainer.model))
    assert second.lines == whole.lines
    steps = [line["step"] for line in whole.lines]
    assert sorted(set(steps)) == [1, 5, 9]
    assert [steps.count(step) for step in (1, 5, 9)] == [32, 32, 32]


def test_the_reference_is_written_once(tmp_path):
    """And read by a run that goes on, whose policy is another one by then."""
    run = Run(options_of(beta=0.1), tmp_path / "run", stop=3)
    begin = weights_of(run.trainer.model)
    run.run()
    kept = mx.load(str(tmp_path / "run" / REFERENCE / "model.safetensors"))
    assert same(begin, kept)
    again = Run(options_of(beta=0.1), tmp_path / "run").go_on()
    assert same(begin, weights_of(again.trainer.source._reference))
    assert not same(begin, weights_of(again.trainer.model))

    plain = Run(options_of(), tmp_path / "plain", stop=3)
    plain.run()
    assert not (tmp_path / "plain" / REFERENCE).exists()
    with pytest.raises(CheckpointError, match="has no reference: it began with beta = 0"):
        Run(options_of(beta=0.1), tmp_path / "plain").go_on()
    with pytest.raises(CheckpointError, match=r"were \[16, 1, 16\] .* and are \[32, 1, 16\]"):
        Run(options_of(rollout_size=32), tmp_path / "plain").go_on()


class Breaks(Callback):
    def on_step_end(self, trainer, metrics):
        raise RuntimeError("broken")


@pytest.mark.parametrize("broken", [False, True])
def test_what_rewards_have_started_ends_with_the_run(broken):
    """Whether it comes to its end or not."""
    trainer, closed = trainer_of(max_steps=1), []
    trainer.source.asking.judge.close = lambda: closed.append(trainer.step)
    trainer.callbacks += [Breaks()] if broken else []
    with pytest.raises(RuntimeError, match="broken") if broken else nullcontext():
        trainer.run()
    assert closed == [1]


RUN = """
[model]
factory = "llama"
size = "tiny"
d_model = 32

[data]
dataset = { name = "addition", digits = 1, held_out = 20 }
tokenizer = "chars"

[train]
max_steps = 1
batch_size = 8
sample_tokens = 2
trainer = { name = "grpo", rewards = [{ reward = "exact_match" }], group_size = 4, max_new_tokens = 2 }
"""


def test_what_a_resumed_run_keeps(tmp_path):
    """What samples and completions depend on; how they are learned from may change."""
    file = tmp_path / "run.toml"
    file.write_text(RUN)
    job = main.started(file, (), tmp_path / "run", False)
    assert job.run()["val_truncated"] <= 1
    for kept in ("group_size=2", "max_new_tokens=3", "temperature=0.5", "inner_epochs=2", "rollout_size=16"):
        with pytest.raises(ConfigError, match=f"train.trainer.{kept.partition('=')[0]} cannot change"):
            main.resumed(job.path, [f"train.trainer.{kept}", "train.max_steps=2"])
    assert main.resumed(job.path, ["train.trainer.epsilon=0.1", "train.max_steps=2"]).run()["step"] == 2


def test_another_model_may_be_the_reference(tmp_path):
    other = model_of(seed=5)
    save_model(other, tmp_path / "other")
    trainer = trainer_of(options_of(beta=0.1, reference=str(tmp_path / "other")), max_steps=1)
    trainer.run()
    assert same(weights_of(other), weights_of(trainer.source._reference))
    assert trainer.metrics.steps[0]["kl"] > 1e-3
    save_model(model_of(config=attrs.evolve(MODEL, vocab_size=11)), tmp_path / "wider")
    with pytest.raises(ConfigError, match="the reference .* knows 11 tokens, and the policy 10"):
        trainer_of(options_of(beta=0.1, reference=str(tmp_path / "wider")))


RANKS = """
import json, sys
sys.path.insert(0, {tests!r})
import answered
import mlx.core as mx
from lmx_core import spec
from lmx_core.model import flat_parameters
from lmx_core.train.parallel.ranks import from_environment
from lmx_rl.policy import GRPO

ranks = from_environment()
config = answered.config_of(batch_size=16 // ranks.size, max_steps=4, optimizer=spec("sgd"))
with answered.rewards():
    recipe = GRPO(config, answered.options_of(**{every!r}))
    trainer = recipe.trainer(answered.model_of(), answered.material_of(), ranks)
    metrics = answered.Metrics()
    trainer.callbacks.append(metrics)
    trainer.run()
rollout = trainer.source.rollout
found = {{"steps": metrics.steps, "val": metrics.evaluations}}
found |= {{"tokens": rollout.tokens.tolist(), "advantages": rollout.advantages.tolist()}}
weights = flat_parameters(trainer.model).values()
print(json.dumps({{**found, "weights": [float(mx.abs(each).sum()) for each in weights]}}))
"""


def test_two_ranks_are_one(tmp_path):
    """They draw the same completions, each half of the groups, and make the same updates; both evaluate the same."""
    with ExitStack() as held:
        script = RANKS.format(tests=os.path.dirname(__file__), every=EVERY)
        environments = [{}, *(place.variables(tmp_path) for place in hosts.here(2, held))]
        started = [
            subprocess.Popen(
                [sys.executable, "-P", "-c", script],
                env=os.environ | ({**variables, hosts.LAUNCHED: ""} if variables else {}),
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                text=True,
            )
            for variables in environments
        ]
        try:
            said = [process.communicate(timeout=120)[0] for process in started]
        finally:
            for process in started:
                process.kill()
    alone, first, second = (json.loads(each.splitlines()[-1]) for each in said)
    for name in ("tokens", "advantages"):
        assert first[name] == second[name] == alone[name]
    for one, other in zip(alone["steps"], first["steps"], strict=True):
        for name in COMPARED & one.keys():
            assert other[name] == pytest.approx(one[name], rel=1e-4, abs=1e-6), name
    assert first["val"] == second["val"]
    assert first["weights"] == second["weights"]
    np.testing.assert_allclose(first["weights"], alone["weights"], rtol=1e-5)
    assert first["val"][0]["val_reward"] == pytest.approx(alone["val"][0]["val_reward"])


def test_the_table_of_completions(tmp_path):
    rewards = [RewardSpec(reward=spec("known"), weight=2.0), RewardSpec(reward=spec("level"), name="flat")]
    run = Run(options_of(rewards, log_completions=2), tmp_path / "run", max_steps=4)
    run.run()
    lines = run.lines
    assert {line["step"] for line in lines} == {1, 3}
    assert len(lines) == 32
    for line in lines:
        even = line["rewards"]["known"]
        assert line["rewards"]["flat"] == pytest.approx(0.1)
        assert line["reward"] == pytest.approx(0.1 + 2 * even if even is not None else 0.1)
        assert line["answer"] == line["prompt"][::-1]
        assert line["tokens"] == len(line["completion"]) + (not line["truncated"])
        assert line.keys() == {
            *("step", "prompt", "completion", "answer", "reward", "rewards", "advantage", "tokens", "truncated")
        }
    assert any(line["rewards"]["known"] is None for line in lines)


def test_a_table_that_cannot_be_written_is_named(tmp_path):
    """As where the disk is full."""
    (tmp_path / "run" / COMPLETIONS).mkdir(parents=True)
    trainer = trainer_of(options_of(), batch_size=16)
    trainer.path = tmp_path / "run"
    trainer.source.trainer = trainer
    with pytest.raises(CheckpointError, match=rf"could not write .*{COMPLETIONS}: Is a directory.*log_completions"):
        trainer.source.batch(range(16), 0)
