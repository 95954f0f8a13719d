"""`lmx config`"""

from collections.abc import Sequence
from pathlib import Path

import click

from lmx_core.cli.diff import diff
from lmx_core.cli.options import as_json, run_of, states_vocabulary

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group()
def config() -> None:
    """Check a config file, write out its defaults, compare two."""


config.add_command(diff)


@config.command()
@FILE
@as_json
def check(file: Path, as_json: bool) -> None:
    """Everything that is wrong with a config file, in one report; exit code 2 if there is something.

    The model is put together to see whether its parts fit, but no weight is computed.
    """
    from lmx_core.errors import report

    problems = _problems(file)
    if as_json:
        import json

        found = [{"path": path, "message": message} for path, message in problems]
        click.echo(json.dumps({"problems": found}, indent=2))
    elif problems:
        click.echo(f"Error: {report(str(file), problems)}", err=True)
    else:
        click.echo(f"{file} is fine")
    raise SystemExit(2 if problems else 0)


@config.command()
@FILE
@click.option("--output", type=click.Path(path_type=Path), help="Write this file instead of printing.")
def fill(file: Path, output: Path | None) -> None:
    """The config file with every key written out, as TOML: defaults, options of components, and what each is for."""
    from lmx_core.document import commented
    from lmx_core.files import write_text

    config, known = run_of(file)
    unknown = {} if known else {"model.vocab_size": "the tokenizer's, which knows it once it has read the data."}
    text = commented(config, unknown)
    if output is None:
        click.echo(text, nl=False)
    else:
        write_text(output, text)


def _problems(file: Path) -> Sequence[tuple[str, str]]:
    from lmx_core.errors import LmxError, ReportError
    from lmx_core.serialize import read_file
    from lmx_core.train.config import run_config
    from lmx_core.train.rules import problems
    from lmx_core.train.start import begun

    try:
        table, _ = begun(read_file(file))
        return problems(run_config(table, str(file)), vocabulary_stated=states_vocabulary(table))
    except ReportError as error:
        return error.problems
    except LmxError as error:
        return [("", str(error))]
