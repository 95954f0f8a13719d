"""How far something long is, for a person who waits at a terminal."""

import sys
from types import TracebackType
from typing import Any


class Progress:
    """A bar in bytes, on standard error; nothing where that is no terminal."""

    def __init__(self, doing: str, total: int) -> None:
        self.doing, self.total = doing, total
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn()]
            columns += [TransferSpeedColumn(), TimeRemainingColumn()]
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self.doing, total=self.total)
        return self

    @property
    def shown(self) -> bool:
        return self._bar is not None

    def advance(self, size: int) -> None:
        if self._bar is not None:
            self._bar.advance(self._task, size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
