"""JSON Schema (draft 2020-12) of a component's options or an architecture's arguments, for editors and other programs.

It says what their types and attrs' validators say. What it cannot: a validator of the author's own, a rule over
several options, and that an int is never written 1.0, which JSON Schema takes for an integer.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from lmx_core.config import ComponentSpec, Field, as_spec, field_problem
from lmx_core.describe import REQUIRED, default_of, describe, field_docs, resolved, rules, stated
from lmx_core.exactly import NONE
from lmx_core.factories import OF_ANY, arguments, is_type
from lmx_core.serialize import plain

Schema = dict[str, Any]
DRAFT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string"}
JSON = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": float,
    "array": list,
    "object": dict,
    "null": type(None),
}
NONE_SCHEMA: Schema = {"enum": [None, NONE]}
KEYWORDS = {
    "number": {">": "exclusiveMinimum", ">=": "minimum", "<": "exclusiveMaximum", "<=": "maximum"},
    "string": {"at least": "minLength", "at most": "maxLength", "like": "pattern"},
    "array": {"at least": "minItems", "at most": "maxItems"},
    "object": {"at least": "minProperties", "at most": "maxProperties"},
}
KEYWORDS["integer"] = KEYWORDS["number"]
Rules = Sequence[tuple[str, Any]]


def options_schema(title: str, component: Any) -> Schema:
    """The schema of a component's options, of an architecture's arguments; without either, that of the empty table."""
    options = getattr(component, "Options", None)
    described = describe(component).summary
    about = {"$schema": DRAFT, "title": title} | ({"description": described} if described else {})
    if options:
        return about | _record(options)
    if inspect.isfunction(component):
        return about | _arguments(component)
    return about | {"type": "object", "properties": {}, "additionalProperties": False}


def _arguments(factory: Callable[..., Any]) -> Schema:
    """Its arguments and `size`. What has no default is given, or is among those that the size stands for."""
    parameters, takes_any = arguments(factory)
    parameters = parameters | {name: each for name, each in OF_ANY.items() if name not in parameters}
    sizes: Mapping[str, Mapping[str, Any]] = getattr(factory, "sizes", {})
    size: Schema = {"enum": [*sizes, None], "description": "One of its sizes: a name for a set of its arguments."}
    properties = {name: _argument(each) for name, each in parameters.items()} | {"size": size}
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": takes_any}
    must = [
        {"anyOf": [{"required": [name]}, _of_size([size for size in sizes if name in sizes[size]])]}
        for name, each in parameters.items()
        if each.default is REQUIRED
    ]
    return schema | ({"allOf": must} if must else {})


def _argument(parameter: inspect.Parameter) -> Schema:
    schema = _of(parameter.annotation) if is_type(parameter.annotation) else {}
    return schema | ({} if parameter.default is REQUIRED else {"default": plain(parameter.default)})


def _of_size(names: Sequence[str]) -> Schema:
    return {"required": ["size"], "properties": {"size": {"enum": names}}} if names else {"not": {}}


def _record(cls: type) -> Schema:
    docs = field_docs(cls)
    fields = {field.alias or field.name: field for field in resolved(cls) if field.init}
    schema: Schema = {
        "type": "object",
        "properties": {name: _field(field, docs.get(name, "")) for name, field in fields.items()},
        "additionalProperties": False,
    }
    required = [name for name, field in fields.items() if default_of(field) is REQUIRED]
    return schema | ({"required": required} if required else {})


def _field(field: Field, doc: str) -> Schema:
    schema = _of(field.type, list(rules(stated(field))), field)
    default = default_of(field)
    if doc:
        schema["description"] = doc
    if default is not REQUIRED:
        schema["default"] = NONE if default is None else default
    return schema


def _of(annotation: Any, asked: Rules = (), field: Field | None = None) -> Schema:
    """What a file may write for a type; `asked` are the rules for the value itself, not for what is in it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return {}
    if annotation in (None, type(None)):
        return dict(NONE_SCHEMA)
    if origin in (Union, UnionType):
        none_fits = field is None or field_problem(field, None) is None
        choices = [choice for choice in inner if choice is not type(None) or none_fits]
        return {"anyOf": [_of(choice, asked, field) for choice in choices]}
    if annotation is ComponentSpec:
        return _component(field)
    if attrs.has(annotation):
        return _record(annotation)
    if origin is Literal:
        return {"enum": list(inner)}
    schema: Schema = {"type": PLAIN[annotation]} if annotation in PLAIN else _several(origin or annotation, inner)
    words = KEYWORDS.get(str(schema.get("type")), {})
    schema |= {words[rule]: value for rule, value in asked if rule in words}
    chosen = [value for rule, value in asked if rule == "in"]
    return schema | ({"enum": list(chosen[0])} if chosen else {})


def _several(origin: Any, inner: tuple[Any, ...]) -> Schema:
    if origin in (dict, Mapping):
        return {"type": "object"} | ({"additionalProperties": _of(inner[1])} if inner else {})
    if origin is tuple and inner and inner[-1] is not ...:
        length = {"minItems": len(inner), "maxItems": len(inner)}
        return {"type": "array", "prefixItems": [_of(item) for item in inner], **length}
    if origin in (list, tuple, Sequence) and inner:
        return {"type": "array", "items": _of(inner[0])}
    return _instances(origin)


def _instances(cls: Any) -> Schema:
    """What of JSON is an instance of a class; most are such that no file can write one."""
    found = [name for name, of_json in JSON.items() if isinstance(cls, type) and issubclass(of_json, cls)]
    return {"type": found[0] if len(found) == 1 else found} if found else {"not": {}}


def _component(field: Field | None) -> Schema:
    """A component by its name, or a table of its options with the name among them, unless the default's is meant."""
    kind = field.metadata.get("kind") if field else None
    named = bool(kind and field and isinstance(as_spec(field.default), ComponentSpec))
    table: Schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    table |= {} if named else {"required": ["name"]}
    return {"anyOf": [{"type": "string"}, table]} | ({"title": f"{kind} by name"} if kind else {})
