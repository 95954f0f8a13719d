"""`lmx data`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_core.cli.options import as_json

if TYPE_CHECKING:
    from lmx_core.data.token_files import Meta


@click.group()
def data() -> None:
    """A dataset as tokens on disk, which training reads without loading them."""


@data.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The directory to write.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes that encode; one a core unless given.")
@click.option(
    "--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a key: --set data.tokenizer=bytes"
)
@as_json
def prepare(config: Path, out: Path, workers: int | None, assignments: tuple[str, ...], as_json: bool) -> None:
    """Write the tokens of the dataset that [data] of a config file names.

    What a kill or a full disk leaves is kept in a directory beside it: the same command goes on there.
    """
    import os

    from lmx_core.cli.preparing import PreparingLine
    from lmx_core.data.prepare import prepare as written

    chosen, tokenizer = _read(config, assignments)
    count = workers or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    try:
        with PreparingLine(as_json) as line:
            meta = written(chosen, out, workers=count, tokenizer=tokenizer, told=line.told)
    except KeyboardInterrupt:
        click.echo("Stopped. The same command goes on with what is finished.", err=True)
        raise SystemExit(130) from None
    _report(out, meta, as_json)
    if not as_json:
        click.echo(f'\nTrain with:\n  dataset = {{ name = "tokens", path = "{out}" }}')


@data.command("info")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Compare every byte with what was written.")
@as_json
def info(folder: Path, check: bool, as_json: bool) -> None:
    """What a directory holds that `lmx data prepare` wrote."""
    from lmx_core.data.token_files import opened, verified

    _report(folder, verified(folder) if check else opened(folder), as_json)
    if check and not as_json:
        click.echo("every file is as it was written")


def _read(file: Path, assignments: tuple[str, ...]) -> tuple[Any, Any]:
    """`[data]` of a config file, and the tokenizer of the model that it starts from, if it takes that one."""
    from lmx_core.data.corpus import DataConfig
    from lmx_core.overrides import overridden
    from lmx_core.parts import settled
    from lmx_core.registry import preferring
    from lmx_core.serialize import preferences, read_file, structure

    table, origins = overridden(read_file(file), assignments)
    beginning = None
    if "start" in table:
        from lmx_core.train.start import begun

        table, beginning = begun(table)
    with preferring(preferences(table)):
        found = structure(table.get("data", {}), DataConfig, ", ".join([str(file), *origins]), "data", installed=True)
        return settled(found), beginning.tokenizer if beginning else None


def _report(folder: Path, meta: "Meta", as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps({"path": str(folder), **meta.to_dict()}, indent=2))
        return
    held, text = meta.validation, meta.validation.get("bytes")
    size = f"{held['tokens']:,} tokens" if text is None else f"{text:,} bytes of text"
    rows = {
        "path": folder,
        "dataset": _written(meta.dataset),
        "tokenizer": f"{_written(meta.tokenizer)}, {meta.vocab_size:,} tokens in its vocabulary",
        "train": f"{meta.train['tokens']:,} tokens in {_documents(meta.train)}",
        "validation": f"{size} in {_documents(held)}",
        "sha256": meta.train["sha256"],
    }
    for name, value in rows.items():
        click.echo(f"{name:10} {value}")


def _documents(about: Any) -> str:
    count = about["documents"]
    return f"{count:,} document{'s' * (count != 1)}"


def _written(table: Any) -> str:
    """A component as a person reads it."""
    from lmx_core.config import ComponentSpec
    from lmx_core.serialize import structure

    return str(structure(table, ComponentSpec, "meta.json"))
