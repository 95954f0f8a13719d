"""Architectures by name: a factory's arguments, checked before it is called."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from lmx_core.config import ModelConfig, type_problem
from lmx_core.errors import ConfigError, did_you_mean, report
from lmx_core.registry import registry

F = TypeVar("F", bound=Callable[..., ModelConfig])


def with_sizes(**sizes: Mapping[str, Any]) -> Callable[[F], F]:
    """Give an architecture its sizes: names for sets of its arguments, `tiny` among them."""

    def add(factory: F) -> F:
        vars(factory)["sizes"] = sizes
        return factory

    return add


def make_config(name: str, size: str | None = None, **numbers: Any) -> ModelConfig:
    """`make_config("llama", size="tiny", n_layers=4)`: an architecture by name, at one of its sizes, with changes."""
    if problems := argument_problems(name, size, numbers):
        raise ConfigError(report(f"the arguments of {name}", problems))
    factory = registry("config").get(name)
    return factory(**{**(factory.sizes[size] if size else {}), **numbers})


def argument_problems(name: str, size: str | None, numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a factory's arguments by their names and types: (argument, message) pairs."""
    factory = registry("config").get(name)
    sizes = getattr(factory, "sizes", {})
    problems: list[tuple[str, str]] = []
    if size is not None and size not in sizes:
        problems.append(
            ("size", f"{name} has no size {size!r}. {did_you_mean(size, sizes)}Sizes: {', '.join(sizes) or 'none'}.")
        )
    parameters = inspect.signature(factory, eval_str=True).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for key, value in numbers.items():
        if key in parameters:
            annotation = parameters[key].annotation
            problem = None if annotation is inspect.Parameter.empty else type_problem(value, annotation)
        else:
            problem = f"unknown argument. {did_you_mean(key, parameters)}({name} has {', '.join(parameters)})"
            problem = None if takes_any else problem
        problems += [(key, problem)] if problem else []
    given = {**(sizes.get(size) or {}), **numbers}
    return problems + [
        (key, "is missing") for key, each in parameters.items() if _is_required(each) and key not in given
    ]


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind in (
        parameter.KEYWORD_ONLY,
        parameter.POSITIONAL_OR_KEYWORD,
    )
