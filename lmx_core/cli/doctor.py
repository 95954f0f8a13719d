"""`lmx doctor`, and its section `lmx plugins doctor`"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import LmxError

if TYPE_CHECKING:
    from lmx_core.metadata import Problem
    from lmx_core.plugins import Distribution

    Facts = dict[str, Any]
    Problems = list[Problem | str]
    Gather = Callable[[Facts, Problems], None]


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Versions, device, BLAS and its measured speed, plugins; exit code 1 if something is wrong."""
    _examine([_versions, _backend, _plugins], as_json)


@click.command("doctor")
@as_json
def plugins_doctor(as_json: bool) -> None:
    """What is wrong with the installed plugins, and what to do about it; exit code 1 if something is.

    Every component is imported.
    """
    _examine([_plugins], as_json)


def _examine(sections: "Sequence[Gather]", as_json: bool) -> None:
    facts: Facts = {}
    problems: Problems = []
    for gather in sections:
        gather(facts, problems)
    if as_json:
        import json

        click.echo(json.dumps({**facts, "problems": [_plain(problem) for problem in problems]}, indent=2))
    else:
        for name, value in facts.items():
            lines = value if isinstance(value, list) else [str(value)]
            for i, line in enumerate(lines):
                click.echo(f"{name if i == 0 else '':10}  {line}")
        click.echo("\n".join(f"problem: {problem}" for problem in problems) or "no problems")
    raise SystemExit(1 if problems else 0)


def _plain(problem: "Problem | str") -> dict[str, str]:
    import attrs

    return {"what": problem} if isinstance(problem, str) else attrs.asdict(problem)


def _versions(facts: "Facts", problems: "Problems") -> None:
    import platform

    from lmx_core import __version__

    facts["lmx-core"] = __version__
    facts["python"] = f"{platform.python_version()} ({platform.python_implementation()})"
    facts["system"] = f"{platform.system()} {platform.machine()}"


def _backend(facts: "Facts", problems: "Problems") -> None:
    from lmx_core import backend

    try:
        with backend.explained():
            facts["mlx"], facts["device"] = backend.version(), backend.device()
        facts["speed"] = f"{backend.gflops():.0f} GFLOP/s, float32 matrix product of 1024 x 1024"
    except LmxError as error:
        problems.append(str(error))
    facts["blas"], problem = backend.blas()
    problems += [problem] if problem else []


def _plugins(facts: "Facts", problems: "Problems") -> None:
    from lmx_core import hooks, inventory
    from lmx_core.plugins import everything

    facts["plugins"] = [f"{each.name} {each.version}: {_offer(each)}" for each in everything()]
    if lines := hooks.report_header():  # first, so that a hook which fails is among the problems
        facts["they say"] = lines
    problems += inventory.problems()


def _offer(dist: "Distribution") -> str:
    if dist.hidden:
        return f"hidden by {dist.hidden}"
    return f"{len(dist.refs)} component{'s' if len(dist.refs) != 1 else ''}"
