"""Keys from the environment and the command line, laid over a config file: the file first, the command line last."""

import os
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from lmx_core.errors import ConfigError

PREFIX = "LMX_"


def overridden(
    table: Mapping[str, Any], assignments: Iterable[str] = (), environ: Mapping[str, str] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The table with `LMX_TRAIN__SEED=1` and then `train.seed=1` applied, and where the changes came from.

    Of the environment only names with a double underscore are keys; it stands for the dot.
    """
    environ = os.environ if environ is None else environ
    found = [
        (name, name.removeprefix(PREFIX).lower().split("__"), text)
        for name, text in sorted(environ.items())
        if name.startswith(PREFIX) and "__" in name
    ]
    found += [(f"--set {text}", *_assignment(text)) for text in assignments]
    result = dict(table)
    for origin, keys, text in found:
        if not all(keys):
            raise ConfigError(f"{origin} names no key; write it like train.learning_rate or LMX_TRAIN__LEARNING_RATE")
        result = _with(result, keys, _value(text), origin)
    return result, [origin for origin, _, _ in found]


def _assignment(text: str) -> tuple[list[str], str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, such as train.learning_rate=1e-3")
    return key.strip().split("."), value.strip()


def _value(text: str) -> Any:
    """A TOML value where it is one, and else the text itself, so that a name needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _with(table: Mapping[str, Any], keys: list[str], value: Any, origin: str) -> dict[str, Any]:
    key, *deeper = keys
    if not deeper:
        return {**table, key: value}
    inside = table.get(key, {})
    if isinstance(inside, str):  # a component by its bare name gets an option
        inside = {"name": inside}
    if not isinstance(inside, Mapping):
        raise ConfigError(f"{origin}: {key} is {inside!r}, which has no key {deeper[0]!r}")
    return {**table, key: _with(inside, deeper, value, origin)}
