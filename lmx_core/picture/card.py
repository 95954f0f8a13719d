"""One kind of layer: where it stands, how it is wired, its numbers."""

import textwrap
from collections.abc import Iterator, Sequence

from lmx_core.picture.drawing import Drawing, width_of
from lmx_core.quantities import in_bytes, ranges
from lmx_core.wiring import Box, Group, Join, Step

PAD, HOP, BRANCH = 20, 22, 40
"""Air within a card, the length of an arrow, and the distance of two branches."""


def card(drawing: Drawing, group: Group, context: int, colour: str, x: float, y: float, width: float) -> float:
    """Returns where it ends."""
    at, top, left = len(drawing.elements), y, x + PAD
    s = "s" * (len(group.layers) > 1)
    drawing.rect(left, y + 18, 11, 11, "", 3, fill=colour)
    drawing.text(left + 19, y + 28, group.name or f"layer{s} {ranges(group.layers)}", "name")
    y += 28
    for line in textwrap.wrap(f"layer{s} {ranges(group.layers)}", int((width - 2 * PAD) / 6.4)) if group.name else ():
        y += 18
        drawing.text(left, y, line, "soft small")
    y = _wired(drawing, group.steps, colour, left, y + 16)
    for line in _numbers(group, context):
        y += 18
        drawing.text(left, y, line, "soft small")
    drawing.behind(at, x, top, width, y + PAD - top)
    return y + PAD


def reach(steps: Sequence[Step]) -> float:
    """How wide a card is for these steps."""
    stream, widest = _stream(steps), 0.0
    for step in steps:
        if isinstance(step, Box):
            widest = max(widest, width_of(step) / 2)
        else:
            shared = sum(HOP + width_of(box) for box in step.shared)
            widest = max(
                widest, *(shared + sum(HOP + width_of(box) for box in branch) + 30 for branch in step.branches)
            )
    return stream + widest + 2 * PAD


def _stream(steps: Sequence[Step]) -> float:
    """Where the stream runs, so that the boxes on it have room."""
    boxes = [step for step in steps if isinstance(step, Box)]
    boxes += [box for step in steps if isinstance(step, Join) for box in step.stream or ()]
    return max([HOP, *(width_of(box) / 2 for box in boxes)])


def _wired(drawing: Drawing, steps: Sequence[Step], colour: str, x: float, y: float) -> float:
    stream, start, above = x + _stream(steps), y, Drawing()
    y += 6
    for step in steps:
        if isinstance(step, Box):
            above.box(stream - width_of(step) / 2, y + 26, step, colour)
            y += 42
        else:
            y = _joined(above, step, colour, stream, y + 28)
    drawing.arrow((stream, start), (stream, y + 24))
    drawing.elements += above.elements
    return y + 28


def _joined(drawing: Drawing, join: Join, colour: str, stream: float, y: float) -> float:
    """Branches one below the other; returns the height at which they are added."""
    fork = _chain(drawing, join.shared, colour, stream, y)
    if join.shared:
        drawing.line((fork, y), (fork + 14, y))
        fork += 14
    rows = [y + BRANCH * i for i in range(len(join.branches))]
    drawing.line((fork, y), (fork, rows[-1]))
    ends = [_chain(drawing, branch, colour, fork, row) for branch, row in zip(join.branches, rows, strict=True)]
    right, total = max(ends) + 16, rows[-1] + BRANCH
    for i, box in enumerate(join.stream or ()):
        drawing.box(stream - width_of(box) / 2, rows[-1] + 32 + 28 * i, box, colour)
        total += 28
    for end, row in zip(ends, rows, strict=True):
        drawing.line((end, row), (right, row))
    drawing.arrow((right, y), (right, total), (stream + 9, total))
    drawing.plus(stream, total)
    return total


def _chain(drawing: Drawing, boxes: Sequence[Box], colour: str, x: float, y: float) -> float:
    for box in boxes:
        drawing.arrow((x, y), (x + HOP, y))
        x = drawing.box(x + HOP, y, box, colour)
    return x


def _numbers(group: Group, context: int) -> Iterator[str]:
    for names in (("d_model", "d_ff"), ("n_heads", "n_kv_heads", "head_dim")):
        yield " · ".join(f"{name} {group.each(name)}" for name in names)
    used = f", {group.each('active')} for a token" if group.sum("active") < group.sum("parameters") else ""
    yield f"{group.each('parameters')} parameters{used}"
    if group.sum("cache_bytes_per_token"):
        most = in_bytes(max(each.cache_bytes for each in group.members))
        yield f"cache {group.each('cache_bytes_per_token')} bytes a token, {most} for {context:,}"
    elif group.sum("cache_bytes_fixed"):
        yield f"state of {group.each('cache_bytes_fixed')} bytes"
    else:
        yield "no cache"
