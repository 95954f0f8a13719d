"""What looks on at a run."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmx_core.train.trainer import Trainer

SAMPLES, LOGS = "samples.jsonl", "logs"
"""What callbacks write into a run directory; in the second, a folder, a plugin's may keep what it likes."""
COMPLETIONS, REFERENCE = "completions.jsonl", "reference"
"""What sources and objectives may: answers of the policy as a table, and a model that the run is compared with, a folder."""


class Callback:
    """What looks on. Override what you need; nothing here may change the model, the optimizer or the random state.

    As a component it is built as `Class(config)` or `Class(config, options)`, of a `TrainConfig`.
    """

    logs = False
    """True for one that carries metrics elsewhere: it is told after all that measure, and on the first rank alone."""

    def on_train_begin(self, trainer: "Trainer") -> None: ...

    def on_step_end(self, trainer: "Trainer", metrics: dict[str, Any]) -> None:
        """What is written into `metrics` reaches the callbacks after this one, the run's metrics.jsonl and the loggers."""

    def on_eval_end(self, trainer: "Trainer", metrics: dict[str, Any]) -> None:
        """`metrics` has `val_loss` and what else the evaluation measured; it is written into like that of a step."""

    def on_checkpoint(self, trainer: "Trainer") -> None: ...

    def on_train_end(self, trainer: "Trainer", summary: dict[str, Any]) -> None: ...

    def on_train_fail(self, trainer: "Trainer", error: BaseException) -> None:
        """In place of `on_train_end` where the run ends with an error; an interrupt is one."""
