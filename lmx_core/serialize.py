"""Configs to and from plain data and files: exact types, every problem in one report, each with its path."""

import functools
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs

from lmx_core.config import BlockConfig, ComponentSpec, Field, ModelConfig, as_spec, field_problem, type_problem
from lmx_core.errors import ConfigError, LmxError, ReportError, near_miss, report
from lmx_core.exactly import NONE, Problems, collecting, exact_converter
from lmx_core.factories import argument_problems, as_written, make_config
from lmx_core.registry import registry

T = TypeVar("T")


def structure(data: Any, cls: type[T], where: str, path: str = "", *, installed: bool = False) -> T:
    """`data` as a `cls`, or a `ConfigError` that reports every problem of `where`.

    `installed` also holds each component's options to the installed component; without it a config is read as it
    stands, its plugins present or not.
    """
    try:
        return _converter(installed).structure(data, cls)
    except Problems as problems:
        found = problems
    except LmxError as error:  # a component that is not there
        found = Problems(("", str(error)))
    raise ReportError(where, found.below(path) if path else found.found)


def preferences(table: Mapping[str, Any]) -> Sequence[str]:
    """The distributions that a config prefers, if it says so in a way that can be read."""
    preferred: Any = table.get("prefer")
    sound = isinstance(preferred, list) and all(isinstance(dist, str) for dist in preferred)
    return preferred if sound else ()


def options_of(component: Any, chosen: ComponentSpec, *, installed: bool = False) -> tuple[Any, ...]:
    """The component's `Options` filled from its spec, as arguments: one, or none where it has no options."""
    options = getattr(component, "Options", None)
    if options is None and chosen.options:
        raise Problems(*((key, f"unknown option; {chosen.name!r} has no options") for key in chosen.options))
    return () if options is None else (_converter(installed).structure(chosen.thawed(), options),)


def filled(kind: str, component: Any, chosen: ComponentSpec) -> tuple[Any, ...]:
    """The component's options with its defaults filled in, as arguments; `ConfigError` with every problem."""
    try:
        return options_of(component, chosen)
    except Problems as problems:
        raise ConfigError(report(f"the options of {kind} {chosen.name!r}", problems.found)) from None


def plain(instance: Any) -> Any:
    """A config as dicts, lists, strings and numbers, every default written out; `structure` reads it back equal."""
    if isinstance(instance, ComponentSpec):
        return {"name": instance.name, **plain(instance.options)} if instance.options else instance.name
    if attrs.has(type(instance)):
        fields = attrs.fields(type(instance))
        values = {field.alias: (getattr(instance, field.name), field.default) for field in fields}
        written = {
            key: NONE if value is None else plain(value)
            for key, (value, default) in values.items()
            if value is not None or default is not None
        }
        return _inheriting_nothing(written) if isinstance(instance, ModelConfig) else written
    if isinstance(instance, Mapping):
        return {key: plain(value) for key, value in instance.items()}
    return [plain(value) for value in instance] if isinstance(instance, list | tuple) else instance


def _inheriting_nothing(model: dict[str, Any]) -> dict[str, Any]:
    """The table of a model in which a named block also says what it has not, and `block` has."""
    unset = dict.fromkeys(model["block"], NONE)
    blocks = {name: {**unset, **block} for name, block in model.get("blocks", {}).items()}
    return {**model, **({"blocks": blocks} if blocks else {})}


def read_file(path: Path) -> dict[str, Any]:
    """The table in a .toml, .json or .yaml file (YAML needs `lmx-core[yaml]`)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from None
    parse = PARSERS.get(path.suffix)
    if parse is None:
        raise ConfigError(f"{path}: a config ends in {', '.join(PARSERS)}, got {path.suffix or 'no suffix'!r}")
    try:
        data = parse(text)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid {path.suffix[1:].upper()}: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds a {type(data).__name__}; a config is a table of keys")
    return data


def to_toml(data: Mapping[str, Any]) -> str:
    import tomlkit

    return tomlkit.dumps(data)


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise ConfigError('YAML needs a package more: pip install "lmx-core[yaml]"') from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


PARSERS: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads, ".yaml": _yaml, ".yml": _yaml}


@functools.cache  # 3 ms each, of which a family of checkpoints would take hundreds
def _converter(installed: bool) -> cattrs.Converter:
    converter = exact_converter()
    converter.register_structure_hook_factory(attrs.has, lambda cls: _record(converter, cls, installed))
    as_fields = _record(converter, ModelConfig, installed)
    converter.register_structure_hook(
        ModelConfig, lambda data, _: _from_factory(data) or as_fields(_inherited(converter, data), _)
    )
    converter.register_structure_hook(ComponentSpec, lambda data, _: _component(data))
    return converter


def _component(data: Any) -> ComponentSpec:
    if isinstance(data, ComponentSpec):
        return data
    if isinstance(data, str):
        return ComponentSpec(data)
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise Problems(("", f'expected a component\'s name or {{ name = "...", its options }}, got {data!r}'))
    options: dict[str, Any] = dict(data)
    return ComponentSpec(options.pop("name"), options)


def _inherited(converter: cattrs.Converter, data: Any) -> Any:
    """The table of a model with its named blocks written out: each says only what differs from `block`."""
    blocks = data.get("blocks") if isinstance(data, Mapping) else None
    if not isinstance(blocks, Mapping):
        return data
    try:
        common = plain(converter.structure(data.get("block", {}), BlockConfig))
    except (Problems, LmxError):  # which are told once, where they are
        common = {}
    whole = {name: {**common, **block} if isinstance(block, Mapping) else block for name, block in blocks.items()}
    return {**data, "blocks": whole}


def _from_factory(data: Any) -> ModelConfig | None:
    """The model of a table with a `factory`: its other keys are the factory's arguments."""
    if not isinstance(data, Mapping) or "factory" not in data:
        return None
    name, size, numbers = _parted(**data)
    numbers = as_written(registry("config").get(name), numbers)
    if problems := argument_problems(name, size, numbers):
        raise Problems(*problems)
    try:
        return make_config(name, size, **numbers)
    except ConfigError as error:
        raise Problems(("", str(error))) from None


def _parted(factory: Any, size: Any = None, **numbers: Any) -> tuple[str, str | None, dict[str, Any]]:
    problems = [
        (key, problem)
        for key, value, kind in (("factory", factory, str), ("size", size, str | None))
        if (problem := type_problem(value, kind))
    ]
    if problems:
        raise Problems(*problems)
    return factory, size, numbers


def _record(converter: cattrs.Converter, cls: type, installed: bool) -> Callable[[Any, Any], Any]:
    try:
        attrs.resolve_types(cls)
    except NameError as error:
        raise ConfigError(f"{cls.__module__}.{cls.__name__} has an annotation that means nothing: {error}") from None
    fields = {field.alias: field for field in attrs.fields(cls) if field.init}

    def read(data: Any, _: Any) -> Any:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise Problems(("", f"expected a table, got {data!r} ({type(data).__name__})"))
        values: dict[str, Any] = {}
        problems: list[tuple[str, str]] = []
        for key, item in data.items():  # in the order of the file
            if key not in fields:
                problems.append((str(key), _unknown(str(key), cls, fields)))
                continue
            with collecting(problems, key):
                values[key] = _value(converter, fields[key], item, installed)
        required = [key for key, field in fields.items() if field.default is attrs.NOTHING]
        problems += [(key, "is missing") for key in required if key not in data]
        if problems:
            raise Problems(*problems)
        try:
            return cls(**values)
        except (ConfigError, ValueError) as error:
            raise Problems(("", str(error))) from None

    return read


def _value(converter: cattrs.Converter, field: Field, data: Any, installed: bool) -> Any:
    if "kind" in field.metadata and isinstance(data, Mapping) and "name" not in data:
        data = {**_default_name(field), **data}  # options alone are the default component's
    kind: Any = field.type
    value = converter.structure(data, kind)
    if problem := field_problem(field, value):
        raise Problems(("", problem))
    if installed and "kind" in field.metadata:
        several = isinstance(value, tuple)
        problems: list[tuple[str, str]] = []
        for i, part in enumerate(value if several else (value,)):
            if isinstance(part, ComponentSpec):
                with collecting(problems, f"[{i}]" if several else ""):
                    options_of(registry(field.metadata["kind"]).get(part.name), part, installed=True)
        if problems:
            raise Problems(*problems)
    return value


def _default_name(field: Field) -> dict[str, str]:
    default = as_spec(field.default)
    return {"name": default.name} if isinstance(default, ComponentSpec) else {}


def _unknown(key: str, cls: type, fields: Mapping[str, Any]) -> str:
    noun = "option" if cls.__name__.endswith("Options") else "key"
    near = near_miss(key, fields)
    meant = f"; did you mean {near!r}?" if near else ""
    return f"unknown {noun}{meant} ({cls.__name__} has {', '.join(fields)})"
