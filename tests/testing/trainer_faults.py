"""What goes wrong in trainers."""

from types import MappingProxyType

import mlx.core as mx
import numpy as np

from lmx_core.train.callback import Callback

from .faults import fault

NAME = "language_model"


class Around:
    """Something else in place of a part, which it otherwise is."""

    def __init__(self, part):
        self.part = part

    def __getattr__(self, name):
        return getattr(self.part, name)

    def __len__(self):
        return len(self.part)


def read(*checks, says):
    """Note a class around the material."""

    def add(around):
        def apply(trainer):
            class Faulty(trainer):
                def read(self, tokenizer):
                    return around(super().read(tokenizer))

                def trainer(self, model, material, ranks):
                    return super().trainer(model, material.part, ranks)

            return Faulty

        apply.__name__ = around.__name__
        return fault("trainer", NAME, *checks, says=says)(apply)

    return add


def built(*checks, says):
    """Note a change of the trainer that it builds."""

    def add(change):
        def apply(trainer):
            class Faulty(trainer):
                def trainer(self, model, material, ranks):
                    made = super().trainer(model, material, ranks)
                    change(made)
                    return made

            return Faulty

        apply.__name__ = change.__name__
        return fault("trainer", NAME, *checks, says=says)(apply)

    return add


@read("data_is_told", says="its identity is empty")
class SaysNothing(Around):
    identity = ""


@read("data_is_told", says="another identity the second time")
class IsAnotherEachTime(Around):
    @property
    def identity(self):
        return str(np.random.default_rng().integers(2**60))


@read("data_is_told", says="beyond 256")
class BeginsBeyondTheVocabulary(Around):
    beginning = (256,)


@read("data_is_told", says="what evaluations read")
class HoldsNothingOut(Around):
    held_out = MappingProxyType({})


@read("data_is_told", says="other digests the second time")
class HoldsOutOthersEachTime(Around):
    @property
    def held_out(self):
        return {"all": str(np.random.default_rng().integers(2**60))}


@read("data_is_told", says="not JSON serializable")
class TellsArrays(Around):
    def fingerprint(self):
        return {"tokens": mx.zeros(2)}


class Shaken(Around):
    """A source whose batches depend on how many were asked for in this process."""

    calls = 0

    def batch(self, samples, step):
        self.calls += 1
        found = self.part.batch(samples, step)
        return {**found, "inputs": (found["inputs"] + self.calls) % 256}


@built("resumed_runs_are_the_same", says="in one run")
def counts_in_the_process(trainer):
    trainer.source = Shaken(trainer.source)


@built("runs_come_again", says="losses are")
def draws_without_a_seed(trainer):
    class Drawn(Around):
        def batch(self, samples, step):
            found = self.part.batch(samples, step)
            return {**found, "inputs": np.random.default_rng().integers(0, 256, found["inputs"].shape)}

    trainer.source = Drawn(trainer.source)


@built("runs_come_again", says="of 6 steps it took 2")
def ends_before_its_end(trainer):
    class Ends(Callback):
        def on_step_end(self, trainer, metrics):
            if trainer.step == 2:
                trainer.stop("enough")

    trainer.callbacks.append(Ends())


class Shakes(Callback):
    """Weights become others once the run has ended."""

    def __init__(self, by):
        self.by, self.steps = by, 0

    def on_step_end(self, trainer, metrics):
        self.steps += 1

    def on_train_end(self, trainer, summary):
        trainer.model.embed.weight = trainer.model.embed.weight + self.by(self.steps)


@built("runs_come_again", says="is another one the second time")
def ends_elsewhere_each_time(trainer):
    trainer.callbacks.append(Shakes(lambda steps: np.random.default_rng().random()))


@built("resumed_runs_are_the_same", says="is another one resumed")
def ends_elsewhere_when_resumed(trainer):
    trainer.callbacks.append(Shakes(lambda steps: 0.01 * steps**2))


@built("runs_come_again", says="no parameter has moved")
def learns_nothing(trainer):
    trainer.schedule = lambda step, progress: 0.0


@built("evaluations_measure_the_criterion", says="reward is not among")
def measures_something_else(trainer):
    trainer.criterion = "reward"


@built("evaluations_measure_the_criterion", says="after an evaluation")
def learns_while_it_is_evaluated(trainer):
    evaluator = trainer.evaluator

    def measured(model, final):
        model.embed.weight = model.embed.weight + 1e-3
        return evaluator(model, final)

    trainer.evaluator = measured


@built("evaluations_measure_the_criterion", says="val_loss is nan")
def measures_nothing(trainer):
    trainer.evaluator = lambda model, final: {"val_loss": float("nan")}


@built("evaluations_measure_the_criterion", says="no number")
def measures_arrays(trainer):
    trainer.evaluator = lambda model, final: {"val_loss": mx.array(1.0)}
