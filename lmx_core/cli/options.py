"""Options that several verbs share."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from lmx_core.config import ModelConfig
from lmx_core.errors import ConfigError
from lmx_core.metadata import canonical
from lmx_core.plugins import distributions
from lmx_core.registry import registry

if TYPE_CHECKING:
    from lmx_core.train.config import RunConfig

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON value, for programs.")

context_option = click.option(
    "--context", type=click.IntRange(min=1), metavar="TOKENS", help="Of FLOPs and cache; max_seq_len unless given."
)


def again(context: click.Context, *without: str) -> list[str]:
    """The words that run this command once more, without some of its options."""
    options: list[str] = []
    arguments: list[str] = []
    for each in context.command.params:
        value: Any = context.params.get(each.name or "")
        if each.name in without or context.get_parameter_source(each.name or "") != ParameterSource.COMMANDLINE:
            continue
        if isinstance(each, click.Argument):
            arguments.append(str(value))
        elif isinstance(each, click.Option) and each.is_flag:
            options.append(each.opts[0])
        else:
            options += [f"{each.opts[0]}={one}" for one in (value if each.multiple else [value])]
    return [context.info_name or "", *options, "--", *arguments]


def size_options(command: Any) -> Any:
    """`--size NAME`, and `--tiny` for `--size tiny`."""
    command = click.option("--tiny", "size", flag_value="tiny", help="Short for --size tiny.")(command)
    return click.option("--size", help="One of the architecture's sizes.")(command)


def model_config(name: str, size: str | None) -> ModelConfig:
    """The config that a person means by `name`: an architecture, a config file, or a saved model."""
    from lmx_core.factories import make_config

    path = Path(name)
    if name in registry("config").names() or not (path.exists() or path.suffix or _is_path(path)):
        return make_config(name, size)
    if size is not None:
        raise ConfigError(f"--size {size} is for an architecture by name; {name} is a file")
    if path.is_dir():
        from lmx_core.opening import config_of

        return config_of(name)
    config, known = run_of(path)
    if not known:
        click.echo(
            f"vocab_size={config.model.vocab_size} is the default; training takes that of tokenizer "
            f"{config.data.tokenizer}",
            err=True,
        )
    return config.model


def _is_path(path: Path) -> bool:
    """Whether a name with a slash means a place, and not an architecture of an installed distribution."""
    dist, *below = path.parts
    return bool(below) and canonical(dist) not in (each.name for each in distributions())


def run_of(file: Path) -> "tuple[RunConfig, bool]":
    """The run of a config file, and whether its vocabulary is the one that trains: stated, or the tokenizer's own.

    Some tokenizers know theirs only once they have read the data.
    """
    import attrs

    from lmx_core.serialize import read_file
    from lmx_core.train.config import run_config
    from lmx_core.train.rules import known_vocabulary
    from lmx_core.train.start import begun

    table, _ = begun(read_file(file))
    if "model" not in table:
        raise ConfigError(f"{file} has no [model] and no start")
    config = run_config(table, str(file))
    if states_vocabulary(table):
        return config, True
    size = known_vocabulary(config.data)
    if size is None:
        return config, False
    return attrs.evolve(config, model=attrs.evolve(config.model, vocab_size=size)), True


def states_vocabulary(table: Mapping[str, Any]) -> bool:
    """Whether a file says how many tokens the model has."""
    return "vocab_size" in table["model"]
