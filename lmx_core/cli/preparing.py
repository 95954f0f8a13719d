"""The line that shows `lmx data prepare` while it goes."""

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from lmx_core.data.datasets.files import Split


class PreparingLine:
    """Documents, tokens and speed, on standard error; nothing where that is not a terminal."""

    def __init__(self, quiet: bool) -> None:
        console = Console(stderr=True)
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._began = time.monotonic()
        self._before: dict[Split, int] = {}
        """Tokens of each split that an earlier process wrote."""

    def __enter__(self) -> "PreparingLine":
        self.progress.start()
        self.task = self.progress.add_task("reading", total=None)
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def told(self, split: Split, documents: int, tokens: int) -> None:
        if split not in self._before:
            self._before[split], self._began = tokens, time.monotonic()
        speed = (tokens - self._before[split]) / max(time.monotonic() - self._began, 1e-3)
        about = f"{split}  {documents:,} documents  {tokens:,} tokens  {speed:,.0f} tokens/s"
        self.progress.update(self.task, description=about)
