"""`lmx init`"""

from importlib import resources

import click

KINDS = ("llama", "gpt", "block")


@click.command()
@click.argument("kind", type=click.Choice(KINDS), default="llama")
def init(kind: str) -> None:
    """Print a config file to start from: lmx init llama > tiny.toml"""
    text = resources.files("lmx_core").joinpath("examples", f"tiny-{kind}.toml").read_text(encoding="utf-8")
    click.echo(text.replace("examples/tiny-", "tiny-"), nl=False)
