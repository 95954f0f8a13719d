"""`lmx info`"""

import click

from lmx_core.cli.options import as_json, model_config, size_options


@click.command()
@click.argument("name")
@size_options
@as_json
def info(name: str, size: str | None, as_json: bool) -> None:
    """The config of an architecture, a config file or a saved model, with the number of its parameters."""
    from lmx_core.model import LanguageModel
    from lmx_core.serialize import plain, to_toml

    config = model_config(name, size)
    parameters = LanguageModel(config).count_parameters()
    if as_json:
        import json

        click.echo(json.dumps({"parameters": parameters, "model": plain(config)}, indent=2))
        return
    for line in _about(name):
        click.echo(f"# {line}" if line else "#")
    click.echo(f"# {parameters:,} parameters")
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
