"""What holds for verbs of `lmx`."""

from typing import Any

import click
from click.testing import CliRunner

from lmx_core.testing.candidate import Candidate


def is_a_command(command: Candidate) -> None:
    """A click command, whose first line of help says what it does."""
    assert isinstance(command.component, click.Command), f"{command.component!r} is no click command"
    assert command.component.get_short_help_str(), "it has no help text; write a docstring"


def help_is_shown(command: Candidate) -> None:
    """`--help` shows its usage and exits 0."""
    found: Any = CliRunner().invoke(command.component, ["--help"])
    assert found.exit_code == 0, f"--help exits {found.exit_code}: {found.output or found.exception!r}"
    assert "Usage:" in found.output, "--help shows no usage"


def options_are_explained(command: Candidate) -> None:
    """Every option has a help text."""
    bare = [each.name for each in _parameters(command.component) if not each.help]
    assert not bare, f"options without help: {', '.join(map(str, bare))}"


def _parameters(command: click.Command) -> list[click.Option]:
    inner = command.commands.values() if isinstance(command, click.Group) else ()
    own = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    return [*own, *(option for each in inner for option in _parameters(each))]


def unknown_flags_are_refused(command: Candidate) -> None:
    """A mistyped option is an error of usage, exit code 2, unless an argument takes all there is for another tool."""
    if any(isinstance(each, click.Argument) and each.type is click.UNPROCESSED for each in command.component.params):
        return
    found: Any = CliRunner().invoke(command.component, ["--no-such-option"])
    assert found.exit_code == 2, f"--no-such-option exits {found.exit_code}"
