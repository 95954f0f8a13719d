"""The curve of a run."""

import json
from pathlib import Path

from lmx_core.files import atomically


def plot_run(metrics: Path, picture: Path) -> bool:
    """Draw training loss and validation bits per byte over the steps; False without matplotlib (extra `plot`) or metrics."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()] if metrics.exists() else []
    if not lines:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*_series(lines, "loss"), label="training loss", color="tab:blue", linewidth=1)
    axes.set(xlabel="step", ylabel="nats a token")
    held_out = sorted({line["val_bytes"] for line in lines if "val_bytes" in line})
    other = axes.twinx() if held_out else axes
    for size, marker in zip(held_out, ("o-", "*"), strict=False):
        steps, bits = _series([line for line in lines if line.get("val_bytes") == size], "val_bpb")
        label = f"validation on {size:,} bytes"
        other.plot(steps, bits, marker, label=label, color="tab:orange", markersize=10 if marker == "*" else 4)
        other.annotate(f"{bits[-1]:.3f}", (steps[-1], bits[-1]), xytext=(-6, 8), textcoords="offset points", ha="right")
        other.set(ylabel="bits per byte")
    figure.legend(loc="outside upper center", ncols=3)
    with atomically(picture) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return True


def _series(lines: list[dict[str, float]], name: str) -> tuple[list[float], list[float]]:
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]
