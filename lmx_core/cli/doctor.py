"""`lmx doctor`"""

from collections.abc import Callable
from typing import Any

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import LmxError


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Versions, device, BLAS and its measured speed, plugins; exit code 1 if something is wrong."""
    facts: dict[str, Any] = {}
    problems: list[str] = []
    for gather in (_versions, _backend, _plugins):
        gather(facts, problems)
    if as_json:
        import json

        click.echo(json.dumps({**facts, "problems": problems}, indent=2))
    else:
        for name, value in facts.items():
            lines = value if isinstance(value, list) else [str(value)]
            for i, line in enumerate(lines):
                click.echo(f"{name if i == 0 else '':10}  {line}")
        click.echo("\n".join(f"problem: {problem}" for problem in problems) or "no problems")
    raise SystemExit(1 if problems else 0)


Gather = Callable[[dict[str, Any], list[str]], None]


def _versions(facts: dict[str, Any], problems: list[str]) -> None:
    import platform

    from lmx_core import __version__

    facts["lmx-core"] = __version__
    facts["python"] = f"{platform.python_version()} ({platform.python_implementation()})"
    facts["system"] = f"{platform.system()} {platform.machine()}"


def _backend(facts: dict[str, Any], problems: list[str]) -> None:
    from lmx_core import backend

    try:
        with backend.explained():
            facts["mlx"], facts["device"] = backend.version(), backend.device()
        facts["speed"] = f"{backend.gflops():.0f} GFLOP/s, float32 matrix product of 1024 x 1024"
    except LmxError as error:
        problems.append(str(error))
    facts["blas"], problem = backend.blas()
    problems += [problem] if problem else []


def _plugins(facts: dict[str, Any], problems: list[str]) -> None:
    from lmx_core.plugins import distributions

    found = distributions()
    facts["plugins"] = [f"{each.name} {each.version}: {len(each.refs)} components" for each in found]
    problems += [problem for each in found for problem in each.problems]
