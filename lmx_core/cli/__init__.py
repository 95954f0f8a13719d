"""The command line: each verb is a component of kind `command`, imported when it runs."""

import io
import os
import sys
import warnings
from typing import Any

import click

from lmx_core import __version__, backend
from lmx_core.errors import LmxError, LmxWarning, UnknownComponentError, did_you_mean
from lmx_core.plugins import CORE
from lmx_core.registry import forget, registry


class Verbs(click.Group):
    """Core's verbs, and those of installed plugins."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return registry("command").names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        try:
            return registry("command").get(cmd_name)
        except UnknownComponentError:
            return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args[0] not in known and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"no command {args[0]!r}. {did_you_mean(args[0], known)}Commands: {', '.join(known)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        refs = [ref for name in self.list_commands(ctx) for ref in registry("command").refs(name)]
        rows = [(ref.name, self._help(ref.name) if ref.dist == CORE else f"from {ref.dist}") for ref in refs]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _help(self, name: str) -> str:
        return registry("command").get(name).get_short_help_str(90)


def _block(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    """Hide distributions before the first look-up, in child processes too."""
    if not values:
        return
    from lmx_core.inventory import mistyped

    for value in values:
        word, _, name = value.partition(":")
        if word != "no" or not name:
            raise click.BadParameter(f"{value!r}: write no:NAME, such as -p no:acme-ffn", ctx, option)
        os.environ["LMX_DISABLE"] = f"{os.environ.get('LMX_DISABLE', '')},{name}"
    forget()
    for value in values:
        if (near := mistyped(value.partition(":")[2])) is not None:
            click.echo(
                f"Warning: -p {value} hides nothing: no installed plugin has this name. {near}".rstrip(), err=True
            )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "-p",
    "blocked",
    multiple=True,
    metavar="no:NAME",
    is_eager=True,
    expose_value=False,
    callback=_block,
    help="Hide an installed distribution, as LMX_DISABLE=NAME does.",
)
@click.version_option(__version__, package_name="lmx-core", message="lmx %(version)s")
def lmx() -> None:
    """Language models on MLX, built from components that are looked up by name."""


def main() -> None:
    """Run `lmx`; a mistake that a person can mend is one message and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model writes what no terminal's encoding needs to have
    warnings.showwarning = _told(warnings.showwarning)
    try:
        with backend.explained():
            lmx(prog_name="lmx")
    except LmxError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # `lmx list | head`
        sys.stdout = None
        sys.exit(0)
    except OSError as error:
        click.echo(f"Error: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        sys.exit(2)


def _told(otherwise: Any) -> Any:
    """Our own warnings as one line for a person; those of libraries as they are."""

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, LmxWarning):
            click.echo(f"Warning: {message}", err=True)
        else:
            otherwise(message, category, *where, **more)

    return show
