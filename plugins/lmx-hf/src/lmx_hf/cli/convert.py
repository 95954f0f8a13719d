"""`lmx convert`"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from lmx_core.cli.options import as_json

if TYPE_CHECKING:
    from lmx_hf.save import Format


@click.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "program",
    type=click.Choice(["hf", "mlx-lm", "lmx"]),
    default="hf",
    show_default=True,
    help="Whose folder it becomes; transformers and mlx-lm both read hf.",
)
@click.option("--family", metavar="MODEL_TYPE", help="What it is written as, where it could be several.")
@click.option(
    "--dtype", type=click.Choice(["auto", "float32", "float16", "bfloat16"]), default="auto", show_default=True
)
@click.option("--adapter", metavar="ADAPTER", help="A LoRA adapter of PEFT or mlx-lm that is added to the weights.")
@click.option("--revision", help="Of a repository on the hub.")
@as_json
def convert(
    source: str,
    target: Path,
    program: str,
    family: str | None,
    dtype: str,
    adapter: str | None,
    revision: str | None,
    as_json: bool,
) -> None:
    """Write a model as another program reads it.

    SRC is a run, a saved model, a folder of a Hugging Face checkpoint, or a repository of the hub.
    """
    from lmx_hf.load import opened
    from lmx_hf.save import export

    found = opened(source, revision=revision, dtype=dtype, adapter=adapter)
    export(found.model, target, cast("Format", program), family=family, tokenizer=found.tokenizer)
    files = {file.name: file.stat().st_size for file in sorted(target.iterdir())}
    if as_json:
        click.echo(json.dumps({"folder": str(target), "format": program, "files": files}, indent=2))
        return
    click.echo(f"{target}  {found.model.count_parameters():,} parameters")
    for name, size in files.items():
        click.echo(f"  {name:40} {size:>15,}")
