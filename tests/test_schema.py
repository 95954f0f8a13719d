"""What the JSON Schema of a component's options accepts is what a config may hold."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import attrs
import pytest
from attrs import validators
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lmx_core.builtin import BUILTIN
from lmx_core.config import ComponentSpec, ModelConfig, exact_types
from lmx_core.describe import describe, fields_of, rules, stated
from lmx_core.errors import ConfigError
from lmx_core.factories import argument_problems, with_sizes
from lmx_core.registry import registry
from lmx_core.schema import options_schema
from lmx_core.serialize import structure


def even(instance, attribute, value):
    if value % 2:
        raise ValueError("must be even")


@attrs.frozen(kw_only=True)
class Inner:
    size: int = attrs.field(default=1, validator=validators.gt(0))
    """How large it is."""


@attrs.frozen(kw_only=True)
class EveryKind:
    """A field of every kind that a file can hold."""

    needed: int
    number: int = attrs.field(default=3, validator=[validators.ge(1), validators.lt(9)])
    """A number
    in a range."""
    real: float = attrs.field(default=0.5, validator=validators.and_(validators.gt(0), validators.le(1)))
    flag: bool = True
    text: str = attrs.field(default="abc", validator=[validators.min_len(1), validators.max_len(4)])
    code: str = attrs.field(default="a", validator=validators.matches_re("[a-c]+"))
    choice: Literal["a", "b", 3] = "a"
    listed: str = attrs.field(default="x", validator=validators.in_(["x", "y"]))
    maybe: int | None = attrs.field(default=None, validator=validators.optional(validators.gt(0)))
    set_or_none: float | None = 1.0
    never_none: int | None = attrs.field(default=4, validator=validators.gt(3))
    items: tuple[int, ...] = attrs.field(default=(), validator=validators.max_len(3))
    pair: tuple[float, float] = (0.9, 0.95)
    names: list[str] = attrs.field(factory=list)
    holes: list[int | None] = attrs.field(factory=list)
    series: Sequence[int] = ()
    one_or_more: Sequence[str] | str = "x"
    table: dict[str, int] = attrs.field(factory=dict)
    frozen_table: Mapping[str, bool] = attrs.field(factory=dict)
    record: Inner | None = None
    records: tuple[Inner, ...] = ()
    part: ComponentSpec = attrs.field(default="gated", metadata={"kind": "ffn"})
    part_or_none: ComponentSpec | None = attrs.field(default=None, metadata={"kind": "norm"})
    anything: Any = None


@attrs.frozen(kw_only=True, field_transformer=exact_types)
class Checked:
    """The same promise where the class holds itself to its types."""

    number: int = attrs.field(default=3, validator=[validators.ge(1), validators.lt(9)])
    maybe: float | None = attrs.field(default=None, validator=validators.optional(validators.le(1)))
    choice: Literal["a", "b"] = "a"


def component(options):
    """A component with these options."""
    return type("Component", (), {"__doc__": "It does something (arXiv:2104.09864).", "Options": options})


INSTALLED = sorted(
    key for key in BUILTIN if getattr(registry(key.split(".")[0]).get(key.split(".")[1]), "Options", None) is not None
)


def installed(key):
    return registry(key.split(".")[0]).get(key.split(".")[1])


def accepted(data, cls):
    try:
        structure(data, cls, "the options")
    except ConfigError:
        return False
    return True


# 1.0 is an integer to JSON Schema and no int to us: it is in no data here, and has a test of its own.
numbers = st.integers(-3, 12) | st.sampled_from([-0.5, 0.25, 0.5, 1.5, 12.5])
texts = st.sampled_from(["", "a", "b", "x", "abc", "abcd", "abcde", "none", "gelu", "silu", "gated", "1"])
scalars = st.none() | st.booleans() | numbers | texts
data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "name", "size"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def tables(cls):
    """Tables with keys of the class, each value its default or anything."""
    return st.dictionaries(st.sampled_from([*(field.name for field in fields_of(cls)), "unknown"]), data, max_size=3)


def disagreement(cls, found):
    """A table on which the schema and `structure` differ."""
    by_schema, by_us = validator(cls).is_valid(found), accepted(found, cls)
    return None if by_schema == by_us else (found, by_schema, by_us)


@cache
def validator(cls):
    return Draft202012Validator(options_schema("x.y", component(cls)))


@settings(max_examples=400, deadline=None)
@given(tables(EveryKind))
def test_the_schema_accepts_what_a_config_may_hold(found):
    assert disagreement(EveryKind, found) is None
    assert disagreement(EveryKind, {"needed": 1, **found}) is None


VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    4,
    8,
    9,
    0.25,
    1.5,
    "",
    "a",
    "b",
    "x",
    "abc",
    "abcd",
    "abcde",
    "none",
    "d",
    "a\nb",
]
VALUES += [
    [],
    [1],
    [0.5, 1],
    [1, 2, 3],
    [1, 2, 3, 4],
    ["a"],
    ["a", 1],
    [None],
    ["none"],
    [True],
    [[1]],
    [{}],
    [{"size": 2}],
]
VALUES += [{}, {"a": 1}, {"a": True}, {"a": "x"}, {"size": 2}, {"size": 0}, {"siz": 2}, {"name": "x"}, {"name": 3}]


@pytest.mark.parametrize("name", [field.name for field in fields_of(EveryKind)])
def test_each_kind_of_field_accepts_some_and_refuses_some(name):
    """Every value at every kind of field; which of the two happens is seen, too."""
    tables = [{"needed": 1, name: value} for value in VALUES]
    assert [found for found in tables if disagreement(EveryKind, found)] == []
    assert {accepted(found, EveryKind) for found in tables} == ({True} if name == "anything" else {True, False})


@settings(max_examples=100, deadline=None)
@given(tables(Checked))
def test_so_it_does_where_the_class_checks_itself(found):
    assert disagreement(Checked, found) is None


@pytest.mark.parametrize("key", INSTALLED)
def test_so_it_does_for_core(key):
    """Where a component has rules of its own, they come on top."""
    cls = installed(key).Options
    own_rules = hasattr(cls, "__attrs_post_init__") or any(
        rule == "named" for field in attrs.fields(cls) for rule, _ in rules(stated(field))
    )

    @settings(max_examples=40, deadline=None)
    @given(tables(cls))
    def agree(found):
        differs = disagreement(cls, found)
        assert differs is None or (own_rules and differs[1:] == (True, False))

    agree()


def test_core_has_options_to_describe():
    assert {"ffn.gated", "optimizer.adamw", "dataset.text"} <= set(INSTALLED)


@pytest.mark.parametrize("described", [component(EveryKind), component(Checked), *map(installed, INSTALLED)])
def test_a_schema_is_one(described):
    """It is valid by the draft that it names, is JSON, and accepts every default that it states."""
    schema = json.loads(json.dumps(options_schema("x.y", described), allow_nan=False))
    Draft202012Validator.check_schema(schema)
    for name, field in schema["properties"].items():
        if "default" in field:
            assert not list(Draft202012Validator(field).iter_errors(field["default"])), name


def test_integers_in_disguise_are_the_one_difference():
    assert disagreement(Checked, {"number": 3.0}) == ({"number": 3.0}, True, False)


def test_a_schema_reads_like_this():
    schema = options_schema("attention.x", component(EveryKind))
    assert schema["title"] == "attention.x"
    assert schema["description"] == "It does something (arXiv:2104.09864)."
    assert schema["required"] == ["needed"]
    assert schema["properties"]["number"] == {
        "type": "integer",
        "minimum": 1,
        "exclusiveMaximum": 9,
        "description": "A number in a range.",
        "default": 3,
    }
    assert schema["properties"]["maybe"]["anyOf"] == [
        {"type": "integer", "exclusiveMinimum": 0},
        {"enum": [None, "none"]},
    ]
    assert schema["properties"]["maybe"]["default"] == "none"


def test_rules_of_the_authors_own_are_not_in_it():
    """They hold all the same."""

    @attrs.frozen(kw_only=True)
    class Even:
        size: int = attrs.field(default=2, validator=even)

    assert disagreement(Even, {"size": 3}) == ({"size": 3}, True, False)


def test_a_component_without_options_takes_none():
    assert not Draft202012Validator(options_schema("norm.none", object())).is_valid({"a": 1})


@with_sizes(tiny={"width": 2, "depth": 1}, large={"width": 8})
def every_argument(
    width: int,
    *,
    depth: int | None,
    share: float = 0.5,
    flag: bool = True,
    mode: Literal["a", "b"] = "a",
    names: list[str] = (),
    pair: tuple[float, float] = (0.9, 0.95),
    table: dict[str, int] = {},  # noqa: B006
    several: Sequence = (),
    thing: object = None,
    anything: Any = None,
    untyped=None,
    unknown_type: "NoSuch" = None,
) -> ModelConfig:
    """An architecture with an argument of every kind."""


def open_ended(*, width: int = 3, **more: Any) -> ModelConfig:
    """An architecture that takes any argument."""


@pytest.fixture(scope="module")
def architectures():
    """Two of a test's own, and those that are installed."""
    own = {"every": every_argument, "open": open_ended}
    for name, factory in own.items():
        registry("config").register(name)(factory)
    yield {name: registry("config").get(name) for name in [*own, "gpt", "llama"]}
    for name in own:
        registry("config").unregister(name)


SIZES = [None, "tiny", "large", "7b", "small", "huge"]


@pytest.mark.parametrize("name", ["every", "open", "gpt", "llama"])
def test_the_schema_of_an_architecture_accepts_what_it_takes(architectures, name):
    """Exactly so where types are plain; a list that stands for a tuple is one that only the schema accepts."""
    factory = architectures[name]
    schema = Draft202012Validator(options_schema(f"config.{name}", factory))
    Draft202012Validator.check_schema(schema.schema)
    keys = [*(option.name for option in describe(factory).options), "unknown"]
    seen = set()

    @settings(max_examples=300, deadline=None)
    @given(st.dictionaries(st.sampled_from(keys), data, max_size=3), st.sampled_from(SIZES))
    def agree(numbers, size):
        taken = not argument_problems(name, size, numbers)
        valid = schema.is_valid({**numbers, "size": size}) and (size is not None or schema.is_valid(numbers))
        assert valid >= taken, (numbers, size)
        assert valid == taken or "pair" in numbers, (numbers, size)
        seen.add(valid)

    agree()
    assert seen == {True, False}


def test_the_schema_of_an_architecture_reads_like_this():
    schema = options_schema("config.every", every_argument)
    validator = Draft202012Validator(schema)
    assert schema["properties"]["size"]["enum"] == ["tiny", "large", None]
    assert schema["properties"]["share"] == {"type": "number", "default": 0.5}
    assert [validator.is_valid(table) for table in ({}, {"size": "large"}, {"width": 3})] == [False] * 3
    assert [validator.is_valid(table) for table in ({"size": "tiny"}, {"size": "large", "depth": None})] == [True] * 2
    llama = options_schema("config.llama", registry("config").get("llama"))
    assert llama["properties"]["d_model"] == {"type": "integer", "default": 4096}
    assert llama["additionalProperties"] is False
    assert not Draft202012Validator(llama).is_valid({"d_modl": 3})
