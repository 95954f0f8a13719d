"""What a component says of itself, for people: what its docstring, its options' types and its validators state."""

import ast
import inspect
import itertools
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from lmx_core.config import STATED, Field, readable
from lmx_core.factories import OF_ANY, arguments
from lmx_core.inventory import PAPER
from lmx_core.serialize import plain

REQUIRED = inspect.Parameter.empty
FULL = {"fullmatch": "^(?:{})$", "match": "^(?:{})"}


@attrs.frozen(kw_only=True)
class Option:
    """One field of an `Options` class, or one argument of an architecture."""

    name: str
    type: str
    default: Any
    """As a file writes it; `REQUIRED` where there is none."""
    rule: str = ""
    """What its validators ask beyond the type: `> 0`."""
    doc: str = ""


@attrs.frozen(kw_only=True)
class Description:
    """A component in words."""

    summary: str
    """The first paragraph of its docstring."""
    papers: Sequence[str]
    """arXiv numbers in it."""
    options: Sequence[Option]
    sizes: Mapping[str, Mapping[str, Any]] = {}
    """Of an architecture: names for sets of its arguments."""


def describe(component: Any) -> Description:
    """The component with its options, or an architecture with its arguments and sizes."""
    text = inspect.cleandoc(_docstring(component))
    options = getattr(component, "Options", None)
    return Description(
        summary=" ".join(text.split("\n\n")[0].split()),
        papers=list(dict.fromkeys(PAPER.findall(text))),
        options=fields_of(options) if options else _arguments(component) if inspect.isfunction(component) else [],
        sizes=getattr(component, "sizes", {}),
    )


def fields_of(cls: type) -> list[Option]:
    """The fields of an attrs class, inherited ones included, as its source documents them."""
    docs = field_docs(cls)
    return [
        Option(
            name=field.alias or field.name,
            type=_type(field),
            default=default_of(field),
            rule=", ".join(_words(*rule) for rule in rules(stated(field))),
            doc=docs.get(field.alias or field.name, ""),
        )
        for field in resolved(cls)
        if field.init
    ]


def resolved(cls: type) -> Sequence[Field]:
    """The fields with their types; texts where the class names types that its module lacks when it runs."""
    with suppress(NameError):
        attrs.resolve_types(cls)
    return attrs.fields(cls)


def default_of(field: Field) -> Any:
    """What the field is unless given, `REQUIRED` where it must be; a factory that needs the instance counts as unknown."""
    if field.default is attrs.NOTHING:
        return REQUIRED
    made = getattr(field.default, "factory", None)
    if made is None:
        return plain(field.default)
    return None if getattr(field.default, "takes_self", False) else plain(made())


def stated(field: Field) -> Any:
    """The validator that the class states."""
    return field.metadata.get(STATED, field.validator)


def rules(validator: Any) -> Iterator[tuple[str, Any]]:
    """What attrs' validators ask of a value, one after the other: `(">", 0)`, `("in", (1, 2))`, `("like", "^(?:[a-z]+)$")`.

    One of the author's own is `("named", "even")`.
    """
    if isinstance(validator, list | tuple):
        several: Any = validator
        yield from (rule for each in several for rule in rules(each))
        return
    match vars_of(validator):
        case {"compare_op": operator, "bound": bound}:
            yield operator, bound
        case {"options": options}:
            yield "in", options if isinstance(options, Sequence) else sorted(options, key=str)
        case {"min_length": length}:
            yield "at least", length
        case {"max_length": length}:
            yield "at most", length
        case {"pattern": pattern, "match_func": match}:
            yield "like", FULL.get(match.__name__, "{}").format(pattern.pattern)
        case {"_validators": several}:
            yield from rules(several)
        case {"validator": inner}:
            yield from rules(inner)
        case _:
            if name := getattr(validator, "__name__", "").strip("_"):
                yield "named", name


def vars_of(validator: Any) -> Mapping[str, Any]:
    """What one of attrs' validators was made with."""
    cls = type(validator)
    return {field.name: getattr(validator, field.name) for field in attrs.fields(cls)} if attrs.has(cls) else {}


def field_docs(cls: type) -> dict[str, str]:
    """The text below each field, by the name that a file writes; nothing where the source is not available."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        with suppress(OSError, TypeError, SyntaxError):
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
            docs |= {name.lstrip("_"): text for name, text in _documented(tree.body[0])}
    for name, value in inspect.getmembers_static(cls, lambda value: isinstance(value, property)):
        docs.setdefault(name, _one_line(value.__doc__ or ""))
    return docs


def _documented(node: ast.AST) -> Iterator[tuple[str, str]]:
    body = node.body if isinstance(node, ast.ClassDef) else []
    for statement, below in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match below:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.target.id, _one_line(text)
                case _:
                    pass


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _docstring(component: Any) -> str:
    """Its own, not that of its base or of the class of an object such as a command."""
    if inspect.isclass(component) or inspect.isroutine(component):
        return component.__doc__ or ""
    return getattr(component, "help", None) or ""


def _type(field: Field) -> str:
    if isinstance(field.type, str):
        return field.type
    kind = field.metadata.get("kind")
    return readable(field.type).replace("ComponentSpec", f"{kind} by name") if kind else readable(field.type)


def _arguments(function: Callable[..., Any]) -> list[Option]:
    return [
        Option(
            name=each.name,
            type="" if each.annotation is REQUIRED else readable(each.annotation),
            default=each.default if each.default is REQUIRED else plain(each.default),
        )
        for each in (arguments(function)[0] | OF_ANY).values()
    ]


def _words(rule: str, value: Any) -> str:
    match rule:
        case "in":
            return f"one of {', '.join(map(str, value))}"
        case "at least" | "at most":
            return f"{rule} {value} long"
        case "named":
            return value.replace("_", " ")
        case _:
            return f"{rule} {value}"
