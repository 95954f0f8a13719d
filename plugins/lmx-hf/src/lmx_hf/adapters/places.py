"""Where in a checkpoint a change belongs, and the new tensor."""

import re
from collections.abc import Callable, Iterator

import attrs
import mlx.core as mx
from mlx.core import array

from lmx_hf.adapters.changes import Change, Misfit, Wanted
from lmx_hf.adapters.names import Names, canonical
from lmx_hf.adapters.stored import Stored
from lmx_hf.transforms import Tensors

STACK = re.compile(r"(.*\bexperts)\.(gate_up_proj|gate_proj|up_proj|down_proj)")
HALVES = ("gate_proj", "up_proj")
Asked = Callable[[str], bool]
"""A question about a tensor of the checkpoint, by its name."""


@attrs.frozen(eq=False)
class Place:
    """A tensor, or the rows of it that are the gate's (half 0) or those of the projection beside it (half 1)."""

    name: str
    change: Change
    half: int | None = None
    turned: bool = False
    """Whether the tensor is stored (in, out)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole tensor, as `nn.Linear` has it."""
        if self.half is None:
            return self.change.shape
        *experts, rows, columns = self.change.shape
        return (*experts, 2 * rows, columns)


@attrs.frozen
class Places:
    """A checkpoint's tensors and their layouts."""

    tensors: Tensors
    names: Names
    transposed: Asked
    interleaved: Asked

    def of(self, wanted: Wanted) -> list[Place]:
        """Those of the one option that fits. `Misfit` says why there is none."""
        fitting: list[tuple[str, list[Place]]] = []
        faults = list(wanted.faults)
        for target, change in wanted.options:
            try:
                if found := self._candidates(target, change):
                    fitting.append((target, [attrs.evolve(each, turned=self._turned(each)) for each in found]))
            except Misfit as fault:
                faults.append(f"{target} {fault}" if len(wanted.options) > 1 else str(fault))
        if len(fitting) > 1:
            raise Misfit(f"fits {' and '.join(target for target, _ in fitting)}, and which is meant cannot be told")
        if not fitting:
            raise Misfit("; ".join(faults) or self._missing([target for target, _ in wanted.options]))
        return fitting[0][1]

    def filled(self, place: Place) -> array:
        """The tensor with the change made, dense and lazy."""
        turned = place.turned
        weight = Stored.at(self.tensors, place.name).dense(place.shape[-2] if turned else place.shape[-1])
        if place.half is None:
            return place.change.on(weight, turned)
        axis, in_turn = (weight.ndim - 1 if turned else weight.ndim - 2), self.interleaved(place.name)
        halves = _halves(weight, axis, in_turn)
        halves[place.half] = place.change.on(halves[place.half], turned)
        return _joined(halves, axis, in_turn)

    def _missing(self, targets: list[str]) -> str:
        return f"the checkpoint has no {' or '.join(targets)}. {self.names.near(targets[-1])}".rstrip()

    def _candidates(self, target: str, change: Change) -> list[Place]:
        named = self.names.find(target)
        if len(named) > 1:
            raise Misfit(f"the checkpoint has {' and '.join(named)}, and which is meant cannot be told")
        if named:
            return [Place(named[0], change)]
        stack = STACK.fullmatch(canonical(target))
        if not stack or change.stored is False:  # a whole tensor of transformers has a layout of its own
            return []
        return list(self._of_experts(stack[1], stack[2], change))

    def _of_experts(self, stem: str, leaf: str, change: Change) -> Iterator[Place]:
        """Of all experts at once, where the checkpoint has them one by one, or gate and up projection otherwise."""
        if leaf == "gate_up_proj":
            for half, each in enumerate(HALVES):
                yield from self._of_half(stem, each, change, half)
        elif names := self.names.experts(stem, leaf):
            for number, name in enumerate(names):
                yield Place(name, _expert(change, number, len(names)))
        elif leaf in HALVES and (both := self.names.one(f"{stem}.gate_up_proj")):
            yield Place(both, change, HALVES.index(leaf))

    def _of_half(self, stem: str, leaf: str, change: Change, half: int) -> Iterator[Place]:
        each, stacked = self.names.experts(stem, leaf), self.names.one(f"{stem}.{leaf}")
        first = each[0] if each else stacked
        if first is None:
            return
        size, odd = divmod(change.shape[-2], 2)
        if odd:
            raise Misfit(f"has {change.shape[-2]} rows, which are no gate and as many again")
        in_turn = self.interleaved(first)
        rows = change.rows(slice(half, None, 2) if in_turn else slice(half * size, (half + 1) * size))
        for number, name in enumerate(each):
            yield Place(name, _expert(rows, number, len(each)))
        if not each:
            yield Place(first, rows)

    def _turned(self, place: Place) -> bool:
        """Whether the tensor is stored (in, out): by the shapes, and where both are alike by what is known of it.

        MLX packs numbers along the input, so that a square that is packed is stored as `nn.Linear` has it.
        """
        stored, natural = Stored.at(self.tensors, place.name), place.shape
        known = place.change.stored
        fits = [False] if stored.shape(natural) == natural and known is not True else []
        if len(natural) > 1 and known is not False:
            swapped = (*natural[:-2], natural[-1], natural[-2])
            fits += [True] if stored.shape(swapped) == swapped else []
        if not fits:
            raise Misfit(f"is for a tensor of shape {natural}, and {place.name} has {stored}")
        return fits[0] if len(fits) == 1 else stored.scales is None and self.transposed(place.name)


def _expert(change: Change, number: int, count: int) -> Change:
    if len(change.shape) != 3 or change.shape[0] != count:
        raise Misfit(f"is for a tensor of shape {change.shape}, and the checkpoint has {count} experts")
    return change.expert(number)


def _halves(weight: array, axis: int, in_turn: bool) -> list[array]:
    if not in_turn:
        return list(mx.split(weight, 2, axis=axis))
    pairs = mx.unflatten(weight, axis, (-1, 2))
    return [mx.take(pairs, half, axis=axis + 1) for half in (0, 1)]


def _joined(halves: list[array], axis: int, in_turn: bool) -> array:
    return mx.stack(halves, axis=axis + 1).flatten(axis, axis + 1) if in_turn else mx.concatenate(halves, axis=axis)
