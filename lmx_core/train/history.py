"""What a run directory tells of its run: read without MLX's weights, also while it runs and after it was killed."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import attrs

from lmx_core.errors import CheckpointError
from lmx_core.serialize import read_file

CONFIG, METRICS, SUMMARY, LOCK = "config.toml", "metrics.jsonl", "summary.json", ".lock"
State = Literal["running", "finished", "stopped", "broken off"]
Line = Mapping[str, Any]


@attrs.frozen(kw_only=True, eq=False)
class History:
    """A run as its directory tells it."""

    path: Path
    state: State
    """`broken off`: it was killed, or an error ended it."""
    config: Mapping[str, Any]
    """The resolved config, as a plain table."""
    lines: Sequence[Line]
    """Metrics by step, in order."""
    summary: Mapping[str, Any]
    """Of a run that ended by itself or was stopped; empty otherwise."""

    @property
    def name(self) -> str:
        return self.path.name

    def names(self) -> list[str]:
        """What was measured, beside where."""
        found = dict.fromkeys(
            key for line in self.lines for key, value in line.items() if isinstance(value, int | float)
        )
        return [name for name in found if name not in ("step", "seconds", "tokens")]

    def series(self, name: str, over: str = "step") -> tuple[list[float], list[float]]:
        """Where and what: the values of one metric over steps, seconds or tokens."""
        found = [line for line in self.lines if isinstance(line.get(name), int | float) and over in line]
        return [line[over] for line in found], [line[name] for line in found]

    def last(self, name: str) -> float | None:
        """The latest value, None where there is none."""
        values = self.series(name)[1]
        return values[-1] if values else None

    def lowest(self, name: str) -> float | None:
        return min(self.series(name)[1], default=None)


def read_history(path: Path) -> History:
    """`CheckpointError` where the directory is none of a run."""
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path} is no run directory: it has no {CONFIG}")
    summary: Mapping[str, Any] = {}
    with suppress(OSError, ValueError):
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    lines = [line for _, line in whole_lines(path / METRICS)]
    newest = max((int(line["step"]) for line in lines), default=0)
    ended = bool(summary) and summary.get("step", 0) >= newest
    state: State = "broken off"
    if _locked(path):
        state = "running"
    elif ended:
        state = "stopped" if summary.get("stopped") else "finished"
    return History(
        path=path, state=state, config=read_file(path / CONFIG), lines=lines, summary=summary if ended else {}
    )


def whole_lines(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The text and the metrics of each line that a kill left whole."""
    if not file.exists():
        return
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            int(line["step"])
            yield text, line


def found_in(folder: Path) -> list[Path]:
    """The run directories in a folder, or the folder itself where it is one; the one written last comes last."""
    runs = [folder] if (folder / CONFIG).is_file() else [file.parent for file in folder.glob(f"*/{CONFIG}")]
    return sorted(runs, key=lambda run: (run / METRICS if (run / METRICS).exists() else run / CONFIG).stat().st_mtime)


def _locked(path: Path) -> bool:
    """Whether a process trains in it."""
    if not (path / LOCK).exists():
        return False
    with suppress(OSError), (path / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
