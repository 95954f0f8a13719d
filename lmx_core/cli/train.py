"""`lmx train`"""

from pathlib import Path
from typing import Any

import click

from lmx_core.cli.options import as_json


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
@as_json
def train(
    config: Path | None,
    assignments: tuple[str, ...],
    run_dir: Path | None,
    force: bool,
    resume: Path | None,
    as_json: bool,
) -> None:
    """Train a model as a config file says, or go on with a run."""
    if resume and config:
        raise click.UsageError(
            f"--resume {resume} goes on with that run's own config: leave out {config}, change keys with --set"
        )
    if resume and (run_dir is not None or force):
        raise click.UsageError("--resume goes on in the run's own directory: leave out --run-dir and --force")
    from lmx_core import backend, hooks
    from lmx_core.train import main

    for line in hooks.report_header():
        click.echo(line, err=True)

    _, problem = backend.blas()
    if problem:
        click.echo(f"Training will be slow. {problem}", err=True)
    if resume:
        job = main.resumed(resume, assignments)
    elif config:
        job = main.started(config, assignments, run_dir, force)
    else:
        raise click.UsageError("give a config file, or --resume RUN")
    summary = _watched(job, as_json)
    if as_json:
        import json

        click.echo(json.dumps(summary, indent=2))
    else:
        _report(job, summary)
    raise SystemExit(130 if summary["stopped"] else 0)


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
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(job: Any, summary: dict[str, Any]) -> None:
    import shlex
    from datetime import timedelta

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
        rows.append(("loss", f"{summary['train_loss']:.4f} nats a token on the last batch"))
    if "val_bpb" in summary:
        held_out = f"{summary['validation_bytes']:,} held-out bytes (sha256 {summary['validation_sha256'][:12]}...)"
        rows.append(("val_bpb", f"{summary['val_bpb']:.4f} bits per byte over {held_out}"))
    for name, value in rows:
        click.echo(f"{name:8} {value}")
    path = shlex.quote(str(job.path))
    if summary["stopped"]:
        click.echo(f"\nStopped after step {summary['step']}. Go on with:\n  {_lmx()} train --resume {path}")
        return
    if summary.get("sample"):
        click.echo(f"\n--- sample {'-' * 59}\n{summary['sample']}\n{'-' * 70}")
    click.echo("\nNext:")
    fitting = job.trainer.model.room_after(len(job.prompt), 200)
    click.echo(f"  {_lmx()} generate {path} --prompt {shlex.quote(summary['prompt'])} --max-tokens {fitting}")
    click.echo(f"  {_lmx()} train --resume {path} --set train.max_steps={2 * summary['step']}{_longer(job)}")
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
