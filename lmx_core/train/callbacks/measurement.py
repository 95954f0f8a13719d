"""What is measured every so many steps."""

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import mlx.core as mx
from attrs import validators
from mlx.core import array

from lmx_core.config import at_least_one, exact_types
from lmx_core.train.callback import Callback
from lmx_core.train.callbacks.probe import untouched
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer

some_steps: Any = validators.optional(validators.and_(*at_least_one))


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MeasurementOptions:
    """Options of a measurement."""

    every: int | None = attrs.field(default=None, validator=some_steps)
    """Steps from one measurement to the next; `train.log_interval` unless given."""


class Measurement(Callback):
    """Looks at the model after every `every` steps, with the last batch of the step, and leaves all as it was.

    On several ranks each measures its own batch; what is written is that of the first.
    """

    Options: ClassVar[type] = MeasurementOptions

    def __init__(self, config: TrainConfig, options: MeasurementOptions) -> None:
        self.every = options.every or config.log_interval

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        if trainer.step % self.every == 0:
            with untouched(trainer.model), trainer.update.joined():
                found = self.measure(trainer)
                mx.eval(found)
            metrics |= {name: value.item() for name, value in found.items()}

    def measure(self, trainer: Trainer) -> Mapping[str, array]:
        """Scalars by the names that they have among the metrics, lazy ones; the model is in evaluation mode."""
        raise NotImplementedError(f"{type(self).__name__} has no measure(trainer)")
