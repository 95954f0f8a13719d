"""How tensors of a checkpoint and parameters of lmx become each other, as data that is read in both directions.

A `Rule` has templates of names on both sides. `{i}` in one stands for the number of a layer, `{e}` for that of an expert,
which lmx keeps in one array, and `{p}` for what a layer has under its name: weight, bias, and scales and biases of packed
weights.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from lmx_hf.transforms import Same, Transform

PLACES = {"i": r"\d+", "e": r"\d+", "p": "weight|bias|scales|biases"}
PLACE = re.compile(r"\{(\w)\}")


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
