"""`lmx requirements`"""

import click


@click.command()
@click.argument("model")
def requirements(model: str) -> None:
    """What pip installs for a saved model, a run or a config file: lmx requirements MODEL > requirements.txt"""
    from pathlib import Path

    from lmx_core.checkpoint import requirements as saved_requirements
    from lmx_core.cli.options import run_of
    from lmx_core.errors import ConfigError
    from lmx_core.freeze import records, requirements_of

    path = Path(model)
    if not path.exists():
        raise ConfigError(
            f"there is no file or directory {model!r}. Give a saved model, a run or a config file, such as runs/tiny"
        )
    needed = requirements_of(records(run_of(path)[0])) if path.is_file() else saved_requirements(path)
    click.echo("\n".join(needed))
