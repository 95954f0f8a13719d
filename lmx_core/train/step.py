"""One update of the parameters."""

import hashlib
import math
import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import attrs
import mlx.core as mx
from mlx import nn
from mlx import optimizers as optim
from mlx.core import array
from mlx.utils import tree_flatten, tree_map, tree_map_with_path, tree_unflatten

from lmx_core import quantised
from lmx_core.components import vectorised
from lmx_core.lengths import length
from lmx_core.objective import auxiliary_loss, settle, take_reports
from lmx_core.protocols import Objective
from lmx_core.randomness import drawing_apart
from lmx_core.train.abreast import Abreast, parts_of, sharing_cores
from lmx_core.train.config import TrainConfig
from lmx_core.train.parallel.ranks import Ranks, alone
from lmx_core.train.parallel.sharding import Shards

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def compute_dtype(policy: str) -> mx.Dtype:
    """The precision that a policy means here: `auto` is float32 on a CPU and bfloat16 on a GPU."""
    if policy != "auto":
        return DTYPES[policy]
    return mx.bfloat16 if mx.default_device() == mx.Device(mx.gpu) else mx.float32


def seed_of(seed: int, sample: int) -> int:
    """What a micro-batch draws its random numbers from: by its first sample's number, so that no state is to be saved."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {sample}".encode(), digest_size=8).digest())


@attrs.frozen(eq=False)
class Micro:
    """A batch that runs at once: a part of an update."""

    arrays: Mapping[str, array]
    seed: int


class Step:
    """Gradients of one or several batches, weighted by what they count, then one clipped update of the optimizer.

    N batches, on one rank or on several, give the update of one batch N times as large. An update whose loss or gradient is
    not finite is left out: parameters, optimizer and averages stay.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: optim.Optimizer,
        config: TrainConfig,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.ranks = ranks or alone()
        self.dtype = compute_dtype(config.dtype)
        self.max_grad_norm, self.ema_decay = config.max_grad_norm, config.ema_decay
        self.whole = {
            f"{path}.{name}" for path, module in model.named_modules() for name in getattr(module, "full_precision", ())
        }
        model.recompute_every = config.recompute_every
        self.thrifty = config.recompute_every > 0
        quantised.check_frozen(model)
        optimizer.init(model.trainable_parameters())
        self.size = sum(weight.size for _, weight in _flat(model.parameters()))
        """Numbers in the model, trained or not."""
        self.averages: dict[str, array] = {}
        """The moving averages of what is trained, by path, with `ema_decay`."""
        if self.ema_decay is not None:
            self.averages |= {path: weight + 0 for path, weight in _flat(model.trainable_parameters())}
        self._gradients: Callable[..., Any] = partial(self._restoring, self._gradients_of)
        self._norm: Callable[..., array] = _norm
        self._update: Callable[..., None] = self._update_with
        self._to_compile = config.compile
        self._rows_apart = config.compile and getattr(objective, "by_rows", False)
        self._abreast: dict[int, Abreast | None] = {}
        """By how many parts of a batch are computed side by side; None where it is to stay whole."""
        self.shards: Shards | None = None

    def divide(self) -> None:
        """Leave each rank its part of the weights, before the first call."""
        self.shards = Shards(self.model, self.optimizer.state, self.averages, self.ranks)

    def join(self) -> None:
        """Give every rank all of the weights, after the last call."""
        if self.shards:
            self.shards.join()
        self.shards = None

    def joined(self) -> AbstractContextManager[None]:
        """Within it every rank has all of the weights, and of the optimizer's state; for all ranks to enter at once."""
        return self.shards.joined() if self.shards else nullcontext()

    def _compile(self) -> None:
        """At the first call: what a resumed run has put into the optimizer is captured then."""
        self._gradients = self._compiled_gradients()
        self._norm = mx.compile(_norm)
        state = [self.model.state, self.optimizer.state, self.averages]
        self._update = partial(mx.compile, inputs=state, outputs=state)(self._update_with)
        self._to_compile = False

    def _compiled_gradients(self) -> Callable[[dict[str, array]], Any]:
        me = weakref.proxy(self)  # what another thread remembers is not to keep the step
        random = [mx.random.state]  # of this thread
        compiled = vectorised.compiled(
            lambda batch: me._gradients_of(batch), inputs=[self.model.state, *random], outputs=random
        )
        return lambda batch: me._restoring(compiled, batch)

    def _restoring(self, function: Callable[..., Any], batch: dict[str, array]) -> Any:
        """Where it fails the model has its weights again, and not those of a trace."""
        everything = self.model.parameters()
        try:
            return function(batch)
        except BaseException:
            self.model.update(everything)
            raise

    def __call__(self, batches: Sequence[Micro], learning_rate: float) -> dict[str, float]:
        """Metrics of the update: the loss, the gradient's norm, the objective's metrics, the components' reports.

        Where one of the first two is not finite, nothing has changed.
        """
        if self._to_compile:
            self._compile()
        with sharing_cores(max(map(self._parts, batches))):
            return self._stepped(batches, learning_rate)

    def _stepped(self, batches: Sequence[Micro], learning_rate: float) -> dict[str, float]:
        self.optimizer.learning_rate = learning_rate
        loss, count, metrics, reports, gradients = self._of_all_ranks(batches)
        scale = 1 / mx.maximum(count, 1)
        reports = {name: value * scale for name, value in reports.items()}
        norm = (self.shards.norm(gradients) if self.shards else self._norm(gradients)) * scale
        measured = {"loss": loss * scale, "grad_norm": norm, **{name: value * scale for name, value in metrics.items()}}
        measured |= {name: value for name, value in reports.items() if value.ndim == 0}
        mx.eval(measured, reports)  # here a rank that is gone shows, before a parameter has changed
        found: dict[str, Any] = {name: value.item() for name, value in measured.items()}
        if math.isfinite(found["loss"]) and math.isfinite(found["grad_norm"]):
            self._update(gradients, self._factor(norm, scale), reports)
            mx.eval(self.model.state, self.optimizer.state, self.averages)
        return found

    @contextmanager
    def rounded(self) -> Generator[None, None, None]:
        """Within it the model has its weights in the precision that steps compute in."""
        everything = self.model.parameters()
        self.model.update(tree_map_with_path(self._rounded, everything))
        try:
            yield
        finally:
            self.model.update(everything)

    def gradients(self, batch: Mapping[str, array]) -> Any:
        """Of the mean loss of a batch, for who looks on: not compiled, nothing changes, in the precision of training."""
        with drawing_apart(0):
            _, count, _, _, gradients = self._gradients_of(batch)
        return tree_map(lambda each: each / mx.maximum(count, 1), gradients)

    def _summed(self, batches: Sequence[Micro]) -> Any:
        total: Any = None
        for batch in batches:
            for loss, count, metrics, reports, gradients in self._found(batch):
                reports = {name: value * count for name, value in reports.items()}
                found = loss, count.astype(mx.float32), metrics, reports, gradients
                total = found if total is None else _added(total, found)
            if len(batches) > 1 or self.thrifty:
                mx.eval(total)  # or the activations of every batch, and of recomputed blocks, are held at once
        return total

    def _parts(self, batch: Micro) -> int:
        if not self._rows_apart or self.shards:
            return 1
        parts = parts_of(batch.arrays, self.size)
        if parts > 1 and parts not in self._abreast:
            self._abreast[parts] = self._side_by_side(batch, parts)
        return parts if self._abreast.get(parts) else 1

    def _found(self, batch: Micro) -> list[Any]:
        """Of the batch, or of parts of its rows that were computed side by side."""
        parts = self._parts(batch)
        if abreast := self._abreast.get(parts):
            mx.eval(self.model.state)  # where somebody has changed weights since: only this thread can evaluate them
            return abreast(batch.arrays, [seed_of(batch.seed, part) for part in range(parts)])
        with drawing_apart(batch.seed):
            return [self._gradients(dict(batch.arrays))]

    def _side_by_side(self, batch: Micro, parts: int) -> Abreast | None:
        """Not for a model that reports: what a mixture balances is the whole batch.

        One row is computed here, uncompiled, to tell, and because other threads cannot evaluate what this one has begun,
        such as weights of a second model that nobody has looked at yet.
        """
        with drawing_apart(batch.seed):
            found = self._restoring(self._gradients_of, {name: each[:1] for name, each in batch.arrays.items()})
        mx.eval(found)
        _, _, _, reports, _ = found
        return None if reports else Abreast(self._compiled_gradients, parts)

    def _of_all_ranks(self, batches: Sequence[Micro]) -> Any:
        if self.shards is None:
            return self.ranks.sum(self._summed(batches))
        with self.ranks.answering():  # each block asks the others for its weights
            found = self._summed(batches)
        return self.shards.sum(found)

    def _factor(self, norm: array, scale: array) -> array:
        """From summed gradients to those that the optimizer is given: averaged, and shortened where they are too long."""
        if self.max_grad_norm is None:
            return scale
        return scale * mx.minimum(self.max_grad_norm / (norm + 1e-6), 1.0)

    def _gradients_of(self, batch: Mapping[str, array]) -> Any:
        everything = self.model.parameters()

        def loss(parameters: Any) -> Any:
            for weights in (everything, parameters):  # the frozen ones too
                self.model.update(tree_map_with_path(self._rounded, weights))
            found: Any = self.objective(self.model, batch)
            nats, count, metrics = found
            reports = take_reports(self.model)
            count = count if isinstance(count, array) else mx.array(float(count))
            return nats + auxiliary_loss(reports) * count, (nats, count, dict(metrics), reports)

        (_, found), gradients = mx.value_and_grad(loss)(self.model.trainable_parameters())
        self.model.update(everything)
        return *found, gradients

    def _rounded(self, path: str, weight: array) -> array:
        """In the precision that is computed in, but for what stays whole: packed weights, and what says so of itself."""
        stays = path in self.whole or not mx.issubdtype(weight.dtype, mx.floating)
        return weight if stays else weight.astype(self.dtype)

    def _update_with(self, gradients: Any, factor: array, reports: dict[str, array]) -> None:
        gradients = tree_map(lambda gradient: gradient * factor, gradients)
        self.optimizer.update(self.model, gradients)
        settle(self.model, reports)
        if self.ema_decay is not None:
            for path, weight in _flat(self.model.trainable_parameters()):
                self.averages[path] = self.ema_decay * self.averages[path] + (1 - self.ema_decay) * weight


@contextmanager
def averaged(model: nn.Module, averages: Mapping[str, array]) -> Generator[None, None, None]:
    """The model with the averages of its weights, and then with its weights again."""
    before = {path: weight for path, weight in _flat(model.trainable_parameters()) if path in averages}
    model.update(tree_unflatten(list(averages.items())))
    try:
        yield
    finally:
        model.update(tree_unflatten(list(before.items())))


def _added(a: Any, b: Any) -> Any:
    """Two results of micro-batches as one; a report that only one of them has is taken as it is."""
    loss, count, metrics, reports, gradients = (*a[:2], {**a[2]}, {**a[3]}, a[4])
    for mine, theirs in ((metrics, b[2]), (reports, b[3])):
        for name, value in theirs.items():
            mine[name] = mine[name] + value if name in mine else value
    return loss + b[0], count + b[1], metrics, reports, tree_map(mx.add, gradients, b[4])


def _norm(gradients: Any) -> array:
    return length(each for _, each in _flat(gradients))


def _flat(tree: Any) -> list[tuple[str, array]]:
    flat: Any = tree_flatten(tree)
    return flat
