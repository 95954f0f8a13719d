"""What a component says of itself is what its source says."""

from typing import Any, Literal

import attrs
import pytest
from attrs import validators

from lmx_core import BlockConfig
from lmx_core.builtin import BUILTIN
from lmx_core.config import ComponentSpec, exact_types
from lmx_core.describe import REQUIRED, Option, describe, fields_of
from lmx_core.registry import registry
from lmx_core.train.config import TrainConfig


def even(instance, attribute, value):
    if value % 2:
        raise ValueError("must be even")


@attrs.frozen(kw_only=True)
class Base:
    width: int = attrs.field(default=4, validator=[validators.gt(0), even])
    """How wide
    it is."""


@attrs.frozen(kw_only=True)
class Options(Base):
    """Options of a test."""

    rank: int
    """Inherited ones come first."""
    _hidden: float | None = attrs.field(default=None, validator=validators.optional(validators.le(1)))
    """By the name that a file writes."""
    mode: Literal["a", "b"] = "a"
    names: list[str] = attrs.field(factory=list, validator=validators.min_len(1))
    code: str = attrs.field(default="x", validator=validators.matches_re("[a-z]"))
    choice: str = attrs.field(default="x", validator=validators.in_(["x", "y"]))
    part: ComponentSpec | None = attrs.field(default=None, metadata={"kind": "ffn"})
    table: dict[str, int] = attrs.field(factory=lambda: {"a": 1})
    """Between two fields there may be another statement."""
    limit = 3
    """No field."""


class Component:
    """What it computes,
    in a line (arXiv:2104.09864).

    More of it, and arXiv:1706.03762 again: arXiv:2104.09864.
    """

    Options = Options


def test_each_field_is_described():
    assert fields_of(Options) == [
        Option(name="width", type="int", default=4, rule="> 0, even", doc="How wide it is."),
        Option(name="rank", type="int", default=REQUIRED, doc="Inherited ones come first."),
        Option(name="hidden", type="float or none", default=None, rule="<= 1", doc="By the name that a file writes."),
        Option(name="mode", type="'a' or 'b'", default="a"),
        Option(name="names", type="a list of str", default=[], rule="at least 1 long"),
        Option(name="code", type="str", default="x", rule="like ^(?:[a-z])$"),
        Option(name="choice", type="str", default="x", rule="one of x, y"),
        Option(name="part", type="ffn by name or none", default=None),
        Option(
            name="table",
            type="a table of int",
            default={"a": 1},
            doc="Between two fields there may be another statement.",
        ),
    ]


def test_a_component_is_summarised():
    about = describe(Component)
    assert about.summary == "What it computes, in a line (arXiv:2104.09864)."
    assert about.papers == ["arXiv:2104.09864", "arXiv:1706.03762"]
    assert [option.name for option in about.options][:2] == ["width", "rank"]


def test_classes_that_check_their_types_still_state_their_rules():
    """`exact_types` wraps the validators of all of core's configs."""
    found = {field.name: field for field in fields_of(TrainConfig)}
    assert found["max_steps"].rule == "> 0, < 2147483648"
    assert found["max_seconds"].rule == "> 0"
    assert found["dtype"].type == "'auto' or 'float32' or 'bfloat16' or 'float16'"
    assert found["optimizer"] == Option(name="optimizer", type="optimizer by name", default="adamw")

    @attrs.frozen(field_transformer=exact_types)
    class Strict:
        size: int = attrs.field(default=2, validator=even)

    assert fields_of(Strict)[0].rule == "even"
    with pytest.raises(ValueError, match="size: must be even"):
        Strict(3)


def test_a_property_speaks_for_its_private_field():
    (heads,) = [field for field in fields_of(BlockConfig) if field.name == "n_kv_heads"]
    assert heads.doc == "Key/value heads; `n_heads` unless given."


def test_without_source_there_are_no_docs():
    """As in a frozen program or an interactive session."""
    space: dict[str, Any] = {"attrs": attrs, "__name__": "nowhere"}
    exec('@attrs.frozen\nclass Made:\n    size: int = 3\n    """Its size."""\n', space)
    assert fields_of(space["Made"]) == [Option(name="size", type="int", default=3)]
    later = "from __future__ import annotations\nimport attrs\n@attrs.frozen\nclass Made:\n    size: NoSuch = None\n"
    exec(compile(later, "later", "exec"), space)
    assert fields_of(space["Made"]) == [Option(name="size", type="NoSuch", default=None)]


def test_an_architecture_is_described_by_its_arguments():
    about = describe(registry("config").get("llama"))
    assert about.options[1] == Option(name="d_model", type="int", default=4096)
    assert {"tiny", "7b", "13b", "70b"} <= set(about.sizes)
    assert about.papers[:2] == ["arXiv:2302.13971", "arXiv:2307.09288"]


@pytest.mark.parametrize("key", BUILTIN)
def test_everything_of_core_says_what_it_is(key):
    kind, _, name = key.partition(".")
    assert describe(registry(kind).get(name)).summary
