"""Architectures by name: a factory's arguments, checked before it is called."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

import attrs

from lmx_core.config import BlockConfig, ComponentSpec, ModelConfig, as_spec, type_problem
from lmx_core.errors import ComponentError, ConfigError, LmxError, did_you_mean, near_miss, report, told
from lmx_core.exactly import NONE
from lmx_core.registry import registry

Kind = Literal["full", "sliding"]
"""Of a layer, by how far it looks back."""
F = TypeVar("F", bound=Callable[..., ModelConfig])
OF_ANY = {
    "mup_base_width": inspect.Parameter(
        "mup_base_width", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=int | None
    )
}
"""Fields of a model that can be given with any architecture, whose own arguments they need not be."""


def with_sizes(**sizes: Mapping[str, Any]) -> Callable[[F], F]:
    """Give an architecture its sizes: names for sets of its arguments, `tiny` among them."""

    def add(factory: F) -> F:
        vars(factory)["sizes"] = sizes
        return factory

    return add


def varies(base: Callable[..., ModelConfig], *without: str, **defaults: Any) -> Callable[[F], F]:
    """Let an architecture take another one's arguments as well, with other defaults, and without some of them.

    They come as its `**numbers`, for it to hand on; those that it names itself it has instead.
    """

    def add(factory: F) -> F:
        own, inherited = arguments(factory)[0], arguments(base)[0]
        merged = {
            key: each.replace(default=defaults.get(key, each.default))
            for key, each in inherited.items()
            if key not in without
        } | own

        @functools.wraps(factory)
        def made(**numbers: Any) -> ModelConfig:
            if unknown := [key for key in numbers if key not in merged]:
                raise TypeError(f"{factory.__name__}() got an unexpected keyword argument {unknown[0]!r}")
            return factory(**{**defaults, **numbers})

        vars(made)["__signature__"] = inspect.Signature(list(merged.values()))
        return made  # pyright: ignore[reportReturnType]

    return add


def with_block(config: ModelConfig, **changes: Any) -> ModelConfig:
    """The model with these changes in its block."""
    return attrs.evolve(config, block=attrs.evolve(config.block, **changes))


def with_attention(config: ModelConfig, **options: Any) -> ModelConfig:
    """The model with these options of its attention; those that are None are left to their defaults."""
    given = {key: value for key, value in options.items() if value is not None}
    return with_block(config, attention=config.block.attention.having(**given))


def patterned(config: ModelConfig, pattern: Sequence[str], **blocks: BlockConfig) -> ModelConfig:
    """The model with these blocks in this order, over and over; a pattern of one kind alone makes that `block`."""
    if not pattern:
        raise ConfigError("a pattern of layers names at least one of them, got none")
    order = [pattern[i % len(pattern)] for i in range(config.n_layers)]
    if len(set(order)) == 1:
        return attrs.evolve(config, block=blocks[order[0]])
    named = {name: block for name, block in blocks.items() if name in order}
    return attrs.evolve(config, blocks=named, block_pattern=_period(order))


def windowed(config: ModelConfig, window: int | None) -> ModelConfig:
    """The model with a sliding window in every layer, or as it is."""
    if window is None:
        return config
    return with_block(config, attention=config.block.attention.named("sliding_window", window=window))


def mixed(config: ModelConfig, window: int | None, pattern: Sequence[Kind], **local: Any) -> ModelConfig:
    """Layers with a sliding window and without, in this order over and over; `local` also differs in those with it."""
    sliding = attrs.evolve(windowed(config, window).block, **local)
    return config if sliding == config.block else patterned(config, pattern, full=config.block, sliding=sliding)


def _period(order: list[str]) -> list[str]:
    """The shortest pattern that gives this order when it is repeated."""
    n = len(order)
    return next(order[:size] for size in range(1, n + 1) if all(order[i] == order[i % size] for i in range(n)))


def make_config(name: str, size: str | None = None, **numbers: Any) -> ModelConfig:
    """`make_config("llama", size="tiny", n_layers=4)`: an architecture by name, at one of its sizes, with changes.

    `ConfigError` for arguments that will not do, `ComponentError` for an architecture that makes no config of them.
    """
    factory = registry("config").get(name)
    numbers = as_written(factory, numbers)
    if problems := argument_problems(name, size, numbers):
        raise ConfigError(report(f"the arguments of {name}", problems))
    try:
        beside = {key: numbers.pop(key) for key in OF_ANY.keys() & numbers.keys() - arguments(factory)[0].keys()}
        config: Any = factory(**{**(factory.sizes[size] if size else {}), **numbers})
    except LmxError:
        raise
    except Exception as error:
        raise ComponentError(f"{_title(name)} failed: {told(error)}. Its author must mend it.") from error
    if isinstance(config, ModelConfig):
        return attrs.evolve(config, **beside)
    raise ComponentError(
        f"{_title(name)} returned a value of type {type(config).__name__}, not a ModelConfig. Its author must mend it."
    )


def _title(name: str) -> str:
    return registry("config").find(name).title


def argument_problems(name: str, size: str | None, numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a factory's arguments by their names and types: (argument, message) pairs."""
    factory = registry("config").get(name)
    sizes = getattr(factory, "sizes", {})
    problems: list[tuple[str, str]] = []
    if size is not None and size not in sizes:
        problems.append(
            ("size", f"{name} has no size {size!r}. {did_you_mean(size, sizes)}Sizes: {', '.join(sizes) or 'none'}.")
        )
    parameters, takes_any = arguments(factory)
    for key, value in numbers.items():
        if key in parameters or key in OF_ANY:
            annotation = {**OF_ANY, **parameters}[key].annotation
            problem = type_problem(value, annotation) if is_type(annotation) else None
        else:
            problem = None if takes_any else _unknown(key, name, parameters)
        problems += [(key, problem)] if problem else []
    given = {**(sizes.get(size) or {}), **numbers}
    return problems + [
        (key, "is missing") for key, each in parameters.items() if each.default is each.empty and key not in given
    ]


def arguments(factory: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """What can be given by name, and whether any other name can be, too.

    An annotation that means nothing when the program runs stays the text that it is.
    """
    try:
        signature = inspect.signature(factory, eval_str=True)
    except Exception:  # an annotation is any expression
        signature = inspect.signature(factory)
    every = signature.parameters.values()
    named = {each.name: each for each in every if each.kind in (each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD)}
    return named, any(each.kind is each.VAR_KEYWORD for each in every)


def is_type(annotation: Any) -> bool:
    """Whether an argument's annotation says what may be given."""
    return annotation is not inspect.Parameter.empty and not isinstance(annotation, str)


def as_written(factory: Callable[..., Any], numbers: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the factory takes them, where a file has a component's name or table, or `"none"` for None."""
    annotations = {key: each.annotation for key, each in {**OF_ANY, **arguments(factory)[0]}.items()}
    return {key: _read(value, annotations.get(key)) for key, value in numbers.items()}


def _read(value: Any, annotation: Any) -> Any:
    choices = get_args(annotation)
    if annotation is ComponentSpec or ComponentSpec in choices:
        return _as_spec(value)
    stands_for_none = value == NONE and type(None) in choices and type_problem(value, annotation)
    return None if stands_for_none else value


def _as_spec(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        options: dict[str, Any] = dict(value)
        return ComponentSpec(options.pop("name"), options)
    return as_spec(value)


def _unknown(key: str, name: str, parameters: Mapping[str, Any]) -> str:
    near = near_miss(key, parameters)
    meant = f". Did you mean {near!r}?" if near else ""
    return f"unknown argument{meant} ({name} has {', '.join(parameters) or 'none'})"
