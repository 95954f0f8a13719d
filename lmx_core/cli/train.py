"""`lmx train`"""

from pathlib import Path
from typing import Any

import click

from lmx_core.cli.options import again, as_json


@click.command()
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a key: --set train.max_steps=100"
)
@click.option(
    "--run-dir", type=click.Path(path_type=Path), help="Where the run goes; by default a new one under runs/."
)
@click.option("--force", is_flag=True, help="Replace the run directory if it exists.")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run from its last checkpoint."
)
@click.option("--nproc", type=click.IntRange(1, 256), metavar="N", help="Train with N processes on this machine.")
@click.option(
    "--hostfile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Train on the machines of a file of hosts, as mlx.launch reads it, through ssh.",
)
@as_json
@click.pass_context
def train(
    context: click.Context,
    config: Path | None,
    assignments: tuple[str, ...],
    run_dir: Path | None,
    force: bool,
    resume: Path | None,
    nproc: int | None,
    hostfile: Path | None,
    as_json: bool,
) -> None:
    """Train a model as a config file says, or go on with a run."""
    if resume and config:
        raise click.UsageError(
            f"--resume {resume} goes on with that run's own config: leave out {config}, change keys with --set"
        )
    if resume and (run_dir is not None or force):
        raise click.UsageError("--resume goes on in the run's own directory: leave out --run-dir and --force")
    if not (resume or config):
        raise click.UsageError("give a config file, or --resume RUN")
    if hostfile or (nproc or 1) > 1:
        raise SystemExit(_launched(context, nproc, hostfile))
    from lmx_core.train import main
    from lmx_core.train.parallel.hosts import launched_with
    from lmx_core.train.parallel.launch import LOST
    from lmx_core.train.parallel.overseen import Overseen
    from lmx_core.train.parallel.ranks import LostRankError, from_environment

    overseen = Overseen()
    ranks = overseen.ranks = from_environment()
    if ranks.first:
        _header()
    try:
        if resume:
            job = main.resumed(resume, assignments, ranks)
        else:
            assert config is not None
            job = main.started(config, assignments, run_dir, force, ranks)
        overseen.rescue = job.rescued
        summary = _watched(job, as_json or not ranks.first)
    except LostRankError as error:
        if error.saved or not launched_with():  # the launcher says which one it was
            click.echo(f"Error: {error}", err=True)
        raise SystemExit(LOST) from None
    if not ranks.first:
        raise SystemExit(130 if summary["stopped"] else 0)
    if as_json:
        import json

        from lmx_core.train.run import jsonable

        click.echo(json.dumps(jsonable(summary), indent=2))
    else:
        _report(job, summary)
    raise SystemExit(130 if summary["stopped"] else 0)


def _launched(context: click.Context, nproc: int | None, hostfile: Path | None) -> int:
    """Run this command on several ranks; its exit code."""
    import os
    from contextlib import ExitStack

    if nproc and hostfile:
        raise click.UsageError("--nproc is for this machine, --hostfile for many: give one of them")
    if rank := os.environ.get("MLX_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK"):
        raise click.UsageError(f"this is rank {rank} of several already: leave out --nproc and --hostfile")
    from lmx_core.train.parallel import hosts
    from lmx_core.train.parallel.launch import launch

    with ExitStack() as held:
        places = hosts.here(nproc, held) if nproc else hosts.listed(hostfile or Path())
        return launch(places, again(context, "nproc", "hostfile"))


def _header() -> None:
    from lmx_core import backend, hooks

    for line in hooks.report_header():
        click.echo(line, err=True)
    _, problem = backend.blas()
    if problem:
        click.echo(f"Training will be slow. {problem}", err=True)


def _watched(job: Any, quiet: bool) -> dict[str, Any]:
    """Run the job under a live line. A first Ctrl-C (or SIGTERM, SIGHUP) ends it after a step, a second one at once."""
    import signal

    from lmx_core.cli.live import LiveLine

    def interrupt(*_: Any) -> None:
        for number in before:
            signal.signal(number, signal.default_int_handler)
        job.trainer.stop("interrupted")

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with LiveLine(quiet) as line:
            return job.run([line])
    except KeyboardInterrupt:
        click.echo(f"\nStopped at once, in step {job.trainer.step + 1}. {_back_to_the_last(job)}", err=True)
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _back_to_the_last(job: Any) -> str:
    """What is left of a run that was ended at once."""
    import shlex

    from lmx_core.train.run import checkpoints

    if job.path is None or not checkpoints(job.path):
        return "There is no checkpoint yet."
    last = checkpoints(job.path)[-1].name
    return f"Go on from {last} with:\n  {_lmx()} train --resume {shlex.quote(str(job.path))}"


def _report(job: Any, summary: dict[str, Any]) -> None:
    import shlex
    from datetime import timedelta

    from lmx_core.train.parallel.hosts import launched_with

    rows = [
        ("run", str(job.path)),
        ("model", f"{summary['parameters']:,} parameters"),
        (
            "trained",
            f"{summary['step']:,} steps, {summary['tokens']:,} tokens in {timedelta(seconds=round(summary['seconds']))}",
        ),
    ]
    if summary["tokens_per_second"]:
        rows.append(("speed", f"{summary['tokens_per_second']:,.0f} tokens/s"))
    if summary["train_loss"] is not None:
        unit = getattr(job.trainer.objective, "unit", "")
        rows.append(("loss", f"{summary['train_loss']:.4f} {unit}{' ' if unit else ''}on the last batch"))
    if "val_bpb" in summary:
        held_out = f"{summary['validation_bytes']:,} held-out bytes (sha256 {summary['validation_sha256'][:12]}...)"
        rows.append(("val_bpb", f"{summary['val_bpb']:.4f} bits per byte over {held_out}"))
    elif (criterion := job.trainer.criterion) in summary:
        rows.append((criterion, f"{summary[criterion]:.4f} on what is held out"))
    for name, value in rows:
        click.echo(f"{name:8} {value}")
    path = shlex.quote(str(job.path))
    resume = f"{_lmx()} train --resume {path}{launched_with()}"
    if summary["stopped"]:
        click.echo(f"\nStopped after step {summary['step']}. Go on with:\n  {resume}")
        return
    if summary.get("sample"):
        click.echo(f"\n--- sample {'-' * 59}\n{summary['sample']}\n{'-' * 70}")
    click.echo("\nNext:")
    fitting = job.trainer.model.room_after(len(job.prompt), 200)
    click.echo(f"  {_lmx()} generate {path} --prompt {shlex.quote(summary['prompt'])} --max-tokens {fitting}")
    click.echo(f"  {resume} --set train.max_steps={2 * summary['step']}{_longer(job)}")
    if (job.path / "loss.png").exists():
        click.echo(f"  look at {job.path / 'loss.png'}")


def _longer(job: Any) -> str:
    limit = job.config.train.max_seconds
    return f" --set train.max_seconds={2 * limit:g}" if limit else ""


def _lmx() -> str:
    """How this program was started, for the commands that it suggests."""
    import os
    import shutil

    if "UV_RUN_RECURSION_DEPTH" not in os.environ:  # set by `uv run`
        return "lmx"
    return "uv run lmx" if shutil.which("uv") else "python3 -m uv run lmx"
