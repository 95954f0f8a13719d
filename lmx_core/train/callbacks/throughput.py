"""How fast a run is."""

import time
from collections import deque
from typing import Any

import attrs
import mlx.core as mx
from attrs import validators

from lmx_core.config import at_least_one, exact_types
from lmx_core.flops import training_flops
from lmx_core.train.callback import Callback
from lmx_core.train.callbacks.probe import untouched
from lmx_core.train.config import TrainConfig
from lmx_core.train.step import compute_dtype
from lmx_core.train.trainer import Trainer

LONG_ENOUGH = 0.05
"""Seconds of products by which a device's speed is measured."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class ThroughputOptions:
    """Options of `callback="throughput"`."""

    window: int = attrs.field(default=20, validator=at_least_one)
    """Steps over which it is averaged."""


class Clock(Callback):
    """Tokens of all ranks and seconds of the last steps; evaluations, checkpoints and the first step are left out.

    The first step of a process compiles.
    """

    def __init__(self, window: int) -> None:
        self._steps: deque[tuple[int, float]] = deque(maxlen=window)
        self._tokens = 0
        self._since: float | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        self._steps.clear()
        self._since = None

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        now = time.monotonic()
        if self._since is not None:
            self._steps.append((trainer.tokens - self._tokens, now - self._since))
        self._tokens, self._since = trainer.tokens, now

    def on_eval_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        self._pause()

    def on_checkpoint(self, trainer: Trainer) -> None:
        self._pause()

    def _pause(self) -> None:
        if self._since is not None:
            self._since = time.monotonic()

    @property
    def speed(self) -> tuple[float, float] | None:
        """Tokens and steps in a second."""
        seconds = sum(each for _, each in self._steps)
        return (sum(tokens for tokens, _ in self._steps) / seconds, len(self._steps) / seconds) if seconds else None


class Throughput(Clock):
    """Tokens, of all ranks, and steps in a second, in the mean over the last steps."""

    Options = ThroughputOptions

    def __init__(self, config: TrainConfig, options: ThroughputOptions) -> None:
        super().__init__(options.window)
        self.every = config.log_interval

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        super().on_step_end(trainer, metrics)
        if trainer.step % self.every == 0 and self.speed:
            tokens, steps = self.speed
            metrics |= {"throughput/tokens_per_second": tokens, "throughput/steps_per_second": steps}


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class UtilisationOptions(ThroughputOptions):
    """Options of `callback="mfu"`."""

    peak: float | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    """FLOP/s of one device at its best; measured by products of matrices before the first step, unless given."""


class Utilisation(Clock):
    """The share of a device's FLOP/s that the model's arithmetic makes up: `FLOPs of a token * tokens/s / (peak * ranks)`.

    FLOPs as `train.max_flops` counts them (section 4.1 of arXiv:2204.02311, where each token looks at all of its sequence;
    here at those before it); what is computed twice is not counted twice. Besides, `flops`: those that the run has spent.
    """

    Options = UtilisationOptions

    def __init__(self, config: TrainConfig, options: UtilisationOptions) -> None:
        super().__init__(options.window)
        self.every, self.peak = config.log_interval, options.peak
        self.seq_len, self.dtype = config.seq_len, config.dtype
        self.flops_of_token = 0.0

    def on_train_begin(self, trainer: Trainer) -> None:
        super().on_train_begin(trainer)
        with untouched(trainer.model):
            self.flops_of_token = training_flops(trainer.model, self.seq_len)
        if self.peak is None:
            self.peak = peak_flops(compute_dtype(self.dtype))

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        super().on_step_end(trainer, metrics)
        if trainer.step % self.every == 0 and self.speed and self.peak:
            rate = self.flops_of_token * self.speed[0]
            metrics["mfu/mfu"] = rate / (self.peak * trainer.ranks.size)
            metrics["mfu/flops_per_second"] = rate
            metrics["mfu/flops"] = self.flops_of_token * trainer.tokens


def peak_flops(dtype: mx.Dtype) -> float:
    """FLOP/s of the default device in products of matrices, of the size, 1024 to 8192, at which it is fastest."""
    best, size = 0.0, 1024
    while size <= 8192:
        speed, seconds = _speed(size, dtype)
        best, size = max(best, speed), 2 * size
        if seconds > LONG_ENOUGH:  # larger ones would take 8 times as long each time
            break
    return best


def _speed(size: int, dtype: mx.Dtype) -> tuple[float, float]:
    """FLOP/s, and the seconds of a product: the best of three measurements of a few products."""
    a, b = (mx.random.normal((size, size), key=mx.random.key(i)).astype(dtype) for i in range(2))
    mx.eval(a @ b)
    times: list[float] = []
    for _ in range(3):
        started = time.monotonic()
        mx.eval([a @ b for _ in range(4)])
        times.append((time.monotonic() - started) / 4)
    return 2 * size**3 / min(times), min(times)
