"""MLflow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from lmx_core.config import exact_types
from lmx_core.train.loggers.logger import Logger, flattened
from lmx_core.train.trainer import Trainer

METRICS, PARAMS, LONGEST = 1000, 100, 500
"""How many metrics and parameters MLflow takes at once, and how long the text of a parameter may be in any of its stores."""


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class MLflowOptions:
    """Options of `callback="mlflow"`."""

    tracking_uri: str | None = None
    """Where it is kept: a server, a database, a folder; what MLFLOW_TRACKING_URI says, or MLflow's own choice, unless
    given."""
    experiment: str = "lmx"
    run_name: str | None = None
    """That of its directory unless given."""


class MLflow(Logger):
    """A run of MLflow, with the config of this one as parameters, metrics at their steps, and samples as text files."""

    Options = MLflowOptions
    extra = needs = "mlflow"

    def begin(self, trainer: Trainer, folder: Path | None) -> None:
        self.client = self.module.MlflowClient(tracking_uri=self.options.tracking_uri)
        if self._written:  # by a process before: the id is one of MLflow's
            self.client.update_run(self.id, status="RUNNING")
            return
        experiment = self.client.get_experiment_by_name(self.options.experiment)
        place = experiment.experiment_id if experiment else self.client.create_experiment(self.options.experiment)
        name = self.options.run_name or (trainer.path.name if trainer.path else None)
        self.id = self.client.create_run(place, run_name=name).info.run_id
        self._remember()
        entities = self.module.entities
        params = [entities.Param(key, str(value)[:LONGEST]) for key, value in flattened(trainer.about).items()]
        for i in range(0, len(params), PARAMS):
            self.client.log_batch(self.id, params=params[i : i + PARAMS])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        found: list[Any] = [self.module.entities.Metric(key, value, now, step) for key, value in metrics.items()]
        for i in range(0, len(found), METRICS):
            self.client.log_batch(self.id, metrics=found[i : i + METRICS])

    def write_text(self, step: int, texts: Mapping[str, str]) -> None:
        for i, text in enumerate(texts.values()):
            self.client.log_text(self.id, text, f"samples/step-{step:08d}-{i}.txt")

    def end(self, failed: bool) -> None:
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")
