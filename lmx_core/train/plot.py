"""The curve of a run."""

import json
from pathlib import Path

from lmx_core.files import atomically


def plot_run(metrics: Path, picture: Path) -> bool:
    """Draw training loss and validation bits per byte over the steps; False without matplotlib (extra `plot`)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_series(lines, "loss"), label="training loss (nats a token)", color="tab:blue", linewidth=1)
    axes.set(xlabel="step", ylabel="nats a token")
    steps, bits = _series(lines, "val_bpb")
    if steps:
        other = axes.twinx()
        other.plot(steps, bits, "o-", label="validation (bits per byte)", color="tab:orange")
        other.annotate(f"{bits[-1]:.3f}", (steps[-1], bits[-1]), xytext=(-4, 8), textcoords="offset points", ha="right")
        other.set(ylabel="bits per byte")
    figure.legend(loc="outside upper center", ncols=2)
    with atomically(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return True


def _series(lines: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]
