"""What a layout does with the residual stream, seen by calling it with symbols."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import attrs
from mlx import nn
from mlx.core import array

from lmx_core.block import ConfigurableBlock
from lmx_core.components.masks import ALL, Scope
from lmx_core.components.positions import provided
from lmx_core.config import BlockConfig
from lmx_core.construct import build
from lmx_core.registry import registry
from lmx_core.wiring.symbols import Box, Factor, Symbol, Unclear, calling


@attrs.frozen
class Join:
    """Branches that leave the stream at one place, and come back to it as a sum."""

    stream: Sequence[Box] | None
    """What the stream goes through beside them; None where it does not go on by itself."""
    shared: Sequence[Box]
    """What all branches begin with, computed once."""
    branches: Sequence[Sequence[Box]]


Step = Box | Join


def wiring(layer: ConfigurableBlock) -> list[Step]:
    """What happens to the residual stream, in order; one box where the layout cannot be seen through."""
    attention, ffn = Box(mixer_text(layer), "attention"), Box(layer.config.ffn.name, "ffn")
    there = [
        None if getattr(sublayer, "silent", False) else box
        for sublayer, box in ((layer.attention, attention), (layer.ffn, ffn))
    ]
    try:
        out: Any = _symbolic(layer)(Symbol(layer.config.d_model), *(box and calling(box) for box in there))
        return [*_steps(out, _reads(out))]
    except Exception:  # whatever another author's layout does with a symbol
        inside = " and ".join(box.text for box in there if box) or "nothing"
        return [Box(f"{layer.config.layout.name} of {inside}", "block")]


def mixer_text(layer: ConfigurableBlock) -> str:
    """`sliding_window + rope, last 4,096`: a mixer, what places its tokens, and how many of them it looks at."""
    block = layer.config
    placed = provided_by(block) & {"rotate", "bias"}
    scope: Scope = getattr(layer.attention, "scope", ALL)
    return ", ".join(
        [
            f"{block.attention.name} + {block.position.name}" if placed else block.attention.name,
            *([f"last {scope.window:,}"] if scope.window is not None else []),
            *([f"chunks of {scope.chunk:,}"] if scope.chunk is not None else []),
        ]
    )


def provided_by(block: BlockConfig) -> set[str]:
    return provided(build("position", block.position, block))


def _symbolic(layer: ConfigurableBlock) -> Any:
    """The layout, whose modules and tensors are symbols."""
    layout: Any = copy.copy(layer.layout)
    norm: Any = registry("norm").get(layer.config.norm.name)
    for name, part in dict(layout).items():
        if isinstance(part, nn.Dropout):
            layout[name] = lambda x: x
        elif isinstance(part, nn.Module):
            text = layer.config.norm.name if isinstance(part, norm) else type(part).__name__
            layout[name] = calling(Box(text, "norm"))
        elif isinstance(part, array):
            layout[name] = Factor(name, part)
    return layout


def _reads(out: Symbol) -> Mapping[int, int]:
    """How often each vector is read."""
    reads: dict[int, int] = {}
    waiting = [out]
    while waiting:
        for each in waiting.pop().inputs:
            reads[id(each)] = reads.get(id(each), 0) + 1
            if reads[id(each)] == 1:
                waiting.append(each)
    return reads


def _steps(out: Symbol, reads: Mapping[int, int]) -> Iterator[Step]:
    if not out.inputs:
        return
    if out.box is not None:
        yield from _steps(out.inputs[0], reads)
        yield out.box
        return
    paths = [_path(term) for term in _terms(out, reads)]
    others = [{id(each) for each in path} for path in paths]
    fork = next((each for each in paths[0] if all(id(each) in path for path in others)), None)
    if fork is None:
        raise Unclear
    yield from _steps(fork, reads)
    yield _join([[*takewhile(lambda each: each is not fork, path)][::-1] for path in paths])


def _terms(out: Symbol, reads: Mapping[int, int]) -> Iterator[Symbol]:
    """What a sum adds up; a sum within it that nothing else reads is taken apart."""
    for each in out.inputs:
        if each.box is None and each.inputs and reads[id(each)] == 1:
            yield from _terms(each, reads)
        else:
            yield each


def _path(term: Symbol) -> list[Symbol]:
    """From a term back to the last sum, or to the input."""
    path = [term]
    while path[-1].box is not None:
        path.append(path[-1].inputs[0])
    return path


def _join(paths: Sequence[Sequence[Symbol]]) -> Join:
    beside, branches = list[Sequence[Symbol]](), list[Sequence[Symbol]]()
    for path in paths:
        (beside if all(_box(each).part == "factor" for each in path) else branches).append(path)
    if len(beside) > 1:
        raise Unclear
    alike = takewhile(lambda each: len(branches) > 1 and len({*map(id, each)}) == 1, zip(*branches, strict=False))
    shared = [_box(each[0]) for each in alike]
    return Join(
        stream=[_box(each) for each in beside[0]] if beside else None,
        shared=shared,
        branches=[[_box(each) for each in path[len(shared) :]] for path in branches],
    )


def _box(symbol: Symbol) -> Box:
    assert symbol.box is not None
    return symbol.box
