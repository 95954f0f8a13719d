"""What holds for callbacks, in training runs of a few steps."""

import inspect
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import mlx.core as mx
from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core.testing.candidate import Candidate
from lmx_core.testing.runs import BRIEF, brief_trainer
from lmx_core.testing.subjects import close
from lmx_core.train.callback import Callback
from lmx_core.train.trainer import Trainer

HOOKS = {name: value for name, value in vars(Callback).items() if name.startswith("on_")}
TEXT = "on_text"
"""What loggers may have beside these, for the texts that `samples` draws."""
STEPS = 6


class _Watch(Callback):
    """Notes the metrics of each step, before or after others."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        self.seen.append(dict(metrics))


@contextmanager
def _run_of(callback: Candidate, steps: int = STEPS) -> Generator[tuple[Trainer, _Watch, _Watch], None, None]:
    """A trainer with the callback between two that watch, in a directory of its own."""
    make = callback.bare().changed(**BRIEF, max_steps=steps, warmup_steps=2, callbacks=())
    with tempfile.TemporaryDirectory() as folder:
        before, after = _Watch(), _Watch()
        after.logs = True
        yield brief_trainer([before, make(), after], Path(folder), make.config), before, after


def hooks_are_called(callback: Candidate) -> None:
    """It has a method that trainers call, and each of its `on_...` is one of these, with their arguments."""
    made = callback.bare()()
    found = {name for name in dir(made) if name.startswith("on_")} - {TEXT}
    known = ", ".join(sorted(HOOKS))
    assert found, f"it has none of the methods that trainers call: {known}"
    assert found <= HOOKS.keys(), f"{', '.join(sorted(found - HOOKS.keys()))} is never called; trainers call {known}"
    for name in found:
        expected = len(inspect.signature(HOOKS[name]).parameters) - 1
        try:
            inspect.signature(getattr(made, name)).bind(*range(expected))
        except TypeError:
            raise AssertionError(f"{name} cannot be called with the {expected} arguments of Callback.{name}") from None


def training_is_left_alone(callback: Candidate) -> None:
    """Parameters, optimizer, losses and modes are, to the bit, those of the same run without it."""
    with _run_of(callback) as (trainer, _, after):
        alone, watch = brief_trainer([], None, trainer.config), _Watch()
        alone.callbacks.append(watch)
        for each in (alone, trainer):
            each.run()
        for step, (one, other) in enumerate(zip(watch.seen, after.seen, strict=True), start=1):
            assert one["loss"] == other["loss"], f"the loss of step {step} is another one: {other['loss']}"
        for what in ("model", "optimizer"):
            states = [_flat(getattr(each, what).state) for each in (alone, trainer)]
            assert [*states[0]] == [*states[1]], f"the state of the {what} has other parts: {[*states[1]]}"
            for name, value in states[0].items():
                close(states[1][name], value, 0.0)
        assert _modes(trainer) == _modes(alone), "modules are left in another mode"


def metrics_are_plain(callback: Candidate) -> None:
    """What it adds to the metrics are numbers by names, which a file takes; what was measured before it stays."""
    with _run_of(callback) as (trainer, before, after):
        trainer.run()
        for one, other in zip(before.seen, after.seen, strict=True):
            changed = {name for name, value in one.items() if other.get(name) != value}
            assert not changed, f"it changes {', '.join(sorted(changed))}, which was measured before"
            added = {name: value for name, value in other.items() if name not in one}
            for name, value in added.items():
                assert type(name) is str and type(value) in (int, float), (  # noqa: PT018
                    f"{name!r} is a {type(value).__name__}, not a number"
                )


def resumed_runs_go_on(callback: Candidate) -> None:
    """Built anew, it takes up a run that stands in the middle, in the same directory, and measures the same things."""
    with _run_of(callback) as (trainer, _, whole):
        trainer.run()
        make = callback.bare().changed(**attrs.asdict(trainer.config, recurse=False))
        watch = _Watch()
        watch.logs = True
        resumed = brief_trainer([make(), watch], trainer.path, trainer.config)
        resumed.resume({**trainer.position, "step": STEPS // 2})
        resumed.run()
        found, expected = (set(each.seen[-1]) for each in (watch, whole))
        assert found == expected, f"resumed, it measures {sorted(found)}, at once {sorted(expected)}"


def failures_pass_through(callback: Candidate) -> None:
    """Where training fails, the error that is raised is that one."""
    for last in (0, 2):
        with _run_of(callback) as (trainer, _, _):
            source: Any = trainer.source
            batch = source.batch

            def failing(samples: Any, step: int, last: int = last, batch: Any = batch) -> Any:
                if step >= last:
                    raise _BrokenError(f"at step {step}")
                return batch(samples, step)

            source.batch = failing
            try:
                trainer.run()
            except _BrokenError:
                continue
            except Exception as error:
                raise AssertionError(f"training failed, and what is raised is {error!r}") from error
            raise AssertionError("training failed, and nothing is raised")


class _BrokenError(Exception):
    pass


def _flat(tree: Any) -> dict[str, array]:
    flat: Any = tree_flatten(tree)
    return {name: value for name, value in flat if isinstance(value, mx.array)}


def _modes(trainer: Trainer) -> list[bool]:
    return [module.training for _, module in trainer.model.named_modules()]
