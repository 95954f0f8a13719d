"""What holds for trainers: short runs of a small model on the data of the config (`config={"data": DataConfig(...)}`)."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array
from mlx.utils import tree_map

from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.protocols import Material
from lmx_core.testing.candidate import Candidate
from lmx_core.testing.subjects import current_seed, randomise
from lmx_core.train.callback import Callback
from lmx_core.train.parallel.ranks import alone
from lmx_core.train.run import RunDirectory, restore

STEPS, CUT = 6, 3


class _Losses(Callback):
    """What a run measured, step by step."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []

    def on_step_end(self, trainer: Any, metrics: Mapping[str, Any]) -> None:
        self.found.append((metrics["loss"], metrics["grad_norm"]))


class _Run:
    """A trainer of the candidate's, with what it reads."""

    def __init__(self, candidate: Candidate, steps: int = STEPS) -> None:
        config = attrs.evolve(candidate.config, train=attrs.evolve(candidate.config.train, max_steps=steps))
        recipe = candidate.bare().changed(train=config.train)()
        self.material: Material = recipe.read(None)
        self.config = attrs.evolve(
            config, model=attrs.evolve(config.model, vocab_size=self.material.tokenizer.vocab_size)
        )
        mx.random.seed(current_seed())
        self.model: Any = randomise(LanguageModel(self.config.model))
        self.trainer: Any = recipe.trainer(self.model, self.material, alone())
        self.trainer.tokenizer = self.material.tokenizer
        self.losses = _Losses()
        self.trainer.callbacks.append(self.losses)

    def keep_in(self, path: Path) -> "_Run":
        self.trainer.path = path
        self.trainer.callbacks.append(RunDirectory(path, self.config, self.material))
        return self

    def weights(self) -> dict[str, array]:
        return tree_map(lambda weight: weight + 0, flat_parameters(self.model))


def data_is_told(trainer: Candidate) -> None:
    """What is read has a tokenizer, a digest that comes again, a beginning within the vocabulary, and facts as JSON."""
    one, other = (_Run(trainer).material for _ in range(2))
    size = one.tokenizer.vocab_size
    assert one.identity, "its identity is empty"
    assert one.identity == other.identity, "the same data has another identity the second time"
    assert dict(one.held_out) == dict(other.held_out), "the same held-out data has other digests the second time"
    assert one.held_out, "it does not say what evaluations read"
    assert all(0 <= token < size for token in one.beginning), f"its beginning has tokens beyond {size}"
    assert json.loads(json.dumps(dict(one.fingerprint()))), "its fingerprint says nothing"


def runs_come_again(trainer: Candidate) -> None:
    """Two runs of one config are the same, bit for bit, and the weights have moved."""
    runs = [_Run(trainer) for _ in range(2)]
    before = runs[0].weights()
    for run in runs:
        run.trainer.run()
    one, other = runs
    assert len(one.losses.found) == STEPS, f"of {STEPS} steps it took {len(one.losses.found)}"
    assert one.losses.found == other.losses.found, f"losses are {one.losses.found}, then {other.losses.found}"
    _same(one.weights(), other.weights(), "the second time")
    moved = [name for name, weight in one.weights().items() if not mx.array_equal(weight, before[name]).item()]
    assert moved, "no parameter has moved"


def resumed_runs_are_the_same(trainer: Candidate) -> None:
    """One that is saved and goes on in a new process from its checkpoint is, bit for bit, the one that went through."""
    through = _Run(trainer)
    through.trainer.run()
    with TemporaryDirectory() as folder:
        path = Path(folder)
        first = _Run(trainer)
        first.keep_in(path)
        first.trainer.callbacks.append(_Stop())
        first.trainer.run()
        second = _Run(trainer)
        restore(second.trainer, path, second.material)
        second.keep_in(path).trainer.run()
    found = first.losses.found + second.losses.found
    assert found == through.losses.found, f"losses are {found}, in one run {through.losses.found}"
    _same(second.weights(), through.weights(), "resumed")


class _Stop(Callback):
    def on_step_end(self, trainer: Any, metrics: Mapping[str, Any]) -> None:
        if trainer.step == CUT:
            trainer.stop("to be resumed")


def evaluations_measure_the_criterion(trainer: Candidate) -> None:
    """Evaluations, on the way and at the end, give plain finite numbers, the criterion among them, and change no weight."""
    run = _Run(trainer)
    before = run.weights()
    for final in (False, True):
        run.trainer.callbacks.clear()
        found = run.trainer.evaluator(run.model, final)
        assert run.trainer.criterion in found, f"{run.trainer.criterion} is not among {', '.join(found)}"
        for name, value in found.items():
            assert type(value) in (int, float), f"{name} is a {type(value).__name__}, no number"
            assert math.isfinite(value), f"{name} is {value}"
    _same(run.weights(), before, "after an evaluation")


def _same(one: Mapping[str, array], other: Mapping[str, array], when: str) -> None:
    for name, weight in one.items():
        assert mx.array_equal(weight, other[name]).item(), f"{name} is another one {when}"
