"""The line that shows a training run while it goes."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lmx_core.train.trainer import Callback, Trainer


class LiveLine(Callback):
    """Step, loss, validation, speed and time left, on standard error; nothing where that is not a terminal."""

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True)
        self.validation = ""
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )

    def __enter__(self) -> "LiveLine":
        self.progress.start()
        self.task = self.progress.add_task("preparing", total=1.0, figures="")
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def on_train_begin(self, trainer: Trainer) -> None:
        self.progress.update(self.task, completed=trainer.progress)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        figures = f"loss {metrics['loss']:.3f}{self.validation}  {metrics['tokens_per_second']:,.0f} tokens/s"
        about = "stopping" if trainer.stopping else f"step {trainer.step:,}"
        self.progress.update(self.task, description=about, completed=trainer.progress, figures=figures)

    def on_eval_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        name, unit = ("val_bpb", " bits/byte") if "val_bpb" in metrics else (trainer.criterion, "")
        self.validation = f"  {name} {metrics[name]:.3f}{unit}"
