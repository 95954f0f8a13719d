"""How tensors of a checkpoint and parameters of lmx become each other, as data that is read in both directions.

A `Rule` has templates of names on both sides. `{i}` in one stands for the number of a layer, `{e}` for that of an expert,
which lmx keeps in one array, and `{p}` for what a layer has under its name: weight, bias, and scales and biases of packed
weights.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import mlx.core as mx

Tensors = dict[str, mx.array]
Arrays = Sequence[mx.array]
PLACES = {"i": r"\d+", "e": r"\d+", "p": "weight|bias|scales|biases"}
PLACE = re.compile(r"\{(\w)\}")


class Transform(Protocol):
    """Arrays under names of the checkpoint as arrays under names of lmx, and back; in the order of the rule's names."""

    def read(self, arrays: Arrays) -> Arrays: ...

    def write(self, arrays: Arrays) -> Arrays: ...


@attrs.frozen
class Same:
    """As they are."""

    def read(self, arrays: Arrays) -> Arrays:
        return arrays

    def write(self, arrays: Arrays) -> Arrays:
        return arrays


@attrs.frozen
class Parts:
    """One tensor of theirs is several of lmx, one after the other along an axis, of these sizes or all of one size."""

    sizes: Sequence[int]
    axis: int = 0

    def read(self, arrays: Arrays) -> Arrays:
        ends = [sum(self.sizes[: i + 1]) for i in range(len(self.sizes) - 1)]
        (whole,) = arrays
        if whole.shape[self.axis] != sum(self.sizes):
            raise ValueError(f"has {whole.shape[self.axis]} rows, the config asks for {sum(self.sizes)}")
        return list(mx.split(whole, ends, axis=self.axis))

    def write(self, arrays: Arrays) -> Arrays:
        return [mx.concatenate(list(arrays), axis=self.axis)]


@attrs.frozen
class Equal:
    """One tensor of theirs is `n` of lmx, one after the other along an axis, all of one size."""

    n: int
    axis: int = 0

    def read(self, arrays: Arrays) -> Arrays:
        return list(mx.split(arrays[0], self.n, axis=self.axis))

    def write(self, arrays: Arrays) -> Arrays:
        return [mx.concatenate(list(arrays), axis=self.axis)]


@attrs.frozen
class InTurn:
    """Rows of one tensor of theirs take turns: so many of the first of lmx, so many of the second, ..., over and over.

    Falcon's queries, keys and values: for each key/value head the queries that read it, then it, then its values.
    """

    sizes: Sequence[int]
    axis: int = 0

    def read(self, arrays: Arrays) -> Arrays:
        (whole,) = arrays
        turns = whole.shape[self.axis] // sum(self.sizes)
        apart = mx.unflatten(whole, self.axis, (turns, sum(self.sizes)))
        return [part.flatten(self.axis, self.axis + 1) for part in Parts(self.sizes, self.axis + 1).read([apart])]

    def write(self, arrays: Arrays) -> Arrays:
        apart = [mx.unflatten(each, self.axis, (-1, size)) for each, size in zip(arrays, self.sizes, strict=True)]
        return [mx.concatenate(apart, axis=self.axis + 1).flatten(self.axis, self.axis + 1)]


@attrs.frozen
class Turned:
    """Matrices stored (in, out); vectors are as they are, and packed weights, which all are (out, in)."""

    def read(self, arrays: Arrays) -> Arrays:
        return [each.swapaxes(-1, -2) if each.ndim > 1 and each.dtype != mx.uint32 else each for each in arrays]

    write = read


@attrs.frozen
class Stacked:
    """Several tensors of theirs are one of lmx, along a new first axis."""

    def read(self, arrays: Arrays) -> Arrays:
        return [mx.stack(list(arrays))]

    def write(self, arrays: Arrays) -> Arrays:
        return [each.squeeze(0) for each in mx.split(arrays[0], arrays[0].shape[0])]


@attrs.frozen
class Squeezed:
    """Without an axis of length 1."""

    axis: int

    def read(self, arrays: Arrays) -> Arrays:
        return [each.squeeze(self.axis) for each in arrays]

    def write(self, arrays: Arrays) -> Arrays:
        return [mx.expand_dims(each, self.axis) for each in arrays]


@attrs.frozen
class Beside:
    """The last tensors of theirs are no parameters of lmx, and always have these values."""

    values: Sequence[float]

    def read(self, arrays: Arrays) -> Arrays:
        return arrays[: -len(self.values)]

    def write(self, arrays: Arrays) -> Arrays:
        return [*arrays, *(mx.array(value, arrays[0].dtype) for value in self.values)]


@attrs.frozen
class Shaped:
    """Of another shape in lmx."""

    theirs: Sequence[int]
    ours: Sequence[int]

    def read(self, arrays: Arrays) -> Arrays:
        return [each.reshape(self.ours) for each in arrays]

    def write(self, arrays: Arrays) -> Arrays:
        return [each.reshape(self.theirs) for each in arrays]


@attrs.frozen
class Raised:
    """Larger by this in the checkpoint: norms whose weight is meant as it is, where lmx has `1 + weight`."""

    by: float

    def read(self, arrays: Arrays) -> Arrays:
        return [each - self.by for each in arrays]

    def write(self, arrays: Arrays) -> Arrays:
        return [each + self.by for each in arrays]


@attrs.frozen
class Aside:
    """Transforms side by side: each with how many tensors it has in the checkpoint, and how many in lmx."""

    parts: Sequence[tuple[int, int, Transform]]

    def read(self, arrays: Arrays) -> Arrays:
        rest = iter(arrays)
        return [one for theirs, _, how in self.parts for one in how.read([next(rest) for _ in range(theirs)])]

    def write(self, arrays: Arrays) -> Arrays:
        rest = iter(arrays)
        return [one for _, ours, how in self.parts for one in how.write([next(rest) for _ in range(ours)])]


@attrs.frozen
class Reversed:
    """A transform the other way round."""

    transform: Transform

    def read(self, arrays: Arrays) -> Arrays:
        return self.transform.write(arrays)

    def write(self, arrays: Arrays) -> Arrays:
        return self.transform.read(arrays)


@attrs.frozen(init=False)
class Chain:
    """One transform after the other, as they are read."""

    steps: tuple[Transform, ...]

    def __init__(self, *steps: Transform) -> None:
        self.__attrs_init__(steps)  # pyright: ignore[reportAttributeAccessIssue]

    def read(self, arrays: Arrays) -> Arrays:
        for step in self.steps:
            arrays = step.read(arrays)
        return arrays

    def write(self, arrays: Arrays) -> Arrays:
        for step in reversed(self.steps):
            arrays = step.write(arrays)
        return arrays


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@attrs.frozen
class Rule:
    """Tensors of a checkpoint that are parameters of lmx; of several rules for one name the first counts that has all of
    its tensors.

    A checkpoint is written by the first rule that has the parameters, so that the form which is published comes first, and
    others that are found stand after it.
    """

    theirs: tuple[str, ...] = attrs.field(converter=_names)
    ours: tuple[str, ...] = attrs.field(converter=_names)
    how: Transform = Same()
    layers: Collection[int] | None = None
    """The layers in which it holds; all, unless given."""
    full: bool = False
    """Whether `theirs` are whole names, with the prefix of the model: mlx-lm has some weights another way round under one."""

    def has(self, binding: Mapping[str, str]) -> bool:
        return self.layers is None or int(binding["i"]) in self.layers


@attrs.define
class Use:
    """A rule with what it was found for: `theirs` and `ours` are whole names."""

    rule: Rule
    theirs: list[str]
    ours: list[str]


def reading(rules: Sequence[Rule], names: Iterable[str]) -> tuple[list[Use], list[str]]:
    """What the tensors of a checkpoint are in lmx; and those that no rule knows, or of which a part is missing."""
    groups, left = _grouped(rules, names, [rule.theirs for rule in rules])
    return [Use(each.rule, each.names, each.filled(each.rule.ours)) for each in groups], left


def writing(rules: Sequence[Rule], names: Iterable[str], experts: Callable[[str], int]) -> tuple[list[Use], list[str]]:
    """What parameters of lmx are in a checkpoint; `experts(name)` says how many there are in one."""
    groups, left = _grouped(rules, names, [rule.ours for rule in rules])
    uses: list[Use] = []
    for each in groups:
        numbers = range(experts(each.names[0])) if any("{e}" in name for name in each.rule.theirs) else (0,)
        theirs = [name.replace("{e}", str(e)) for name in each.filled(each.rule.theirs) for e in numbers]
        uses.append(Use(each.rule, theirs, each.names))
    return uses, left


@attrs.define
class _Group:
    """Names that one rule takes together, each with where it stands among them."""

    rule: Rule
    templates: Sequence[str]
    binding: dict[str, str]
    found: dict[tuple[int, int], str] = attrs.field(factory=dict[tuple[int, int], str])

    def is_whole(self) -> bool:
        """Every template has its name, and experts are numbered from 0 without a gap."""
        numbers = [{e for which, e in self.found if which == i} for i in range(len(self.templates))]
        return all(each and max(each) == len(each) - 1 for each in numbers)

    @property
    def names(self) -> list[str]:
        return [self.found[key] for key in sorted(self.found)]

    def filled(self, templates: Sequence[str]) -> list[str]:
        return [PLACE.sub(lambda place: self.binding.get(place[1], place[0]), template) for template in templates]


def _grouped(
    rules: Sequence[Rule], names: Iterable[str], sides: Sequence[Sequence[str]]
) -> tuple[list[_Group], list[str]]:
    """Names by the first rule that takes them and has all of its names here, which has these templates; and those that
    none takes."""
    order = {name: i for i, name in enumerate(names)}
    takers: dict[int, list[tuple[str, int, dict[str, str]]]] = {}
    candidates = _Candidates(sides)
    for name in order:
        for number, which, found in candidates.matches(name):
            if rules[number].has(found):
                takers.setdefault(number, []).append((name, which, found))
    groups: list[_Group] = []
    free = dict.fromkeys(order)
    for number in sorted(takers):
        for each in _groups_of(rules[number], sides[number], [one for one in takers[number] if one[0] in free]):
            groups.append(each)
            for name in each.names:
                free.pop(name, None)
    groups.sort(key=lambda each: order[each.names[0]])
    return groups, list(free)


def _groups_of(
    rule: Rule, templates: Sequence[str], matches: Iterable[tuple[str, int, dict[str, str]]]
) -> Iterator[_Group]:
    """The groups of one rule that are whole."""
    groups: dict[Any, _Group] = {}
    for name, which, found in matches:
        binding = {key: value for key, value in found.items() if key != "e"}
        group = groups.setdefault(tuple(sorted(binding.items())), _Group(rule, templates, binding))
        group.found[which, int(found.get("e", 0))] = name
    return (each for each in groups.values() if each.is_whole())


class _Candidates:
    """Which templates a name can have, found once for all names that differ in their numbers alone."""

    def __init__(self, sides: Sequence[Sequence[str]]) -> None:
        self._patterns = [
            (number, which, _pattern(_shape(template)), _pattern(template))
            for number, templates in enumerate(sides)
            for which, template in enumerate(templates)
        ]
        self._known: dict[str, list[tuple[int, int, re.Pattern[str]]]] = {}

    def matches(self, name: str) -> Iterator[tuple[int, int, dict[str, str]]]:
        shape = _shape(name)
        if shape not in self._known:
            found = [(number, which, exact) for number, which, alike, exact in self._patterns if alike.fullmatch(shape)]
            self._known[shape] = found
        for number, which, pattern in self._known[shape]:
            if match := pattern.fullmatch(name):
                yield number, which, match.groupdict()


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)


def _pattern(template: str) -> re.Pattern[str]:
    parts = PLACE.split(template)
    seen: set[str] = set()
    out = re.escape(parts[0])
    for key, text in zip(parts[1::2], parts[2::2], strict=True):
        out += f"(?P={key})" if key in seen else f"(?P<{key}>{PLACES[key]})"
        seen.add(key)
        out += re.escape(text)
    return re.compile(out)
