"""`lmx info`"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmx_core.cli.options import as_json, context_option, model_config, size_options

if TYPE_CHECKING:
    from lmx_core.census import Census
    from lmx_core.config import ModelConfig


@click.command()
@click.argument("name")
@size_options
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw the whole model into this file.")
@context_option
@as_json
def info(name: str, size: str | None, svg: Path | None, context: int | None, as_json: bool) -> None:
    """The config of an architecture, a config file or a saved model, how its blocks are wired, and what they come to."""
    from lmx_core.census import census
    from lmx_core.serialize import plain, to_toml

    config = model_config(name, size)
    counted = census(config, context)
    if svg is not None:
        from lmx_core.files import write_text
        from lmx_core.picture import picture

        write_text(svg, picture(config, counted, " ".join(filter(None, [name, size])), _summary(name)))
        click.echo(f"wrote {svg}", err=True)
    if as_json:
        import json

        click.echo(json.dumps({"parameters": counted.total, "model": plain(config)}, indent=2))
        return
    for line in [*_about(name), "", *_drawn(config, counted), ""]:
        click.echo(f"# {line}".rstrip())
    click.echo(f"# {counted.total:,} parameters")
    click.echo(f"# {counted.cache_bytes_per_token:,} bytes of cache a token in bf16")
    click.echo(to_toml({"model": plain(config)}), nl=False)


def _about(name: str) -> list[str]:
    """What a factory says of itself, and its sizes."""
    import inspect

    from lmx_core.registry import registry

    if name not in registry("config").names():
        return [name]
    factory = registry("config").get(name)
    sizes = ", ".join(getattr(factory, "sizes", ())) or "none"
    return [*(inspect.getdoc(factory) or name).splitlines(), f"sizes: {sizes}"]


def _summary(name: str) -> str:
    """The first paragraph of what a factory says of itself, without Markdown; nothing of a file."""
    from lmx_core.describe import describe
    from lmx_core.registry import registry

    if name not in registry("config").names():
        return ""
    return describe(registry("config").get(name)).summary.replace("`", "")


def _drawn(config: "ModelConfig", counted: "Census") -> Iterator[str]:
    from lmx_core.quantities import ranges
    from lmx_core.wiring import around, drawn, groups

    before, after = around(config, counted.parts)
    yield " → ".join(box.text for box in before)
    for group in groups(counted.layers):
        several, named = len(group.layers) > 1, f" ({group.name})" if group.name else ""
        layers = f"layer{'s' * several} {ranges(group.layers)}{named}"
        yield f"{layers}, {group.each('parameters')} parameters{' each' * several}"
        yield from (f"    {line}" for line in drawn(group.steps))
    yield " → ".join(box.text for box in after)
