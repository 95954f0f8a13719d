"""Rules are read and written, and the first that has all of its tensors counts."""

import mlx.core as mx
import pytest

from lmx_hf.rules import Rule, reading, writing
from lmx_hf.transforms import Aside, InTurn, Parts, Raised, Reversed, Same, Stacked

pytestmark = pytest.mark.once

ROWS = mx.arange(12).reshape(6, 2)
WHOLE_FIRST = [
    Rule(["layers.{i}.k.weight", "layers.{i}.k.scales"], "layers.{i}.keys.weight"),
    Rule("layers.{i}.k.{p}", "layers.{i}.key.{p}"),
]


def written(rules, names, n=1):
    uses, left = writing(rules, names, lambda name: n)
    return [(use.theirs, use.ours) for use in uses], left


def read(rules, names):
    uses, left = reading(rules, names)
    return [(use.theirs, use.ours) for use in uses], left


def test_a_rule_of_which_a_part_is_missing_leaves_its_tensors_to_later_ones():
    """Layer by layer."""
    names = ["layers.0.k.weight", "layers.0.k.scales", "layers.1.k.weight"]
    assert read(WHOLE_FIRST, names) == (
        [(names[:2], ["layers.0.keys.weight"]), (names[2:], ["layers.1.key.weight"])],
        [],
    )


def test_what_no_rule_has_in_full_is_left():
    names = ["experts.0.weight", "experts.2.weight", "other.weight"]
    assert read([Rule("experts.{e}.weight", "experts.weight", Stacked())], names) == ([], names)


def test_the_first_rule_that_has_the_parameters_writes():
    names = ["layers.0.key.weight", "layers.1.keys.weight"]
    rules = [*WHOLE_FIRST, Rule("layers.{i}.old.weight", "layers.{i}.key.weight")]
    assert written(rules, names) == (
        [(["layers.0.k.weight"], names[:1]), (["layers.1.k.weight", "layers.1.k.scales"], names[1:])],
        [],
    )


def test_rules_of_layers_hold_in_them_alone():
    rules = [Rule("layers.{i}.a", "layers.{i}.b", layers=[1]), Rule("layers.{i}.a", "layers.{i}.c")]
    assert read(rules, ["layers.0.a", "layers.1.a"])[0] == [
        (["layers.0.a"], ["layers.0.c"]),
        (["layers.1.a"], ["layers.1.b"]),
    ]


def test_experts_are_written_one_by_one():
    rules = [Rule("{i}.experts.{e}.weight", "{i}.experts.weight", Stacked())]
    assert written(rules, ["3.experts.weight"], 2)[0] == [
        (["3.experts.0.weight", "3.experts.1.weight"], ["3.experts.weight"])
    ]


BY_GROUPS = Aside(((2, 1, Reversed(Parts((2, 2)))), (1, 1, Same())))


@pytest.mark.parametrize(
    ("how", "theirs", "ours"),
    [
        (Raised(1.0), [ROWS + 1.0], [ROWS]),
        (InTurn((1, 2)), [ROWS], [ROWS[[0, 3]], ROWS[[1, 2, 4, 5]]]),
        (BY_GROUPS, [ROWS[:2], ROWS[2:4], ROWS[4:]], [ROWS[:4], ROWS[4:]]),
    ],
)
def test_transforms_go_both_ways(how, theirs, ours):
    for found, expected in ((how.read(theirs), ours), (how.write(ours), theirs)):
        assert len(found) == len(expected)
        assert all(mx.array_equal(one, other).item() for one, other in zip(found, expected, strict=True))
