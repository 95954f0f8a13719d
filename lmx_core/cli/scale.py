"""`lmx scale`"""

import click

from lmx_core.cli.options import as_json


@click.command()
@click.argument("flops", type=click.FloatRange(min=0, min_open=True))
@as_json
def scale(flops: float, as_json: bool) -> None:
    """How many parameters on how many tokens make the best of so many FLOPs of training (as 1e19), and what loss to expect.

    By the fit of arXiv:2404.10102 to the runs of Chinchilla (arXiv:2203.15556), and by Chinchilla's own; FLOPs are 6 for
    each parameter and token. Losses are in nats a token of Chinchilla's data and tokenizer.
    """
    import math

    from lmx_core.chinchilla import BESIROGLU, HOFFMANN
    from lmx_core.cli.table import show
    from lmx_core.errors import ConfigError
    from lmx_core.quantities import in_words

    if not math.isfinite(flops):
        raise ConfigError(f"FLOPS must be a finite number, got {flops}")
    laws = {"arXiv:2404.10102": BESIROGLU, "arXiv:2203.15556": HOFFMANN}
    rows = []
    for source, law in laws.items():
        parameters, tokens = law.optimal(flops)
        rows.append({"fit": source, "parameters": parameters, "tokens": tokens, "loss": law.loss(parameters, tokens)})
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
        return
    show(
        ["FIT", "PARAMETERS", "TOKENS", "TOKENS A PARAMETER", "LOSS"],
        [
            [
                row["fit"],
                in_words(round(row["parameters"])),
                in_words(round(row["tokens"])),
                f"{row['tokens'] / row['parameters']:.1f}",
                f"{row['loss']:.3f}",
            ]
            for row in rows
        ],
    )
