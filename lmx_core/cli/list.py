"""`lmx list`"""

import click

from lmx_core.cli.options import as_json
from lmx_core.errors import ConfigError, did_you_mean
from lmx_core.registry import kinds, registry


@click.command("list")
@click.argument("kind", required=False)
@as_json
def list_components(kind: str | None, as_json: bool) -> None:
    """What can be named in a config, by kind."""
    known = kinds()
    if kind is not None and kind not in known:
        raise ConfigError(f"no kind of component named {kind!r}. {did_you_mean(kind, known)}Kinds: {', '.join(known)}.")
    refs = [
        ref
        for each in ([kind] if kind else known)
        for ref in sorted(registry(each).refs(), key=lambda r: (r.name, r.dist))
    ]
    if as_json:
        import json

        rows = [{"kind": ref.kind, "name": ref.name, "dist": ref.dist, "version": ref.version} for ref in refs]
        click.echo(json.dumps(rows, indent=2))
        return
    rows = [("KIND", "NAME", "FROM"), *((ref.kind, ref.name, f"{ref.dist} {ref.version}") for ref in refs)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for row in rows:
        click.echo(f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]}")
