"""`lmx runs`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.options import as_json

if TYPE_CHECKING:
    from lmx_core.train.history import History

COLUMNS = ("step", "loss", "val_loss", "val_bpb", "val_reward", "tokens_per_second", "seconds")


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
@as_json
def runs(folders: tuple[Path, ...], as_json: bool) -> None:
    """The runs in FOLDERS (runs/ unless given): their state, their last numbers, and the lowest loss in an evaluation.

    `broken off` is a run that was killed or that an error ended: go on with it by `lmx train --resume RUN`.
    """
    from lmx_core.cli.table import show
    from lmx_core.errors import CheckpointError
    from lmx_core.train.history import found_in, read_history

    places = folders or (Path("runs"),)
    if missing := [place for place in places if not place.is_dir()]:
        raise CheckpointError(f"{missing[0]} is no directory. Give the folder that holds the runs, or a run.")
    found = [read_history(run) for place in places for run in found_in(place)]
    rows = [_row(run) for run in found]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo(f"no runs in {', '.join(map(str, places))}", err=True)
    else:
        show([name.upper() for name in rows[0]], [[_cell(value) for value in row.values()] for row in rows])


def _row(run: "History") -> dict[str, Any]:
    last = {name: run.last(name) for name in COLUMNS}
    return {"run": str(run.path), "state": run.state, **last, "lowest_val_loss": run.lowest("val_loss")}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
