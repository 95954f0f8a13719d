"""One update of the parameters."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx import optimizers as optim
from mlx.core import array
from mlx.utils import tree_map, tree_map_with_path

from lmx_core import quantised
from lmx_core.objective import auxiliary_loss, next_token_loss, settle
from lmx_core.train.config import TrainConfig

Batch = tuple[array, array]
DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


def compute_dtype(policy: str) -> mx.Dtype:
    """The precision that a policy means here: `auto` is float32 on a CPU and bfloat16 on a GPU."""
    if policy != "auto":
        return DTYPES[policy]
    return mx.bfloat16 if mx.default_device() == mx.Device(mx.gpu) else mx.float32


@contextmanager
def _random_state_kept() -> Generator[None, None, None]:
    """A trace that fails leaves MLX's generator without a value, and every later draw with it: put it back."""
    state: Any = mx.random.state
    before = state[0]
    try:
        yield
    except BaseException:
        high, low = before.tolist()
        mx.random.seed(high << 32 | low)
        raise


class Step:
    """Gradients of one or several batches, weighted by their tokens, then one clipped update of the optimizer.

    N batches of one size give the update of one batch N times as large.
    """

    def __init__(self, model: nn.Module, optimizer: optim.Optimizer, config: TrainConfig) -> None:
        self.model, self.optimizer = model, optimizer
        self.dtype = compute_dtype(config.dtype)
        self.max_grad_norm = config.max_grad_norm
        self.whole = {
            f"{path}.{name}" for path, module in model.named_modules() for name in getattr(module, "full_precision", ())
        }
        model.recompute_every = config.recompute_every
        self.thrifty = config.recompute_every > 0
        quantised.check_frozen(model)
        optimizer.init(model.trainable_parameters())
        self._gradients: Callable[..., Any] = self._gradients_of
        self._update: Callable[..., array] = self._update_with
        if config.compile:
            random = [mx.random.state]
            self._gradients = partial(mx.compile, inputs=[model.state, *random], outputs=random)(self._gradients_of)
            state = [model.state, optimizer.state]
            self._update = partial(mx.compile, inputs=state, outputs=state)(self._update_with)

    def __call__(self, batches: Sequence[Batch], learning_rate: float) -> dict[str, array]:
        """Metrics of the update: loss in nats a token, gradient norm, and the components' reports."""
        self.optimizer.learning_rate = learning_rate
        tokens = sum(targets.size for _, targets in batches)
        total: Any = None
        for inputs, targets in batches:
            with _random_state_kept():
                found = self._gradients(inputs, targets)
            total = found if total is None else tree_map(mx.add, total, found)
            if len(batches) > 1 or self.thrifty:
                mx.eval(total)  # or the activations of every batch, and of recomputed blocks, are held at once
        (nats, reports), gradients = total
        reports = {key: value / len(batches) for key, value in reports.items()}
        norm = self._update(gradients, mx.array(1 / tokens), reports)
        mx.eval(self.model.state, self.optimizer.state, norm, nats)
        scalars = {key: value for key, value in reports.items() if value.ndim == 0}
        return {"loss": nats / tokens, "grad_norm": norm} | scalars

    def _gradients_of(self, inputs: array, targets: array) -> Any:
        everything = self.model.parameters()

        def loss(parameters: Any) -> Any:
            for weights in (everything, parameters):  # the frozen ones too
                self.model.update(tree_map_with_path(self._rounded, weights))
            nats, reports = next_token_loss(self.model, inputs, targets)
            return nats + auxiliary_loss(reports) * targets.size, (nats, reports)

        (_, metrics), gradients = mx.value_and_grad(loss)(self.model.trainable_parameters())
        self.model.update(everything)
        return metrics, gradients

    def _rounded(self, path: str, weight: array) -> array:
        """In the precision that is computed in, but for what stays whole: packed weights, and what says so of itself."""
        stays = path in self.whole or not mx.issubdtype(weight.dtype, mx.floating)
        return weight if stays else weight.astype(self.dtype)

    def _update_with(self, gradients: Any, scale: array, reports: dict[str, array]) -> array:
        gradients = tree_map(lambda gradient: gradient * scale, gradients)
        limit = mx.inf if self.max_grad_norm is None else self.max_grad_norm
        gradients, norm = optim.clip_grad_norm(gradients, limit)
        self.optimizer.update(self.model, gradients)
        settle(self.model, reports)
        return norm
