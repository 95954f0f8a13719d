"""What the gradients and the weights of a model are like, part by part."""

from collections.abc import Mapping
from typing import Any

from mlx.core import array
from mlx.utils import tree_flatten

from lmx_core.lengths import length
from lmx_core.train.callbacks.measurement import Measurement, MeasurementOptions
from lmx_core.train.callbacks.statistics import by_part, named, statistics
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer


class GradientStats(Measurement):
    """`norm`, `mean`, `std`, `max` (of sizes) and the share of `zeros` of the gradient of each part of the model.

    The gradient is that of the last batch's loss at the weights after the update, without dropout; it costs a forward and a
    backward pass that are not compiled.
    """

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        gradients = by_part(_flat(trainer.update.gradients(trainer.batches[-1])))
        found: dict[str, array] = {}
        for where, parts in gradients.items():
            found |= named("gradient", where, {"norm": length(parts), **statistics(parts)})
        return found


class WeightStats(Measurement):
    """The same of the weights of each part, and `update`: the length of the last update over the length of the weights.

    Of what is trained. It keeps the weights before the update, so that a step which is measured takes that much more memory.
    """

    def __init__(self, config: TrainConfig, options: MeasurementOptions) -> None:
        super().__init__(config, options)
        self._before: dict[str, list[array]] | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        self._remember(trainer)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        super().on_step_end(trainer, metrics)
        self._remember(trainer)

    def _remember(self, trainer: Trainer) -> None:
        """The weights, where the next step is measured: arrays are never changed in place, so that nothing is copied."""
        self._before = None
        if (trainer.step + 1) % self.every == 0:
            with trainer.update.joined():
                self._before = by_part(_flat(trainer.model.trainable_parameters()))

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        found: dict[str, array] = {}
        for where, parts in by_part(_flat(trainer.model.trainable_parameters())).items():
            size = length(parts)
            values = {"norm": size, **statistics(parts)}
            if self._before is not None:
                moved = length(new - old for new, old in zip(parts, self._before[where], strict=True))
                values["update"] = moved / size
            found |= named("weight", where, values)
        return found


def _flat(tree: Any) -> dict[str, array]:
    flat: Any = tree_flatten(tree)
    return dict(flat)
