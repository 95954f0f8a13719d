"""Options that several verbs share."""

from collections.abc import Mapping
from typing import Any

import click

from lmx_core.config import ModelConfig
from lmx_core.registry import registry

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
    if name in registry("config").names() or not (path.exists() or path.suffix):
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
    config = structure(table["model"], ModelConfig, str(path), "model", installed=True)
    return config if "vocab_size" in table["model"] else _with_vocabulary(config, table)


def _with_vocabulary(config: ModelConfig, table: Mapping[str, Any]) -> ModelConfig:
    """The vocabulary that training takes from the tokenizer, where it is known before the data is read."""
    import attrs

    from lmx_core.data.corpus import DataConfig
    from lmx_core.serialize import structure

    tokenizer = structure(table.get("data", {}), DataConfig, "the file", "data").tokenizer
    size = getattr(registry("tokenizer").get(tokenizer.name), "vocab_size", None)
    if size is None:
        click.echo(
            f"vocab_size={config.vocab_size} is the default; training takes that of tokenizer {tokenizer}", err=True
        )
        return config
    return attrs.evolve(config, vocab_size=size)
