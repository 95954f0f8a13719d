"""Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import attrs

from lmx_core.config import as_tuple, exact_types
from lmx_core.train.loggers.logger import Logger
from lmx_core.train.trainer import Trainer


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class WandbOptions:
    """Options of `callback="wandb"`."""

    project: str = "lmx"
    entity: str | None = None
    """The team or the user that the project belongs to; wandb's own choice unless given."""
    run_name: str | None = None
    """That of its directory unless given."""
    mode: Literal["online", "offline", "disabled"] | None = None
    """`offline` keeps all in the run's directory, for `wandb sync`; what WANDB_MODE says unless given."""
    tags: Sequence[str] = attrs.field(default=(), converter=as_tuple)


class Wandb(Logger):
    """A run of wandb, with the config of this one, metrics at their steps, and samples as tables."""

    Options = WandbOptions
    extra = needs = "wandb"

    def begin(self, trainer: Trainer, folder: Path | None) -> None:
        options = self.options
        self.run = self.module.init(
            project=options.project,
            entity=options.entity,
            name=options.run_name or (trainer.path.name if trainer.path else None),
            id=self.id,
            resume=None if options.mode == "offline" else "allow",
            dir=str(folder) if folder else None,
            mode=options.mode,
            tags=list(options.tags),
            config=dict(trainer.about),
            reinit="create_new",  # whoever calls this may have a run of their own
            settings=self.module.Settings(console="off"),
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def write_text(self, step: int, texts: Mapping[str, str]) -> None:
        table = self.module.Table(columns=["prompt", "text"], data=[[*each] for each in texts.items()])
        self.run.log({"samples": table}, step=step)

    def end(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))
