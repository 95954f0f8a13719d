"""What carries metrics to a tracker."""

import importlib
import json
import uuid
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from lmx_core.errors import ConfigError, LmxError, LmxWarning, told
from lmx_core.files import write_text
from lmx_core.train.callback import LOGS, Callback
from lmx_core.train.config import TrainConfig
from lmx_core.train.trainer import Trainer


class Logger(Callback):
    """Opens a tracker's run, writes to it, closes it, also where training fails. A subclass says how.

    Metrics are written where the run directory writes them: every `log_interval` steps, where a callback measured something,
    and of evaluations. What a tracker refuses on the way is told once, as a warning, and does not end the training.

    The file logs/NAME.json of the run directory has the `id` under which a resumed run goes on, and the last steps that were
    written: those that the run takes again are not written twice.
    """

    logs = True
    extra: ClassVar[str]
    """The extra of lmx-core that installs the tracker."""
    needs: ClassVar[str]
    """The module that is imported."""
    replaces = False
    """Whether steps that are written again stand in place of the first ones."""

    def __init__(self, config: TrainConfig, options: Any = None) -> None:
        self.options, self.every = options, config.log_interval
        try:
            self.module: Any = importlib.import_module(self.needs)
        except ImportError as error:
            raise ConfigError(
                f"{self.extra} is needed to log to it, and cannot be imported ({error}). Install it: "
                f"pip install 'lmx-core[{self.extra}]', or leave it out of train.callbacks."
            ) from None
        self.id = uuid.uuid4().hex[:12]
        self._written: dict[str, int] = {}
        self._file: Path | None = None
        self._running = self._warned = False

    def begin(self, trainer: Trainer, folder: Path | None) -> None:
        """Open the tracker's run `self.id`; `folder` is there to write to, where the run is kept in a directory."""
        raise NotImplementedError(f"{type(self).__name__} has no begin(trainer, folder)")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no write(step, metrics)")

    def write_text(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts by the prompts that they continue; what a tracker takes no text of leaves out."""

    def end(self, failed: bool) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no end(failed)")

    def on_train_begin(self, trainer: Trainer) -> None:
        folder = trainer.path / LOGS if trainer.path else None
        try:
            if folder:
                folder.mkdir(exist_ok=True)
                if not self.replaces:
                    self._recall(folder / f"{self.extra}.json")
            self.begin(trainer, folder)
        except LmxError:
            raise
        except Exception as error:
            raise LmxError(
                f"{self.extra} could not begin ({told(error)}). Mend that, or leave it out of train.callbacks."
            ) from error
        self._running = True

    def on_step_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        if trainer.step % self.every == 0 or metrics.keys() - trainer.usual:
            self._once("step", trainer.step, lambda: self.write(trainer.step, numbers(metrics)))

    def on_eval_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        self._once("evaluation", trainer.step, lambda: self.write(trainer.step, numbers(metrics)))

    def on_text(self, trainer: Trainer, texts: Mapping[str, str]) -> None:
        self._once("text", trainer.step, lambda: self.write_text(trainer.step, texts))

    def on_train_end(self, trainer: Trainer, summary: dict[str, Any]) -> None:
        self._finish(failed=False)

    def on_train_fail(self, trainer: Trainer, error: BaseException) -> None:
        self._finish(failed=True)

    def _finish(self, failed: bool) -> None:
        if self._running:
            self._running = False
            self._try(lambda: self.end(failed))

    def _recall(self, file: Path) -> None:
        """The id and the steps of a run that is resumed."""
        self._file = file
        if file.exists():
            try:
                state = json.loads(file.read_text(encoding="utf-8"))
                self.id, self._written = state["id"], dict(state["written"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise LmxError(f"{file} is damaged ({told(error)}). Remove it to log to a new run.") from None
        self._remember()

    def _remember(self) -> None:
        if self._file:
            write_text(self._file, json.dumps({"id": self.id, "written": self._written}))

    def _once(self, what: str, step: int, write: Callable[[], None]) -> None:
        """Noted before it is written: a kill between the two loses a step, and doubles none."""
        if not self._running or (step <= self._written.get(what, -1) and not self.replaces):
            return
        self._written[what] = step
        self._remember()
        self._try(write)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:
            if not self._warned:
                self._warned = True
                warnings.warn(
                    f"{self.extra} does not take what is logged ({told(error)}); training goes on", LmxWarning, 2
                )


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Those of the metrics, the step aside."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def flattened(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested table as one of `section.key` names."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
