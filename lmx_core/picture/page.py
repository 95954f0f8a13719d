"""The whole picture: a head, and three columns below it."""

import textwrap
from collections.abc import Sequence

from lmx_core.census import Census
from lmx_core.config import ModelConfig
from lmx_core.picture.card import card, reach
from lmx_core.picture.drawing import Drawing, colour, width_of
from lmx_core.picture.folding import Row, folded
from lmx_core.quantities import in_bytes, in_words, ranges
from lmx_core.wiring import Box, Group, around, groups

MARGIN, GAP, PAD = 40, 28, 20
STACK, BRACKET, CARD, SIDE = 240, 36, 380, 290
"""Widths of the column of layers, of what stands beside it, of the cards at least, and of the numbers."""
ROW, AIR = 30, 16


def picture(config: ModelConfig, counted: Census, title: str, about: str = "") -> str:
    """The text of an SVG file that needs nothing else: no script, no font, no image."""
    found, drawing = groups(counted.layers), Drawing()
    wide = max(CARD, *(reach(group.steps) for group in found))
    cards = MARGIN + STACK + BRACKET + GAP
    side = cards + wide + GAP
    width = side + SIDE + MARGIN
    order = _order(found, config.n_layers)
    top = _head(drawing, order, title, about, width)
    bottoms = [_stack(drawing, config, counted, found, order, top), _side(drawing, counted, found, side, top)]
    y = top
    for i, group in enumerate(found):
        y = card(drawing, group, counted.context, colour(i), cards, y, wide) + 20
    return drawing.svg(width, max(*bottoms, y - 20) + MARGIN, title)


def _order(found: Sequence[Group], n: int) -> list[int]:
    """The kind of each layer."""
    kinds = {layer: i for i, group in enumerate(found) for layer in group.layers}
    return [kinds[layer] for layer in range(n)]


def _head(drawing: Drawing, order: Sequence[int], title: str, about: str, width: float) -> float:
    """What it is, and a cell for each layer; returns where the rest begins."""
    y, across = MARGIN + 16, width - 2 * MARGIN
    drawing.text(MARGIN, y, title, "title")
    for line in textwrap.wrap(about, int(across / 6.8)):
        y += 22
        drawing.text(MARGIN, y, line, "soft")
    y += 24
    cell = across / len(order)
    gap = 2 if cell > 6 else cell / 4
    for i, kind in enumerate(order):
        drawing.rect(MARGIN + i * cell, y, cell - gap, 12, "", min(2, cell / 4), fill=colour(kind))
    drawing.text(MARGIN, y + 28, "layer 0", "soft small")
    drawing.text(width - MARGIN, y + 28, f"layer {len(order) - 1}", "soft small end")
    return y + 28 + GAP


def _stack(
    drawing: Drawing, config: ModelConfig, counted: Census, found: Sequence[Group], order: Sequence[int], y: float
) -> float:
    """From tokens to logits, top to bottom."""
    before, after = around(config, counted.parts)
    centre, right = MARGIN + STACK / 2, MARGIN + STACK
    drawing.text(centre, y + 10, "tokens", "soft middle")
    y += 16
    for box in before:
        y = _single(drawing, box, y)
    for rows in folded(order):
        top = y + AIR
        for row in rows.rows:
            y = _layers(drawing, row, found[row.kind].name, y)
        if rows.times > 1:
            drawing.line((right + 6, top), (right + 12, top), (right + 12, y), (right + 6, y))
            drawing.text(right + 18, (top + y) / 2 + 4, f"× {rows.times}", "small name")
    for box in after:
        y = _single(drawing, box, y)
    drawing.arrow((centre, y), (centre, y + AIR))
    drawing.text(centre, y + AIR + 14, "logits", "soft middle")
    return y + AIR + 16


def _single(drawing: Drawing, box: Box, y: float) -> float:
    """A box of the model itself, whole rows but for factors."""
    centre = MARGIN + STACK / 2
    height = 22 if box.part == "factor" else ROW
    drawing.arrow((centre, y), (centre, y + AIR))
    if box.part == "factor":
        drawing.box(centre - width_of(box) / 2, y + AIR + height / 2, box, "")
    else:
        drawing.rect(MARGIN, y + AIR, STACK, height, "plain")
        drawing.text(centre, y + AIR + height / 2 + 4, box.text, "code middle")
    return y + AIR + height


def _layers(drawing: Drawing, row: Row, name: str, y: float) -> float:
    """A row for one layer, a pile for several."""
    centre, several = MARGIN + STACK / 2, row.n > 1
    drawing.arrow((centre, y), (centre, y + AIR))
    y += AIR
    for shift in (6, 3, 0) if several else (0,):
        drawing.tinted(MARGIN + shift, y + shift, STACK - 6 * several, ROW, colour(row.kind))
    drawing.text(MARGIN + 12, y + ROW / 2 + 4, ranges(range(row.first, row.first + row.n)), "code")
    if name:
        drawing.text(centre, y + ROW / 2 + 4, textwrap.shorten(name, 22, placeholder="…"), "small middle")
    if several:
        drawing.text(MARGIN + STACK - 18, y + ROW / 2 + 4, f"× {row.n}", "small name end")
    return y + ROW + 6 * several


def _side(drawing: Drawing, counted: Census, found: Sequence[Group], x: float, y: float) -> float:
    """Numbers of the whole model."""
    at, top, left, right = len(drawing.elements), y, x + PAD, x + SIDE - PAD
    tokens = f"{counted.context:,} tokens"
    y = _titled(drawing, left, y + 30, "PARAMETERS", in_words(counted.total), f"{counted.total:,}")
    y = _shares(drawing, counted, found, left, right, y + 14)
    if counted.active < counted.total:
        y = _pair(drawing, left, right, y, "one token uses", f"{counted.active:,}")
    y = _titled(drawing, left, y + 36, "CACHE", in_bytes(counted.cache_bytes_per_token), "a token, in bf16")
    if counted.cache_bytes_fixed:
        y = _pair(drawing, left, right, y, "states", in_bytes(counted.cache_bytes_fixed))
    y = _pair(drawing, left, right, y, tokens, in_bytes(counted.cache_bytes))
    y = _titled(drawing, left, y + 36, "WEIGHTS", in_bytes(counted.memory_bytes_bf16), "in bf16")
    y = _pair(drawing, left, right, y, "fp32", in_bytes(counted.memory_bytes_fp32))
    y = _pair(drawing, left, right, y, "4-bit", in_bytes(counted.memory_bytes_4bit))
    least = "at least " if counted.flops_unknown else ""
    forward = f"{least}{in_words(counted.flops_forward)}"
    y = _titled(drawing, left, y + 36, "FLOPS A TOKEN", forward, f"forward, the last of {tokens}")
    y = _pair(drawing, left, right, y, "backward", f"{least}{in_words(counted.flops_backward)}")
    drawing.behind(at, x, top, SIDE, y + PAD - top)
    return y + PAD


def _titled(drawing: Drawing, x: float, y: float, title: str, big: str, unit: str) -> float:
    drawing.text(x, y, title, "soft caps")
    drawing.text(x, y + 28, big, "big")
    drawing.text(x, y + 47, unit, "soft small")
    return y + 50


def _pair(drawing: Drawing, left: float, right: float, y: float, name: str, value: str) -> float:
    drawing.text(left, y + 20, name, "small")
    drawing.text(right, y + 20, value, "small end")
    return y + 20


def _shares(drawing: Drawing, counted: Census, found: Sequence[Group], left: float, right: float, y: float) -> float:
    """A bar of what the parameters belong to, and what it shows."""
    shares: list[tuple[str, int, str]] = []
    for part, number in counted.parts.items():
        if part == "layers":
            named = [(group.name or f"layers {ranges(group.layers)}", group.sum("parameters")) for group in found]
            shares += [(*each, colour(i)) for i, each in enumerate(named)]
        else:
            shares.append((part, number, ""))
    drawing.rect(left, y, right - left, 10, "track", 3)
    x = left
    for _, number, filled in shares:
        width = (right - left) * number / counted.total
        if filled:
            drawing.rect(x, y, max(width - 1, 0.5), 10, "", 2, fill=filled)
        x += width
    y += 14
    for name, number, filled in shares:
        if filled:
            drawing.rect(left, y + 11, 9, 9, "", 2, fill=filled)
        else:
            drawing.rect(left, y + 11, 9, 9, "track", 2)
        _pair(drawing, left + 16, right, y, textwrap.shorten(name, 22, placeholder="…"), f"{number:,}")
        y += 20
    return y
