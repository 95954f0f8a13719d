"""`lmx plot`"""

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .png or .html file; both as runs.png and runs.html unless given."
)
@click.option(
    "--over", type=click.Choice(["step", "seconds", "tokens"]), default="step", help="What the curves go over."
)
def plot(runs: tuple[Path, ...], out: Path | None, over: str) -> None:
    """Compare RUNS: a picture of their losses (PNG), and a page with every metric and what differs in their configs (HTML).

    A folder of runs stands for all of them. The page needs no other file. Needs the extra `plot`.
    """
    from lmx_core.errors import ConfigError
    from lmx_core.train.history import found_in, read_history
    from lmx_core.train.plot import page, plot_runs

    places = [place for run in runs for place in (found_in(run) or [run])]
    found = [read_history(place) for place in places]
    if empty := [run for run in found if not run.lines]:
        raise ConfigError(f"{empty[0].path} has no metrics yet. Leave it out, or wait for its first steps.")
    draw = {".png": plot_runs, ".html": page}
    files = [Path("runs.png"), Path("runs.html")] if out is None else [out]
    if files[0].suffix not in draw:
        raise ConfigError(f"--out {out}: a picture ends in .png, a page in .html")
    for file in files:
        draw[file.suffix](found, file, over)
        click.echo(file)
