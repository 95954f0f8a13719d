"""Runs as curves: a picture, or a page that needs no other file."""

import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmx_core.errors import ConfigError
from lmx_core.files import atomically, write_text
from lmx_core.train.history import History, read_history

LABELS = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "val_bpb": "validation, bits per byte",
    "reward": "reward in training",
    "val_reward": "reward of held-out prompts",
    "kl": "KL to the reference, nats a token",
    "completion_tokens": "tokens of a completion",
    "accuracy": "pairs in the right order, training",
    "val_accuracy": "pairs in the right order, held out",
    "grad_norm": "length of the gradient",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s",
}
OVER = {"step": "step", "seconds": "seconds", "tokens": "tokens"}
REWARDS = ("reward", "val_reward", "kl", "completion_tokens")
"""What comes first of a run that learns from rewards: its loss is a surrogate, near 0 whatever is learned."""
SMOOTHED = frozenset({"loss", "grad_norm", "reward", "accuracy"})
"""What is noisy from step to step: drawn faintly, with a moving average over it."""
PICTURE = ("loss", "val_bpb", "val_loss", "reward", "val_reward", "val_accuracy")
WIDTH, HEIGHT = 6.2, 3.6
"""Of a panel, in inches."""
RESERVED = frozenset({"val_bytes", "skipped"})


def plot_run(run: Path, picture: Path) -> bool:
    """Draw the curves of one run; False without matplotlib (extra `plot`) or metrics."""
    history = read_history(run)
    if not history.lines:
        return False
    try:
        plot_runs([history], picture)
    except ConfigError:
        return False
    return True


def plot_runs(runs: Sequence[History], picture: Path, over: str = "step") -> None:
    """Training and validation of the runs in one PNG: losses, and rewards where there are some."""
    measured = _measured(runs)
    chosen = [name for name in PICTURE if name in measured]
    if "val_bpb" in chosen:
        chosen.remove("val_loss")
    if "reward" in chosen:
        chosen.remove("loss")
    figure = _figure(runs, chosen or measured[:1], over)
    with atomically(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def page(runs: Sequence[History], file: Path, over: str = "step") -> None:
    """Every metric of the runs, their last numbers, and in what their configs differ, as one HTML page."""
    drawings = "".join(_svg(_figure(runs, [name], over)) for name in _measured(runs))
    names = _names(runs)
    title = html.escape(", ".join(names))
    sections = [
        f"<h1>{title}</h1>",
        _table(*_figures(names, runs)),
        f"<div class=curves>{drawings}</div>",
        "<h2>In what their configs differ</h2>" if len(runs) > 1 else "<h2>Config</h2>",
        _table(["key", *names], differences(runs)),
    ]
    write_text(file, PAGE.format(title=title, body="\n".join(sections)))


def _names(runs: Sequence[History]) -> list[str]:
    """Those of their directories; the paths where several are called alike."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def differences(runs: Sequence[History]) -> list[list[str]]:
    """Keys that not all runs have alike, with what each has; all keys of a single run."""
    tables = [_flat(run.config) for run in runs]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    rows = [[key, *(table.get(key, "") for table in tables)] for key in keys]
    return [row for row in rows if len(runs) == 1 or len(set(row[1:])) > 1]


FIGURES = (
    ("state", lambda run: run.state),
    ("steps", lambda run: _number(run.last("step"))),
    ("loss", lambda run: _number(run.last("loss"))),
    ("val_loss", lambda run: _number(run.last("val_loss"))),
    ("bits/byte", lambda run: _number(run.last("val_bpb"))),
    ("val_reward", lambda run: _number(run.last("val_reward"))),
    ("tokens/s", lambda run: _number(run.last("tokens_per_second"))),
    ("seconds", lambda run: _number(run.last("seconds"))),
)
"""What is said of each run beside its curves."""


def _figures(names: Sequence[str], runs: Sequence[History]) -> tuple[list[str], list[list[str]]]:
    """Headers and rows, without what none of the runs has."""
    columns = [("run", names), *((label, [found(run) for run in runs]) for label, found in FIGURES)]
    kept = [(label, cells) for label, cells in columns if any(cells)]
    return [label for label, _ in kept], [list(row) for row in zip(*(cells for _, cells in kept), strict=True)]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def _measured(runs: Sequence[History]) -> list[str]:
    """The metrics that some run has, the usual ones first."""
    found = dict.fromkeys(name for run in runs for name in run.names() if name not in RESERVED)
    usual = [*(REWARDS if "reward" in found else ()), *LABELS]
    return [name for name in dict.fromkeys(usual) if name in found] + [name for name in found if name not in LABELS]


def _figure(runs: Sequence[History], names: Sequence[str], over: str) -> Any:
    """A panel for each metric, a colour for each run."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('drawing needs matplotlib: pip install "lmx-core[plot]"') from None
    figure = Figure(figsize=(WIDTH * len(names), HEIGHT), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for i, (run, label) in enumerate(zip(runs, _names(runs), strict=True)):
            _curve(axes, run, name, over, f"C{i % 10}", label)
        axes.set(xlabel=OVER[over], ylabel=LABELS.get(name, name))
        axes.grid(alpha=0.25)
        if len(runs) > 1:
            axes.legend(fontsize="small")
    return figure


def _curve(axes: Any, run: History, name: str, over: str, colour: str, label: str) -> None:
    x, y = run.series(name, over)
    if not x:
        return
    if name in SMOOTHED and len(y) > 20:
        axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(x, smoothed(y), color=colour, linewidth=1.4, label=label)
        return
    axes.plot(x, y, "o-" if len(y) < 40 else "-", color=colour, markersize=3, linewidth=1.2, label=label)
    if name.startswith("val_"):
        axes.margins(y=0.12)  # room for the number, also over the highest point
        axes.annotate(
            f"{y[-1]:.3f}", (x[-1], y[-1]), xytext=(-4, 7), textcoords="offset points", ha="right", color=colour
        )


def smoothed(values: Sequence[float], share: float = 0.02) -> list[float]:
    """A mean of each value and those before it, weighted by `(1 - a)^distance` with `a = 1 / (share * n)`."""
    rate = 1 / max(share * len(values), 1)
    found: list[float] = []
    mean = weight = 0.0
    for value in values:
        mean, weight = (1 - rate) * mean + rate * value, (1 - rate) * weight + rate
        found.append(mean / weight)
    return found


def _svg(figure: Any) -> str:
    """The drawing as it stands within a page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):  # letters as letters: a tenth of the size, and they can be searched
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}" for cell in headers)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _flat(table: Any, path: str = "") -> dict[str, str]:
    if isinstance(table, dict):
        return {
            key: value
            for name, inner in table.items()
            for key, value in _flat(inner, f"{path}.{name}" if path else name).items()
        }
    return {path: str(table)}


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1300px; padding: 0 1rem; color: #222 }}
h1 {{ font-size: 1.3rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }}
.curves {{ display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0 }}
.curves svg {{ width: 620px; max-width: 100%; height: auto }}
</style>
{body}
</html>
"""
