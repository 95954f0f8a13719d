"""`lmx list`, and `lmx plugins list`"""

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import ConfigError, did_you_mean


@click.command("list")
@click.argument("kind", required=False)
@as_json
def list_components(kind: str | None, as_json: bool) -> None:
    """What can be named in a config, by kind: from which distribution, in which file, and whether it can be used."""
    import attrs

    from lmx_core.cli.table import show
    from lmx_core.inventory import entries

    found = entries()
    known = sorted({entry.kind for entry in found if entry.kind})
    if kind is not None and kind not in known:
        raise ConfigError(f"no kind of component named {kind!r}. {did_you_mean(kind, known)}Kinds: {', '.join(known)}.")
    rows = [attrs.asdict(entry) for entry in found if kind in (None, entry.kind)]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=2))
    else:
        show([key.upper() for key in rows[0]], [[*row.values()] for row in rows])
