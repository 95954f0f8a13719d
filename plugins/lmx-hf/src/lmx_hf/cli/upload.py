"""`lmx upload`"""

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("repo")
@click.option("--private", is_flag=True, help="Make the repository private, if it is not there yet.")
@click.option("--message", help="Of the commit.")
def upload(folder: Path, repo: str, private: bool, message: str | None) -> None:
    """Put a model's folder onto the Hugging Face hub as REPO, with a model card unless it has a README.md."""
    from lmx_hf.hub.upload import upload as put

    click.echo(put(folder, repo, private=private, message=message))
