"""Trackio, Hugging Face's tracker, which keeps runs on this machine or in a Space."""

from collections.abc import Mapping
from pathlib import Path

import attrs

from lmx_core.config import exact_types
from lmx_core.train.loggers.logger import Logger, flattened
from lmx_core.train.trainer import Trainer


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class TrackioOptions:
    """Options of `callback="trackio"`."""

    project: str = "lmx"
    run_name: str | None = None
    """That of its directory unless given. Some letters that make it the only one are added."""
    space_id: str | None = None
    """The Space that is logged to; this machine unless given."""


class Trackio(Logger):
    """A run of trackio, with the config of this one, metrics at their steps, and samples as Markdown; see `trackio show`."""

    Options = TrackioOptions
    extra = needs = "trackio"

    def begin(self, trainer: Trainer, folder: Path | None) -> None:
        name = self.options.run_name or (trainer.path.name if trainer.path else "run")
        self.run = self.module.init(
            project=self.options.project,
            name=f"{name}-{self.id[:6]}",
            space_id=self.options.space_id,
            config=flattened(trainer.about),
            resume="allow",
            embed=False,
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def write_text(self, step: int, texts: Mapping[str, str]) -> None:
        self.run.log({f"samples/{i}": self.module.Markdown(text) for i, text in enumerate(texts.values())}, step=step)

    def end(self, failed: bool) -> None:
        self.run.finish()
