"""Steps as lines of text."""

from collections.abc import Sequence

from lmx_core.wiring.steps import Join, Step
from lmx_core.wiring.symbols import Box


def drawn(steps: Sequence[Step]) -> list[str]:
    """The stream from top to bottom, its branches to the right."""
    lines = ["│"]
    for step in steps:
        lines += [step.text] if isinstance(step, Box) else _drawn_join(step)
    return [*lines, "▼"]


def _drawn_join(join: Join) -> list[str]:
    on = join.stream is not None
    lines = [f"{'├' if on else '╰'}── {_chain(branch)} " for branch in join.branches]
    if join.shared:
        first = f"{'├' if on else '╰'}── {_chain(join.shared)} ──"
        below = ("│" if on else " ").ljust(len(first))
        tees = ["┬", *"├" * (len(lines) - 2), "╰"]
        starts = [first, *[below] * (len(lines) - 1)]
        lines = [f"{start}{tee}{line[1:]}" for start, tee, line in zip(starts, tees, lines, strict=True)]
    width = max(map(len, lines)) + 2
    lines = [f"{line:─<{width}}{'┤' if i else '╮'}" for i, line in enumerate(lines)]
    lines += [f"{box.text:{width}}│" for box in join.stream or ()]
    return [*lines, f"{'⊕ ◄':─<{width}}╯"]


def _chain(boxes: Sequence[Box]) -> str:
    return " ── ".join(box.text for box in boxes)
