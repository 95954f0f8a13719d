"""Several optimizers that share a model's parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx import optimizers as optim
from mlx.core import array


class Parted(optim.MultiOptimizer):
    """Each parameter belongs to one of several optimizers, whose rates are `factors` of the one that is set.

    `owner(path, parameter)` is the index of the optimizer.
    """

    def __init__(
        self,
        optimizers: Sequence[Any],
        owner: Callable[[str, array], int],
        factors: Sequence[float],
        learning_rate: float,
    ) -> None:
        def owned_by(i: int) -> Callable[[str, array], bool]:
            return lambda path, parameter: owner(path, parameter) == i

        super().__init__(list(optimizers), [owned_by(i) for i in range(len(optimizers) - 1)])
        self.factors = list(factors)
        # One dict that stays, with those of the parts in it: what compiles an update reads and writes it in place.
        self._state: dict[str, Any] = {"states": [each.state for each in self.optimizers]}
        self.learning_rate = learning_rate

    @property
    def state(self) -> dict[str, Any]:
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        for optimizer, part in zip(self.optimizers, state["states"], strict=True):
            optimizer.state = part
        self._state = {**state, "states": [each.state for each in self.optimizers]}

    @property
    def learning_rate(self) -> array:
        return self._state["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | array) -> None:
        self._state["learning_rate"] = mx.array(learning_rate)
        for optimizer, factor in zip(self.optimizers, self.factors, strict=True):
            optimizer.learning_rate = factor * learning_rate
