"""Options that several verbs share."""

from typing import Any

import click

from lmx_core.config import ModelConfig

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value, for programs.")


def size_options(command: Any) -> Any:
    """`--size NAME`, and `--tiny` for `--size tiny`."""
    command = click.option("--tiny", "size", flag_value="tiny", help="Short for --size tiny.")(command)
    return click.option("--size", help="One of the architecture's sizes.")(command)


def model_config(name: str, size: str | None) -> ModelConfig:
    """The config that a person means by `name`: an architecture, a config file, or a saved model."""
    from pathlib import Path

    from lmx_core.errors import ConfigError
    from lmx_core.factories import make_config

    path = Path(name)
    if not path.exists() and not path.suffix:
        return make_config(name, size)
    if size is not None:
        raise ConfigError(f"--size {size} is for an architecture by name; {name} is a file")
    if path.is_dir():
        from lmx_core.checkpoint import model_directory, read_config

        return read_config(model_directory(path))
    from lmx_core.serialize import read_file, structure

    table = read_file(path)
    if "model" not in table:
        raise ConfigError(f"{path} has no [model]")
    return structure(table["model"], ModelConfig, str(path), "model", installed=True)
