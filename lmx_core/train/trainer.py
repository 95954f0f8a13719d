"""The one training loop."""

import math
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import mlx.core as mx

from lmx_core import hooks
from lmx_core.construct import build
from lmx_core.data.batches import Windows
from lmx_core.data.corpus import Corpus, HeldOut
from lmx_core.errors import ConfigError, LmxError
from lmx_core.evaluate import evaluate
from lmx_core.model import LanguageModel, flat_parameters
from lmx_core.train.config import TrainConfig
from lmx_core.train.rules import training_problem
from lmx_core.train.step import Step


class Callback:
    """What looks on. Override what you need; nothing here may change the model."""

    def on_train_begin(self, trainer: "Trainer") -> None: ...

    def on_step_end(self, trainer: "Trainer", metrics: dict[str, float]) -> None: ...

    def on_eval_end(self, trainer: "Trainer", metrics: dict[str, float]) -> None: ...

    def on_checkpoint(self, trainer: "Trainer") -> None: ...

    def on_train_end(self, trainer: "Trainer", summary: dict[str, Any]) -> None: ...


class Trainer:
    """Steps, evaluations and checkpoints until a budget is spent or `stop` is called.

    What a resumed run needs beside the model: `optimizer.state`, `mx.random.state`, `step`, `samples` and `seconds`.
    """

    def __init__(
        self, model: LanguageModel, corpus: Corpus, config: TrainConfig, callbacks: Sequence[Callback] = ()
    ) -> None:
        if problem := training_problem(model, config):
            raise ConfigError(problem)
        self.model, self.corpus, self.config, self.callbacks = model, corpus, config, callbacks
        self.windows = Windows(corpus.train, config.seq_len, config.seed)
        self.optimizer = build("optimizer", config.optimizer, config)
        self.schedule = build("schedule", config.schedule, config)
        self.step = self.samples = 0
        self.seconds = 0.0
        """Time spent in this run, also before it was resumed."""
        self.stopped: str | None = None
        """Why it ended early."""
        self._times: list[float] = []

    def stop(self, reason: str) -> None:
        """End after the running step, with a checkpoint and without the last evaluation."""
        self.stopped = reason

    @property
    def progress(self) -> float:
        """The share of the budget that is spent: of steps or of seconds, whichever is further."""
        limit = self.config.max_seconds
        return min(max(self.step / self.config.max_steps, self.seconds / limit if limit else 0.0), 1.0)

    @property
    def tokens_per_step(self) -> int:
        return self.config.batch_size * self.config.seq_len * self.config.grad_accumulation_steps

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget; the summary of the run."""
        update = Step(self.model.train(), self.optimizer, self.config)
        began = time.monotonic() - self.seconds
        self._tell("on_train_begin")
        hooks.train_start(self)
        metrics: dict[str, float] = {}
        saved = self.step or None
        while self.progress < 1 and self.stopped is None:
            metrics = self._one(update)
            self.seconds = time.monotonic() - began
            self._tell("on_step_end", metrics)
            hooks.train_step(self, metrics)
            if self.step % self.config.eval_interval == 0 and self.progress < 1:
                self._evaluate(self.corpus.glimpse)
                self.seconds = time.monotonic() - began
            if self.step % self.config.checkpoint_interval == 0:
                self._save()
                saved = self.step
        if self.step != saved:
            self._save()
        summary = self._summary(metrics) | (self._evaluate(self.corpus.validation) if self.stopped is None else {})
        self._tell("on_train_end", summary)
        hooks.train_end(self, summary)
        return summary

    def _one(self, update: Step) -> dict[str, float]:
        started = time.monotonic()
        rate = self.schedule(self.step, self.progress)
        found = update([self._batch() for _ in range(self.config.grad_accumulation_steps)], rate)
        self.step += 1
        values: dict[str, Any] = {name: value.item() for name, value in found.items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise self._diverged(f"{name} is {values[name]}", rate)
        self._times.append(time.monotonic() - started)
        speed = self.tokens_per_step / median(self._times[-20:])
        return {"step": self.step, **values, "learning_rate": rate, "tokens_per_second": speed}

    def _save(self) -> None:
        finite = [mx.isfinite(weight).all() for weight in flat_parameters(self.model).values()]
        if not mx.all(mx.stack(finite)).item():
            raise self._diverged("parameters are no longer finite", self.schedule(self.step, self.progress))
        self._tell("on_checkpoint")

    def _diverged(self, what: str, rate: float) -> LmxError:
        return LmxError(
            f"{what} at step {self.step}. A lower train.learning_rate (now {rate:.3g}) or a longer train.warmup_steps "
            "usually helps. A checkpoint, if there is one, is from before."
        )

    def _batch(self) -> tuple[mx.array, mx.array]:
        inputs, targets = self.windows.batch(self.samples, self.config.batch_size)
        self.samples += self.config.batch_size
        return mx.array(inputs), mx.array(targets)

    def _evaluate(self, held_out: HeldOut) -> dict[str, float]:
        config = self.config
        metrics = {
            "step": self.step,
            **evaluate(self.model, held_out, config.seq_len, config.batch_size, config.compile),
        }
        self._tell("on_eval_end", metrics)
        return metrics

    def _summary(self, last: dict[str, float]) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "tokens": self.samples * self.config.seq_len,
            "parameters": self.model.count_parameters(),
            "train_loss": last.get("loss"),
            "tokens_per_second": self.tokens_per_step / median(self._times) if self._times else None,
            "stopped": self.stopped,
            "device": str(mx.default_device()),
        } | self.corpus.fingerprint()

    def _tell(self, event: str, *about: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self, *about)
