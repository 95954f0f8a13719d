"""`lmx count`"""

import click

from lmx_core.cli.options import as_json, model_config, size_options


@click.command()
@click.argument("name")
@size_options
@click.option("--detail", is_flag=True, help="Every parameter with its shape.")
@as_json
def count(name: str, size: str | None, detail: bool, as_json: bool) -> None:
    """Parameters of an architecture, a config file or a saved model. Shapes only: needs no memory for them."""
    from lmx_core.model import LanguageModel, parameter_shapes

    config = model_config(name, size)
    model = LanguageModel(config)
    shapes = parameter_shapes(model)
    if as_json:
        import json

        parameters = {key: list(shape) for key, shape in shapes.items()}
        click.echo(
            json.dumps({"total": model.count_parameters()} | ({"parameters": parameters} if detail else {}), indent=2)
        )
        return
    if detail:
        from math import prod

        width = max(map(len, shapes))
        for key, shape in shapes.items():
            click.echo(f"{key:{width}}  {' x '.join(map(str, shape)):>16}  {prod(shape):>16,}")
    click.echo(f"{model.count_parameters():,} parameters")
