"""The one training loop."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx

from lmx_core import hooks
from lmx_core.construct import build
from lmx_core.errors import ConfigError, LmxError
from lmx_core.flops import training_flops
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.protocols import Objective, Source
from lmx_core.train.callback import Callback as Callback
from lmx_core.train.config import TrainConfig
from lmx_core.train.groups import frozen_by, optimizer_for
from lmx_core.train.known import check_tokens
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_core.train.parallel.sharding import sharding_problem
from lmx_core.train.rules import training_problem
from lmx_core.train.step import Micro, Step, averaged, seed_of

Evaluate = Callable[[LanguageModel, bool], dict[str, Any]]
"""From the model, and whether this is the last evaluation, to metrics with the trainer's criterion among them."""


class Trainer:
    """Steps, evaluations and checkpoints until a budget is spent or `stop` is called.

    What a resumed run needs beside the parameters, `optimizer.state` and `update.averages` is in `position`.
    """

    def __init__(
        self,
        model: LanguageModel,
        config: TrainConfig,
        source: Source,
        *,
        objective: Objective | None = None,
        evaluate: Evaluate | None = None,
        callbacks: Sequence[Any] = (),
        ranks: Ranks | None = None,
        criterion: str = "val_loss",
        higher_is_better: bool = False,
    ) -> None:
        """`criterion` is the metric of an evaluation that tells which one is best, and when `patience` is spent."""
        if problem := training_problem(model, config):
            raise ConfigError(problem)
        self.model, self.config, self.source = model, config, source
        self.objective: Any = objective or build("objective", config.objective, config)
        self.ranks = ranks or alone()
        self.evaluator = evaluate
        self.criterion, self.sign = criterion, -1 if higher_is_better else 1
        frozen_by(model, config.freeze)
        self.optimizer = optimizer_for(model, config)
        self.schedule = build("schedule", config.schedule, config)
        self.callbacks: list[Any] = [*(build("callback", each, config) for each in config.callbacks), *callbacks]
        self.update = Step(model, self.objective, self.optimizer, config, self.ranks)
        if problem := sharding_problem(model, self.optimizer.state, config, self.ranks):
            raise ConfigError(problem)
        self.path: Path | None = None
        """The directory that keeps the run, if one does."""
        self.about: Mapping[str, Any] = {}
        """The config of the whole run as a plain table, where there is one."""
        self.tokenizer: Any = None
        """What the run's tokens stand for, where they stand for text."""
        self.step = self.samples = self.tokens = self.skipped = 0
        self.seconds = 0.0
        """Time spent in this run, also before it was resumed."""
        self.lowest: list[float] = []
        """The best scores of evaluations on the way, `keep_best` of them or one: losses, or rewards with a minus,"""
        self.stale = 0
        """and how many evaluations came after the best."""
        self.evaluated: float | None = None
        """The score of the evaluation at this step, if there was one."""
        self.stopped: str | None = None
        """Why it ended early."""
        self.batches: list[Mapping[str, mx.array]] = []
        """Those of the last step on this rank."""
        self.usual: frozenset[str] = frozenset()
        """The names of what every step measures; others in its metrics are from callbacks."""
        self._asked: str | None = None
        self.bad = 0
        """How many of the last updates in a row were left out."""
        self._flops = training_flops(model, config.seq_len) if config.max_flops else 0.0
        self._times: list[float] = []

    def stop(self, reason: str) -> None:
        """End after the running step, on all ranks, with a checkpoint and without the last evaluation."""
        self._asked = self._asked or reason

    @property
    def stopping(self) -> bool:
        """Whether the running step is the last one."""
        return self._asked is not None

    @property
    def position(self) -> dict[str, Any]:
        """Where the run stands; `resume` takes it."""
        names = ("step", "samples", "tokens", "skipped", "seconds", "lowest", "stale", "bad")
        return {name: getattr(self, name) for name in names}

    def resume(self, position: Mapping[str, Any]) -> None:
        """`KeyError` where the position lacks something, `ValueError` where it has what no run writes."""
        for name, usual in self.position.items():
            if not _like(position[name], usual):
                raise ValueError(f"{name} is {position[name]!r}")
            setattr(self, name, position[name])

    def saved(self) -> dict[str, mx.array]:
        """What the source and the objective keep in a checkpoint."""
        found: dict[str, dict[str, mx.array]] = {
            name: each.saved() for name, each in self._keeping() if hasattr(each, "saved")
        }
        return {f"{name}.{key}": value for name, kept in found.items() for key, value in kept.items()}

    def restore(self, state: Mapping[str, mx.array], run: Path) -> None:
        """Give it back to them, from a checkpoint of the run in this directory."""
        for name, each in self._keeping():
            if hasattr(each, "restore"):
                own = {
                    key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")
                }
                each.restore(own, run)

    def _keeping(self) -> list[tuple[str, Any]]:
        return [("source", self.source), ("objective", self.objective)]

    @property
    def progress(self) -> float:
        """The share of the budget that is spent: of steps, seconds, tokens or FLOPs, whichever is further."""
        config = self.config
        spent = [
            (self.step, config.max_steps),
            (self.seconds, config.max_seconds),
            (self.tokens, config.max_tokens),
            (self.tokens * self._flops, config.max_flops),
        ]
        return min(max(value / limit for value, limit in spent if limit), 1.0)

    @property
    def finished(self) -> bool:
        """Whether a budget is spent, or `patience`."""
        return self.progress >= 1 or (self.config.patience is not None and self.stale >= self.config.patience)

    @property
    def tokens_per_step(self) -> int:
        """Of all ranks, in rows that are full."""
        config = self.config
        return config.batch_size * config.seq_len * config.grad_accumulation_steps * self.ranks.size

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget; the summary of the run."""
        try:
            return self._run()
        except BaseException as error:
            self._tell("on_train_fail", error)
            raise

    def _run(self) -> dict[str, Any]:
        self.model.train()
        self._began = time.monotonic() - self.seconds
        self._tell("on_train_begin")
        hooks.train_start(self)
        if self.config.parallel == "fsdp" and self.ranks.size > 1:
            self.update.divide()
        if self.config.eval_at_start and self.step == 0:
            self._evaluate(final=False)
        metrics: dict[str, Any] = {}
        saved = self.step or None
        while not self.finished and self.stopped is None:
            metrics = self._one()
            self._tell("on_step_end", metrics)
            hooks.train_step(self, metrics)
            best = False
            if self.step % self.config.eval_interval == 0 and self.progress < 1:
                best = self._evaluate(final=False)
            self._agree()
            if best or self.step % self.config.checkpoint_interval == 0:
                self._save()
                saved = self.step
        self.update.join()
        if self.step != saved:
            self._save()
        summary = self._summary(metrics)
        if self.stopped is None:
            self._evaluate(final=True, into=summary)
        self._tell("on_train_end", summary)
        hooks.train_end(self, summary)
        return summary

    def _agree(self) -> None:
        """Every rank has the clock of the first one, and stops when one of them does."""
        (self.seconds,) = self.ranks.of_first(time.monotonic() - self._began)
        asked = self._asked  # a signal may come between two lines
        if self.ranks.any(asked is not None):
            self.stopped = asked or "another rank was stopped"

    def _one(self) -> dict[str, Any]:
        started = time.monotonic()
        rate = self.schedule(self.step, self.progress)
        micros = self._micros()
        self.batches = [micro.arrays for micro in micros]
        read = self._read(micros)
        values = self.update(micros, rate)
        self._count(read)
        self.evaluated = None
        self._guard(values, rate)
        self._times.append(time.monotonic() - started)
        self.seconds = time.monotonic() - self._began
        speed = self.tokens_per_step / median(self._times[-20:])
        metrics = {"step": self.step, **values, "learning_rate": rate, "tokens_per_second": speed}
        metrics |= {"skipped": self.skipped} if self.skipped else {}
        self.usual = frozenset(metrics)
        return metrics

    def _micros(self) -> list[Micro]:
        """The micro-batches of this rank: ranks take turns, so that the order of the data is that of one rank."""
        size, ranks = self.config.batch_size, self.ranks
        firsts = [
            self.samples + (i * ranks.size + ranks.rank) * size for i in range(self.config.grad_accumulation_steps)
        ]
        return [Micro(self._batch(first, size), seed_of(self.config.seed, first)) for first in firsts]

    def _batch(self, first: int, size: int) -> Mapping[str, mx.array]:
        found = self.source.batch(range(first, first + size), self.step)
        check_tokens(found, self.model.config.vocab_size)
        return {name: mx.array(value) for name, value in found.items()}

    def _read(self, micros: Sequence[Micro]) -> int:
        """Tokens of a step, on all ranks."""
        read = sum(micro.arrays["inputs"].size for micro in micros if "inputs" in micro.arrays)
        return int(self.ranks.sum(mx.array(read)).item()) if self.ranks.size > 1 else read

    def _count(self, read: int) -> None:
        """Of an update that is made; a rank that is lost cannot part the two."""
        config = self.config
        self.tokens += read
        self.samples += config.batch_size * config.grad_accumulation_steps * self.ranks.size
        self.step += 1

    def _guard(self, values: Mapping[str, float], rate: float) -> None:
        wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(values[name])]
        self.skipped += bool(wrong)
        self.bad = self.bad + 1 if wrong else 0
        if self.bad > self.config.max_bad_steps:
            name = wrong[0]
            before = f", and {self.bad - 1} steps before it were skipped for the like" if self.bad > 1 else ""
            raise self._diverged(f"{name} is {values[name]} at step {self.step}{before}", rate)

    def _save(self) -> None:
        with self.update.joined():
            self.check_finite()
            self._tell("on_checkpoint")

    def check_finite(self) -> None:
        """Refuse to save weights that are broken."""
        finite = [mx.isfinite(weight).all() for weight in flat_parameters(self.model).values()]
        if not mx.all(mx.stack(finite)).item():
            rate = self.schedule(self.step, self.progress)
            raise self._diverged(f"parameters are no longer finite at step {self.step}", rate)

    def _diverged(self, what: str, rate: float) -> LmxError:
        return LmxError(
            f"{what}. A lower train.learning_rate (now {rate:.3g}) or a longer train.warmup_steps usually helps. "
            "A checkpoint, if there is one, is from before."
        )

    def averaged(self) -> AbstractContextManager[None]:
        """Within it the model has the moving averages of its weights, where the run keeps them."""
        return averaged(self.model, self.update.averages) if self.update.averages else nullcontext()

    def _evaluate(self, final: bool, into: dict[str, Any] | None = None) -> bool:
        """Whether a checkpoint is to be made of it, for being among the best; the last one goes `into` the summary."""
        if self.evaluator is None:
            return False
        with self.update.joined(), self.averaged():
            metrics: dict[str, Any] = {"step": self.step, **self.evaluator(self.model, final)}
        self.seconds = time.monotonic() - self._began
        best = False
        if not final:
            best = self._rank(self.sign * metrics[self.criterion])
        self._tell("on_eval_end", metrics)
        if into is not None:
            into |= metrics
        return best

    def _rank(self, score: float) -> bool:
        """Take note of an evaluation on the way; whether it is among those of which the checkpoints stay."""
        finite = math.isfinite(score)
        self.evaluated = score if finite else None
        better = finite and (not self.lowest or score < self.lowest[0])
        self.stale = 0 if better or not self.lowest else self.stale + 1
        if not finite:  # nan has no place in an order
            return False
        kept = max(self.config.keep_best, 1)
        among = len(self.lowest) < kept or score < self.lowest[-1]
        self.lowest = sorted([*self.lowest, score])[:kept]
        return self.config.keep_best > 0 and among

    def _summary(self, last: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "parameters": self.model.count_parameters(),
            "train_loss": last.get("loss"),
            "tokens_per_second": self.tokens_per_step / median(self._times) if self._times else None,
            "skipped": self.skipped,
            "stopped": self.stopped,
            "ended": None if self.stopped else "budget" if self.progress >= 1 else "patience",
            "device": str(mx.default_device()),
            "ranks": self.ranks.size,
        }

    def _tell(self, event: str, *about: Any) -> None:
        """The objective and the source where they listen, then callbacks in order, those that log at the end."""
        callbacks = sorted(self.callbacks, key=lambda each: getattr(each, "logs", False))
        for each in (self.objective, self.source, *callbacks):
            if getattr(each, "logs", False) and not self.ranks.first:
                continue
            if told := getattr(each, event, None):
                told(self, *about)


def _like(found: Any, usual: Any) -> bool:
    """Whether a position may have it where a trainer has the other: a count, a time, a list of scores."""
    if isinstance(usual, list):
        return isinstance(found, list) and all(isinstance(score, int | float) for score in found)
    return isinstance(found, int if isinstance(usual, int) else int | float) and 0 <= found < math.inf
